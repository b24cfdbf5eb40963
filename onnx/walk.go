package onnx

import (
	"fmt"
	"iter"
)

// Scope is one list of nodes and the names defined in it: the main graph, a
// graph held by an attribute, a training graph or the body of a function. A
// graph in an attribute sees the names of its Parent scopes as well.
type Scope struct {
	Parent    *Scope     // nil for the main graph, training graphs and functions
	Graph     *Graph     // nil for the body of a function
	Function  *Function  // nil for a graph
	Node      *Node      // the node whose attribute holds the graph
	Attribute *Attribute // the attribute that holds the graph
	Path      string     // for people, such as `graph/loop1.body`
}

// Nodes returns the nodes of the scope.
func (s *Scope) Nodes() []*Node { return *s.nodes() }

// SetNodes replaces the nodes of the scope.
func (s *Scope) SetNodes(nodes []*Node) { *s.nodes() = nodes }

func (s *Scope) nodes() *[]*Node {
	if s.Function != nil {
		return &s.Function.Nodes
	}
	return &s.Graph.Nodes
}

// Root is the scope that s is in and that is in no other.
func (s *Scope) Root() *Scope {
	for s.Parent != nil {
		s = s.Parent
	}
	return s
}

// Walk calls f for every scope of the model, each before the scopes inside it:
// the main graph first, then training graphs, then functions. It stops at the
// first error and returns it. It follows what f changes inside the scope at
// hand. A graph that contains itself is an error wrapping [ErrTooDeep].
func (m *Model) Walk(f func(*Scope) error) error {
	if m.Graph != nil {
		if err := walk(&Scope{Graph: m.Graph, Path: "graph"}, 0, f); err != nil {
			return err
		}
	}
	for i, t := range m.TrainingInfo {
		if t == nil {
			continue
		}
		if t.Initialization != nil {
			if err := walk(&Scope{Graph: t.Initialization, Path: fmt.Sprintf("training_info[%d].initialization", i)}, 0, f); err != nil {
				return err
			}
		}
		if t.Algorithm != nil {
			if err := walk(&Scope{Graph: t.Algorithm, Path: fmt.Sprintf("training_info[%d].algorithm", i)}, 0, f); err != nil {
				return err
			}
		}
	}
	for _, fn := range m.Functions {
		if fn == nil {
			continue
		}
		if err := walk(&Scope{Function: fn, Path: "function " + fn.ID()}, 0, f); err != nil {
			return err
		}
	}
	return nil
}

func walk(s *Scope, depth int, f func(*Scope) error) error {
	if depth > maxNesting/3 {
		return &FormatError{Offset: -1, Where: clip(s.Path), Err: fmt.Errorf("%w: more than %d subgraphs inside each other", ErrTooDeep, maxNesting/3)}
	}
	if err := f(s); err != nil {
		return err
	}
	inner := func(a *Attribute, n *Node, label string) error {
		if a == nil {
			return nil
		}
		if a.G != nil {
			sub := &Scope{Parent: s, Graph: a.G, Node: n, Attribute: a, Path: s.Path + "/" + label + "." + a.Name}
			if err := walk(sub, depth+1, f); err != nil {
				return err
			}
		}
		for i, g := range a.Graphs {
			if g == nil {
				continue
			}
			sub := &Scope{Parent: s, Graph: g, Node: n, Attribute: a, Path: fmt.Sprintf("%s/%s.%s[%d]", s.Path, label, a.Name, i)}
			if err := walk(sub, depth+1, f); err != nil {
				return err
			}
		}
		return nil
	}
	for i, n := range s.Nodes() {
		if n == nil {
			continue
		}
		for _, a := range n.Attributes {
			if a != nil && (a.G != nil || len(a.Graphs) > 0) {
				if err := inner(a, n, nodeLabel(n, i)); err != nil {
					return err
				}
			}
		}
	}
	if s.Function != nil {
		for _, a := range s.Function.AttributeProtos {
			if err := inner(a, nil, "attribute_proto"); err != nil {
				return err
			}
		}
	}
	return nil
}

// nodeLabel names a node for people: its name, or its place and operator.
func nodeLabel(n *Node, i int) string {
	if n.Name != "" {
		return n.Name
	}
	return fmt.Sprintf("node[%d]:%s", i, n.OpType)
}

