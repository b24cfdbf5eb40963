package onnx

import "slices"

// What Inline makes is bounded in nodes, and calls inside calls by the length of the names they give: functions that call each other many times are
// small in a file, and nowhere else.
const (
	maxInlined = 1 << 17
	maxPrefix  = 1 << 10
)

// Inline puts the bodies of functions that want asks for in the place of the nodes of graphs that call them, and drops those that nothing calls any
// more. Values and nodes of a body get the name of the call in front of their own. It returns how many calls it replaced. Calls stay as they are
// where a function is of another version of an operator set than the model, calls itself or one that does, or is given more than it takes, and once
// a hundred thousand nodes have come of others, or calls or graphs lie too deep in each other.
func (m *Model) Inline(want func(*Function) bool) int {
	in := inliner{model: m, calls: m.calls(), wanted: map[string]*Function{}, depth: map[string]int{}}
	finite := in.finite()
	for _, f := range m.Functions {
		if f != nil && finite[f.ID()] && in.wanted[f.ID()] == nil && m.imports(f) && want(f) {
			in.wanted[f.ID()] = f
		}
	}
	if len(in.wanted) == 0 {
		return 0
	}
	for _, s := range m.Scopes() {
		depth := 0
		for up := s; up.Parent != nil; up = up.Parent {
			depth++
		}
		if f := s.Root().Function; f != nil {
			in.depth[f.ID()] = max(in.depth[f.ID()], depth)
		}
	}
	in.names = NewNames(m)
	graphs := []*Graph{m.Graph}
	for _, t := range m.TrainingInfo {
		if t != nil {
			graphs = append(graphs, t.Initialization, t.Algorithm)
		}
	}
	for _, g := range graphs {
		in.graph(g, 0)
	}
	if in.replaced > 0 {
		in.dropUncalled()
	}
	return in.replaced
}

// imports reports whether f has no operator set in another version than m.
func (m *Model) imports(f *Function) bool {
	return !slices.ContainsFunc(f.OpsetImports, func(o *OpsetImport) bool {
		if o == nil {
			return true
		}
		version, known := m.Opset(o.Domain)
		return known && version != o.Version
	})
}

// calls lists which operators the nodes of each function are, those inside the graphs of nodes too, and that which body may add.
func (m *Model) calls() map[string][]string {
	calls := map[string][]string{}
	for _, f := range m.Functions {
		if f != nil {
			calls[f.ID()] = []string{NewNode(opIdentity, nil, nil).OpID()}
		}
	}
	for _, s := range m.Scopes() {
		f := s.Root().Function
		if f == nil {
			continue
		}
		for _, n := range s.Nodes() {
			if n != nil {
				calls[f.ID()] = append(calls[f.ID()], n.OpID())
			}
		}
	}
	return calls
}

const opIdentity = "Identity"

// inliner makes nodes of calls.
type inliner struct {
	model    *Model
	wanted   map[string]*Function
	calls    map[string][]string // of each function
	depth    map[string]int      // of the graphs inside it
	names    *Names
	made     int
	replaced int
}

// finite lists the functions that do not go on for ever: those that call none, and then those that call only such.
func (in *inliner) finite() map[string]bool {
	open, callers := map[string]int{}, map[string][]string{}
	var ready []string
	for id, calls := range in.calls {
		for _, callee := range calls {
			if _, is := in.calls[callee]; is {
				open[id]++
				callers[callee] = append(callers[callee], id)
			}
		}
		if open[id] == 0 {
			ready = append(ready, id)
		}
	}
	finite := map[string]bool{}
	for len(ready) > 0 {
		id := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		finite[id] = true
		for _, caller := range callers[id] {
			if open[caller]--; open[caller] == 0 {
				ready = append(ready, caller)
			}
		}
	}
	return finite
}

// graph replaces the calls in g and in the graphs that its nodes hold.
func (in *inliner) graph(g *Graph, depth int) {
	if g == nil || depth > maxNesting/3 { // one that holds itself
		return
	}
	var nodes []*Node
	todo := slices.Clone(g.Nodes) // the next one last
	slices.Reverse(todo)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n == nil {
			nodes = append(nodes, n)
			continue
		}
		if f := in.wanted[n.OpID()]; f != nil && depth+in.depth[f.ID()] <= maxNesting/3 {
			if body := in.body(f, n, g); body != nil {
				in.replaced++
				slices.Reverse(body)
				todo = append(todo, body...)
				continue
			}
		}
		for _, a := range n.Attributes {
			if a == nil {
				continue
			}
			for _, held := range append([]*Graph{a.G}, a.Graphs...) {
				in.graph(held, depth+1)
			}
		}
		nodes = append(nodes, n)
	}
	g.Nodes = nodes
}

// dropUncalled drops the wanted functions that neither a graph calls nor a function that is called.
func (in *inliner) dropUncalled() {
	called := map[string]bool{}
	var todo []string
	call := func(id string) {
		if !called[id] {
			called[id] = true
			todo = append(todo, id)
		}
	}
	for _, s := range in.model.Scopes() {
		if s.Root().Function != nil {
			continue
		}
		for _, n := range s.Nodes() {
			if n != nil {
				call(n.OpID())
			}
		}
	}
	for _, f := range in.model.Functions { // others stay, called or not
		if f != nil && in.wanted[f.ID()] != f {
			call(f.ID())
		}
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, callee := range in.calls[id] {
			call(callee)
		}
	}
	in.model.Functions = slices.DeleteFunc(in.model.Functions, func(f *Function) bool { return f != nil && in.wanted[f.ID()] == f && !called[f.ID()] })
}

