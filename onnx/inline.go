package onnx

import "slices"

// maxInlined bounds the nodes that Inline makes: functions that call each other many times are small in a file, and nowhere else.
const maxInlined = 1 << 17

// Inline puts the bodies of functions that want asks for in the place of the nodes of graphs that call them, and drops those that nothing calls any
// more. Values and nodes of a body get the name of the call in front of their own. It returns how many calls it replaced. Calls stay as they are
// where a function is of another version of an operator set than the model, calls itself, or is given more than it takes, and once
// a hundred thousand nodes have come of others.
func (m *Model) Inline(want func(*Function) bool) int {
	wanted := map[string]*Function{}
	for _, f := range m.Functions {
		if f != nil && wanted[f.ID()] == nil && m.imports(f) && want(f) {
			wanted[f.ID()] = f
		}
	}
	calls := m.calls()
	for id := range wanted {
		if reaches(calls, id, id) {
			delete(wanted, id)
		}
	}
	if len(wanted) == 0 {
		return 0
	}
	in := inliner{names: NewNames(m), calls: calls}
	replaced := 0
	for again := true; again; {
		again = false
		for _, s := range m.Scopes() {
			if s.Root().Function != nil {
				continue
			}
			var nodes []*Node
			for _, n := range s.Nodes() {
				var body []*Node
				if n != nil && wanted[n.OpID()] != nil {
					body = in.body(wanted[n.OpID()], n, s.Graph)
				}
				if body == nil {
					nodes = append(nodes, n)
					continue
				}
				for _, o := range wanted[n.OpID()].OpsetImports {
					if _, known := m.Opset(o.Domain); !known {
						m.SetOpset(o.Domain, o.Version)
					}
				}
				nodes = append(nodes, body...)
				replaced++
				again = true
			}
			s.SetNodes(nodes)
		}
	}
	if replaced > 0 {
		m.dropUncalled(wanted)
	}
	return replaced
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

// reaches reports whether from calls to, also by way of others.
func reaches(calls map[string][]string, from, to string) bool {
	seen := map[string]bool{}
	for todo := []string{from}; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, callee := range calls[id] {
			if callee == to {
				return true
			}
			if !seen[callee] {
				seen[callee] = true
				todo = append(todo, callee)
			}
		}
	}
	return false
}

// dropUncalled drops those of some functions that no node is a call of, or none but of each other.
func (m *Model) dropUncalled(some map[string]*Function) {
	for dropped := true; dropped; {
		called := map[string]bool{}
		for _, s := range m.Scopes() {
			for _, n := range s.Nodes() {
				if n != nil {
					called[n.OpID()] = true
				}
			}
		}
		before := len(m.Functions)
		m.Functions = slices.DeleteFunc(m.Functions, func(f *Function) bool { return f != nil && some[f.ID()] == f && !called[f.ID()] })
		dropped = len(m.Functions) < before
	}
}

const opIdentity = "Identity"

// inliner makes the nodes of calls.
type inliner struct {
	names *Names
	calls map[string][]string
	made  int
}

// body returns what stands for call in graph g, nil if nothing can.
func (in *inliner) body(f *Function, call *Node, g *Graph) []*Node {
	if len(call.Inputs) > len(f.Inputs) || len(call.Outputs) > len(f.Outputs) || in.made+len(in.calls[f.ID()])+len(f.Outputs) > maxInlined ||
		slices.Contains(f.Nodes, nil) {
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