// Scopes returns all scopes in the order of [Model.Walk]. A graph that contains
// itself is cut off; [Check] reports it.
func (m *Model) Scopes() []*Scope {
	var all []*Scope
	_ = m.Walk(func(s *Scope) error { all = append(all, s); return nil })
	return all
}

// TensorRole says what holds a tensor.
type TensorRole int

// The places of tensors in a model.
const (
	RoleInitializer TensorRole = iota
	RoleAttribute
	RoleSparseValues  // of a sparse initializer or attribute
	RoleSparseIndices // of a sparse initializer or attribute
)

// TensorRef is a tensor and the place that holds it.
type TensorRef struct {
	Tensor    *Tensor
	Role      TensorRole
	Scope     *Scope
	Node      *Node      // of an attribute, unless it is the default of a function attribute
	Attribute *Attribute // nil for initializers
}

// Tensors iterates over every tensor of the model: initializers and attributes
// of all scopes, and the parts of sparse tensors.
func (m *Model) Tensors() iter.Seq[TensorRef] {
	return func(yield func(TensorRef) bool) {
		for _, s := range m.Scopes() {
			if !s.tensors(yield) {
				return
			}
		}
	}
}

func (s *Scope) tensors(yield func(TensorRef) bool) bool {
	sparse := func(sp *SparseTensor, n *Node, a *Attribute) bool {
		if sp == nil {
			return true
		}
		return (sp.Values == nil || yield(TensorRef{sp.Values, RoleSparseValues, s, n, a})) &&
			(sp.Indices == nil || yield(TensorRef{sp.Indices, RoleSparseIndices, s, n, a}))
	}
	attribute := func(a *Attribute, n *Node) bool {
		if a == nil {
			return true
		}
		if a.T != nil && !yield(TensorRef{a.T, RoleAttribute, s, n, a}) {
			return false
		}
		for _, t := range a.Tensors {
			if t != nil && !yield(TensorRef{t, RoleAttribute, s, n, a}) {
				return false
			}
		}
		if !sparse(a.SparseTensor, n, a) {
			return false
		}
		for _, sp := range a.SparseTensors {
			if !sparse(sp, n, a) {
				return false
			}
		}
		return true
	}
	if s.Graph != nil {
		for _, t := range s.Graph.Initializers {
			if t != nil && !yield(TensorRef{t, RoleInitializer, s, nil, nil}) {
				return false
			}
		}
		for _, sp := range s.Graph.SparseInitializers {
			if !sparse(sp, nil, nil) {
				return false
			}
		}
	}
	for _, n := range s.Nodes() {
		if n == nil {
			continue
		}
		for _, a := range n.Attributes {
			if !attribute(a, n) {
				return false
			}
		}
	}
	if s.Function != nil {
		for _, a := range s.Function.AttributeProtos {
			if !attribute(a, nil) {
				return false
			}
		}
	}
	return true
}

// Where names the place of the tensor for people.
func (r TensorRef) Where() string {
	switch {
	case r.Attribute == nil:
		return fmt.Sprintf("%s: initializer %q", r.Scope.Path, r.Tensor.Name)
	case r.Node == nil:
		return fmt.Sprintf("%s: attribute %q", r.Scope.Path, r.Attribute.Name)
	}
	return fmt.Sprintf("%s: attribute %q of node %q (%s)", r.Scope.Path, r.Attribute.Name, r.Node.Name, r.Node.OpType)
}

// ID returns domain::name, with :overload where there is one: what a node must
// say to call the function.
func (f *Function) ID() string { return opID(f.Domain, f.Name, f.Overload) }

// OpID returns the operator the node calls as domain::name[:overload]. The
// standard domain is written "" whichever way the node spells it.
func (n *Node) OpID() string { return opID(n.Domain, n.OpType, n.Overload) }

func opID(domain, name, overload string) string {
	id := normalDomain(domain) + "::" + name
	if overload != "" {
		id += ":" + overload
	}
	return id
}

// normalDomain maps the long name of the standard domain to the short one.
func normalDomain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}

// FindFunction returns the model-local function that the node calls, or nil.
func (m *Model) FindFunction(n *Node) *Function {
	id := n.OpID()
	for _, f := range m.Functions {
		if f != nil && f.ID() == id {
			return f
		}
	}
	return nil
}
