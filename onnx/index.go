package onnx

import "strconv"

// Value is a name defined in a scope, with what defines it and who reads it.
type Value struct {
	Name  string
	Scope *Scope

	// What defines it: one of the following, or both of the first two for an
	// input with a default value.
	Input       *ValueInfo // input of the graph; nil for inputs of functions, which have no type
	Initializer *Tensor
	Sparse      *SparseTensor
	Node        *Node // the node with the value as its output number Output
	Output      int

	// Param is set for inputs of a function.
	Param bool

	Uses []Use
}

// Use is one reader of a value: input number Input of Node, or output number
// Input of the graph or function of Scope when Node is nil. Scope is where the
// reader is, which may lie inside the scope of the value.
type Use struct {
	Scope *Scope
	Node  *Node
	Input int
}

// IsConstant reports whether the value is an initializer that no input can
// replace. Up to IR version 3 every initializer is an input as well; those are
// not constant by this rule, though runtimes take them for it.
func (v *Value) IsConstant() bool {
	return (v.Initializer != nil || v.Sparse != nil) && v.Input == nil
}

// Index knows the producer and the readers of every value, by scope. It is a
// picture of the moment: build a new one after an edit.
type Index struct {
	Scopes []*Scope // in the order of [Model.Walk]

	defs    map[*Scope]map[string]*Value
	byGraph map[*Graph]*Scope
	byFunc  map[*Function]*Scope
	missing []Use
}

// NewIndex builds the index of a model. Where a name is defined twice in a scope
// the first definition counts, and a name that is defined in an inner scope
// hides the outer one in the whole inner scope; [Check] reports the former.
func NewIndex(m *Model) *Index {
	x := &Index{
		Scopes:  m.Scopes(),
		defs:    make(map[*Scope]map[string]*Value),
		byGraph: make(map[*Graph]*Scope),
		byFunc:  make(map[*Function]*Scope),
	}
	for _, s := range x.Scopes {
		if s.Graph != nil {
			x.byGraph[s.Graph] = s
		} else {
			x.byFunc[s.Function] = s
		}
		x.defs[s] = definitions(s)
	}
	for _, s := range x.Scopes {
		use := func(n *Node, i int, name string) {
			if name == "" {
				return
			}
			u := Use{s, n, i}
			if v := x.Lookup(s, name); v != nil {
				v.Uses = append(v.Uses, u)
			} else {
				x.missing = append(x.missing, u)
			}
		}
		for _, n := range s.Nodes() {
			if n == nil {
				continue
			}
			for i, name := range n.Inputs {
				use(n, i, name)
			}
		}
		for i, name := range s.outputs() {
			use(nil, i, name)
		}
	}
	return x
}

// definitions collects the names that a scope defines.
func definitions(s *Scope) map[string]*Value {
	d := make(map[string]*Value)
	get := func(name string) *Value {
		v := d[name]
		if v == nil {
			v = &Value{Name: name, Scope: s}
			d[name] = v
		}
		return v
	}
	if s.Graph != nil {
		for _, in := range s.Graph.Inputs {
			if in != nil {
				if v := get(in.Name); v.Input == nil {
					v.Input = in
				}
			}
		}
		for _, t := range s.Graph.Initializers {
			if t != nil {
				if v := get(t.Name); v.Initializer == nil {
					v.Initializer = t
				}
			}
		}
		for _, sp := range s.Graph.SparseInitializers {
			if sp != nil && sp.Values != nil {
				if v := get(sp.Values.Name); v.Sparse == nil {
					v.Sparse = sp
				}
			}
		}
	} else {
		for _, name := range s.Function.Inputs {
			get(name).Param = true
		}
	}
	for _, n := range s.Nodes() {
		if n == nil {
			continue
		}
		for i, name := range n.Outputs {
			if name != "" && d[name] == nil {
				v := get(name)
				v.Node, v.Output = n, i
			}
		}
	}
	return d
}

// outputs returns the names of the outputs of the graph or function.
func (s *Scope) outputs() []string {
	if s.Function != nil {
		return s.Function.Outputs
	}
	var names []string
	for _, o := range s.Graph.Outputs {
		if o == nil {
			names = append(names, "")
		} else {
			names = append(names, o.Name)
		}
	}
	return names
}

// Lookup returns what name means in scope s: the definition there or in the
// nearest scope around it. It is nil when there is none.
func (x *Index) Lookup(s *Scope, name string) *Value {
	for ; s != nil; s = s.Parent {
		if v := x.defs[s][name]; v != nil {
			return v
		}
	}
	return nil
}

// Undefined returns the readers of names that nothing defines.
func (x *Index) Undefined() []Use { return x.missing }

// GraphScope returns the scope of a graph, or nil when it is not in the model.
func (x *Index) GraphScope(g *Graph) *Scope { return x.byGraph[g] }

// FunctionScope returns the scope of the body of f, or nil when it is not in the model.
func (x *Index) FunctionScope(f *Function) *Scope { return x.byFunc[f] }

// Names makes names that nothing in a model uses yet.
type Names struct {
	used map[string]bool
	next map[string]int
}

// NewNames collects all names of values and nodes in every scope of m. One set
// for all scopes keeps a new name from being hidden by, or hiding, any other.
func NewNames(m *Model) *Names {
	u := &Names{used: make(map[string]bool), next: make(map[string]int)}
	for _, s := range m.Scopes() {
		if g := s.Graph; g != nil {
			for _, list := range [][]*ValueInfo{g.Inputs, g.Outputs, g.ValueInfo} {
				for _, v := range list {
					if v != nil {
						u.used[v.Name] = true
					}
				}
			}
			for _, q := range g.QuantizationAnnotations {
				if q == nil {
					continue
				}
				u.used[q.TensorName] = true
				for _, p := range q.QuantParameterTensorNames {
					if p != nil {
						u.used[p.Value] = true
					}
				}
			}
		} else {
			for _, list := range [][]string{s.Function.Inputs, s.Function.Outputs} {
				for _, name := range list {
					u.used[name] = true
				}
			}
			for _, v := range s.Function.ValueInfo {
				if v != nil {
					u.used[v.Name] = true
				}
			}
		}
		for _, n := range s.Nodes() {
			if n == nil {
				continue
			}
			u.used[n.Name] = true
			for _, name := range n.Inputs {
				u.used[name] = true
			}
			for _, name := range n.Outputs {
				u.used[name] = true
			}
		}
	}
	for r := range m.Tensors() {
		u.used[r.Tensor.Name] = true
	}
	return u
}

// Unique returns base if it is free, else base_1, base_2 and so on, and takes it.
func (u *Names) Unique(base string) string {
	name := base
	for i := u.next[base]; name == "" || u.used[name]; {
		i++
		name = base + "_" + strconv.Itoa(i)
		u.next[base] = i
	}
	u.used[name] = true
	return name
}

// Has reports whether the name is taken.
func (u *Names) Has(name string) bool { return u.used[name] }
