package rewrite

import (
	"github.com/cosetq/cosetq/onnx"
)

// maxNesting bounds the depth of subgraphs that is followed.
const maxNesting = 64

// values indexes a model: for every graph, which value a name means, who produces it and who uses it.
type values struct {
	model  *onnx.Model
	main   *scope
	scopes []*scope // in the order of a walk: a node's subgraphs follow right after the nodes before it
	of     map[*onnx.Node]*scope
	ranks  map[*value]int // as far as asked for; -1 where unknown
}

// scope is the body of one graph or model-local function.
type scope struct {
	graph    *onnx.Graph    // nil for a function
	function *onnx.Function // nil for a graph
	parent   *scope
	names    map[string]*value
	depth    int
}

// nodes returns the nodes of the body.
func (s *scope) nodes() []*onnx.Node {
	if s.graph != nil {
		return s.graph.Nodes
	}
	return s.function.Nodes
}

// inFunction reports whether the body is, or lies inside, a model-local function.
func (s *scope) inFunction() bool {
	for ; s != nil; s = s.parent {
		if s.function != nil {
			return true
		}
	}
	return false
}

// lookup finds what name means inside s: the innermost definition.
func (s *scope) lookup(name string) *value {
	for ; s != nil; s = s.parent {
		if v := s.names[name]; v != nil {
			return v
		}
	}
	return nil
}

// value is one tensor of the model.
type value struct {
	name        string
	scope       *scope
	initializer *onnx.Tensor // nil unless stored in the graph
	producer    *onnx.Node   // nil unless computed
	info        *onnx.ValueInfo
	overridable bool // a graph input that the initializer only gives a default for
	kept        bool // a graph output, or named by training information
	uses        []use
}

// use is one place a value is read.
type use struct {
	node  *onnx.Node
	input int
}

// newValues indexes m.
func newValues(m *onnx.Model) *values {
	vs := &values{model: m, of: map[*onnx.Node]*scope{}, ranks: map[*value]int{}}
	if m.Graph != nil {
		vs.main = vs.addGraph(m.Graph, nil)
	}
	for _, f := range m.Functions {
		vs.addFunction(f)
	}
	for _, t := range m.TrainingInfo {
		for _, bind := range [][]*onnx.Property{t.InitializationBinding, t.UpdateBinding} {
			for _, p := range bind {
				vs.keep(p.Key)
				vs.keep(p.Value)
			}
		}
	}
	return vs
}

func (vs *values) keep(name string) {
	if vs.main == nil {
		return
	}
	if v := vs.main.names[name]; v != nil {
		v.kept = true
	}
}

func (vs *values) newScope(parent *scope) *scope {
	s := &scope{parent: parent, names: map[string]*value{}}
	if parent != nil {
		s.depth = parent.depth + 1
	}
	vs.scopes = append(vs.scopes, s)
	return s
}

func (s *scope) define(name string) *value {
	v := s.names[name]
	if v == nil {
		v = &value{name: name, scope: s}
		s.names[name] = v
	}
	return v
}

func (vs *values) addGraph(g *onnx.Graph, parent *scope) *scope {
	s := vs.newScope(parent)
	s.graph = g
	for _, in := range g.Inputs {
		s.define(in.Name).info = in
	}
	for _, t := range g.Initializers {
		v := s.define(t.Name)
		// Before IR version 4 every initializer had to be listed as an input, so the listing says nothing.
		v.overridable = v.info != nil && vs.model.IRVersion >= 4
		v.initializer = t
	}
	for _, t := range g.SparseInitializers {
		if t.Values != nil {
			s.define(t.Values.Name)
		}
	}
	vs.addNodes(s, g.Nodes)
	for _, info := range g.ValueInfo {
		if v := s.names[info.Name]; v != nil && v.info == nil {
			v.info = info
		}
	}
	for _, a := range g.QuantizationAnnotations {
		for _, p := range a.QuantParameterTensorNames {
			if v := s.lookup(p.Value); v != nil {
				v.kept = true
			}
		}
	}
	for _, out := range g.Outputs {
		if v := s.lookup(out.Name); v != nil {
			v.kept = true
			if v.info == nil && v.scope == s {
				v.info = out
			}
		}
	}
	return s
}

func (vs *values) addFunction(f *onnx.Function) {
	s := vs.newScope(nil)
	s.function = f
	for _, in := range f.Inputs {
		s.define(in)
	}
	vs.addNodes(s, f.Nodes)
	for _, out := range f.Outputs {
		if v := s.names[out]; v != nil {
			v.kept = true
		}
	}
}

func (vs *values) addNodes(s *scope, nodes []*onnx.Node) {
	for _, n := range nodes {
		vs.of[n] = s
		for _, out := range n.Outputs {
			if out != "" {
				s.define(out).producer = n
			}
		}
	}
	for _, n := range nodes {
		for i, in := range n.Inputs {
			if v := s.lookup(in); in != "" && v != nil {
				v.uses = append(v.uses, use{n, i})
			}
		}
		if s.depth < maxNesting {
			for _, g := range subgraphs(n) {
				vs.addGraph(g, s)
			}
		}
	}
}

// subgraphs returns the graphs among the attributes of n.
func subgraphs(n *onnx.Node) []*onnx.Graph {
	var gs []*onnx.Graph
	for _, a := range n.Attributes {
		if a.G != nil {
			gs = append(gs, a.G)
		}
		gs = append(gs, a.Graphs...)
	}
	return gs
}

// input returns the value that input i of n reads, or nil when it is absent.
func (vs *values) input(n *onnx.Node, i int) *value {
	if i >= len(n.Inputs) || n.Inputs[i] == "" {
		return nil
	}
	return vs.of[n].lookup(n.Inputs[i])
}

// standard reports whether n is an operator of the default ONNX domain.
func standard(n *onnx.Node, op string) bool {
	return n.OpType == op && (n.Domain == "" || n.Domain == "ai.onnx")
}
