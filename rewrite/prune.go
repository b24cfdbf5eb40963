package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// valueRef names a value of a graph, across the edits that make an index stale.
type valueRef struct {
	graph *onnx.Graph
	name  string
}

func refTo(v *value) valueRef { return valueRef{v.scope.graph, v.name} }

// prune removes the given values if nothing reads them, and then what only they were made from, as long as that is
// constant. It returns the names of the removed initializers.
func prune(m *onnx.Model, refs []valueRef) []string {
	vs := newValues(m)
	scopes := map[*onnx.Graph]*scope{}
	for _, s := range vs.scopes {
		if s.graph != nil {
			scopes[s.graph] = s
		}
	}
	p := &pruner{vs: vs, nodes: map[*onnx.Node]bool{}, gone: map[*value]bool{}, vanished: map[valueRef]bool{}}
	for _, ref := range refs {
		s := scopes[ref.graph]
		if s == nil {
			continue
		}
		if v := s.names[ref.name]; v != nil {
			p.drop(v)
		} else {
			p.vanished[ref] = true
		}
	}
	for g, s := range scopes {
		p.sweep(g, s)
	}
	slices.Sort(p.tensors)
	return p.tensors
}

// pruner marks what is of no use.
type pruner struct {
	vs       *values
	nodes    map[*onnx.Node]bool
	gone     map[*value]bool
	vanished map[valueRef]bool // values between two nodes that became one
	tensors  []string
}

// drop marks v, unless something still reads it.
func (p *pruner) drop(v *value) {
	if v == nil || v.kept || p.gone[v] || p.used(v) {
		return
	}
	if v.initializer != nil {
		p.gone[v] = true
		p.tensors = append(p.tensors, v.name)
		return
	}
	n := v.producer
	if n == nil || (!isFoldable(n) && !standard(n, "Constant")) {
		return
	}
	for _, out := range n.Outputs {
		if w := p.vs.of[n].names[out]; w != nil && (w.kept || p.used(w)) {
			return
		}
	}
	p.nodes[n] = true
	for _, out := range n.Outputs {
		if w := p.vs.of[n].names[out]; w != nil {
			p.gone[w] = true
		}
	}
	for i := range n.Inputs {
		p.drop(p.vs.input(n, i))
	}
}

func (p *pruner) used(v *value) bool {
	return slices.ContainsFunc(v.uses, func(u use) bool { return !p.nodes[u.node] })
}

// sweep removes what is marked from one graph, with everything that speaks of it.
func (p *pruner) sweep(g *onnx.Graph, s *scope) {
	goneName := func(name string) bool {
		return p.gone[s.names[name]] || p.vanished[valueRef{g, name}]
	}
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n *onnx.Node) bool { return p.nodes[n] })
	g.Initializers = slices.DeleteFunc(g.Initializers, func(t *onnx.Tensor) bool { return goneName(t.Name) })
	g.Inputs = slices.DeleteFunc(g.Inputs, func(in *onnx.ValueInfo) bool { return goneName(in.Name) })
	g.ValueInfo = slices.DeleteFunc(g.ValueInfo, func(v *onnx.ValueInfo) bool { return goneName(v.Name) })
	g.QuantizationAnnotations = slices.DeleteFunc(g.QuantizationAnnotations, func(a *onnx.TensorAnnotation) bool {
		return goneName(a.TensorName)
	})
}