// body returns what stands for call in graph g, nil if nothing can.
func (in *inliner) body(f *Function, call *Node, g *Graph) []*Node {
	if len(call.Inputs) > len(f.Inputs) || len(call.Outputs) > len(f.Outputs) || in.made+len(in.calls[f.ID()])+len(f.Outputs) > maxInlined ||
		slices.Contains(f.Nodes, nil) || !in.model.imports(f) { // operator sets may have come with other functions
		return nil
	}
	c := &inlined{in: in, f: f, call: call, values: map[string]string{}, prefix: call.Name}
	for i, name := range f.Inputs {
		c.values[name] = ""
		if i < len(call.Inputs) {
			c.values[name] = call.Inputs[i]
		}
	}
	// An output that is an input as well, or another output, is a value of its own all the same.
	var copies []*Node
	outputs := map[string]bool{}
	for i, name := range f.Outputs {
		if i >= len(call.Outputs) || call.Outputs[i] == "" {
			continue
		}
		if c.prefix == "" {
			c.prefix = call.Outputs[i]
		}
		switch {
		case outputs[name] || slices.Contains(f.Inputs, name):
			if c.values[name] == "" {
				return nil
			}
			copies = append(copies, NewNode(opIdentity, []string{c.values[name]}, []string{call.Outputs[i]}))
		default:
			c.values[name], outputs[name] = call.Outputs[i], true
		}
	}
	if len(c.prefix) > maxPrefix {
		return nil
	}
	nodes := make([]*Node, 0, len(f.Nodes)+len(copies))
	for _, n := range f.Nodes {
		nodes = append(nodes, c.node(Clone(n)))
	}
	for _, v := range f.ValueInfo {
		if v == nil || slices.Contains(f.Inputs, v.Name) || slices.Contains(f.Outputs, v.Name) || c.values[v.Name] == "" {
			continue
		}
		v = Clone(v)
		v.Name = c.values[v.Name]
		g.ValueInfo = append(g.ValueInfo, v)
	}
	for _, o := range f.OpsetImports {
		if _, known := in.model.Opset(o.Domain); !known {
			in.model.SetOpset(o.Domain, o.Version)
		}
	}
	nodes = append(nodes, copies...)
	in.made += len(in.calls[f.ID()]) + len(copies)
	return nodes
}

// inlined is one call that becomes nodes.
type inlined struct {
	in     *inliner
	f      *Function
	call   *Node
	prefix string
	values map[string]string // what those of the function are in the graph
}

func (c *inlined) value(name string) string {
	if name == "" {
		return ""
	}
	if _, known := c.values[name]; !known {
		c.values[name] = c.in.names.Unique(c.prefix + "/" + name)
	}
	return c.values[name]
}

func (c *inlined) list(names []string) {
	for i := range names {
		names[i] = c.value(names[i])
	}
}

// node puts n, a copy of one of the function's, into the graph.
func (c *inlined) node(n *Node) *Node {
	if n.Name != "" {
		n.Name = c.in.names.Unique(c.prefix + "/" + n.Name)
	}
	c.list(n.Inputs)
	c.list(n.Outputs)
	n.Attributes = slices.DeleteFunc(n.Attributes, func(a *Attribute) bool { return a == nil })
	var attributes []*Attribute
	for _, a := range n.Attributes {
		if a.RefAttrName != "" {
			given := attribute(c.call.Attributes, a.RefAttrName)
			if given == nil {
				given = attribute(c.f.AttributeProtos, a.RefAttrName)
			}
			if given != nil { // else it is not set
				given = Clone(given)
				given.Name = a.Name
				attributes = append(attributes, given)
			}
			continue
		}
		for _, g := range append([]*Graph{a.G}, a.Graphs...) {
			c.graph(g)
		}
		attributes = append(attributes, a)
	}
	n.Attributes = attributes
	return n
}

func attribute(list []*Attribute, name string) *Attribute {
	for _, a := range list {
		if a != nil && a.Name == name {
			return a
		}
	}
	return nil
}

// graph puts g, which a node of the function holds, into the graph.
func (c *inlined) graph(g *Graph) {
	if g == nil {
		return
	}
	for _, list := range [][]*ValueInfo{g.Inputs, g.Outputs, g.ValueInfo} {
		for _, v := range list {
			if v != nil {
				v.Name = c.value(v.Name)
			}
		}
	}
	for _, t := range g.Initializers {
		if t != nil {
			t.Name = c.value(t.Name)
		}
	}
	for _, t := range g.SparseInitializers {
		if t != nil && t.Values != nil {
			t.Values.Name = c.value(t.Values.Name)
		}
	}
	for _, q := range g.QuantizationAnnotations {
		if q == nil {
			continue
		}
		q.TensorName = c.value(q.TensorName)
		for _, p := range q.QuantParameterTensorNames {
			if p != nil {
				p.Value = c.value(p.Value)
			}
		}
	}
	for _, n := range g.Nodes {
		if n != nil {
			c.node(n)
		}
	}
}
