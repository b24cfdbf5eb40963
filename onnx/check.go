package onnx

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kinds of problems, to be told apart with errors.Is.
var (
	// ErrUndefined: a name is read that nothing defines.
	ErrUndefined = errors.New("reads a value that nothing defines")
	// ErrOrder: a name is read before it is defined; [Scope.Sort] helps.
	ErrOrder = errors.New("reads a value that is defined later")
	// ErrCycle: nodes, or functions, need each other.
	ErrCycle = errors.New("cycle")
	// ErrDuplicate: a name is defined twice in one scope.
	ErrDuplicate = errors.New("defined twice")
	// ErrIncomplete: something that must be there is not, or contradicts itself.
	ErrIncomplete = errors.New("incomplete or contradictory")
)

// Problem is something that keeps a model from being well formed.
type Problem struct {
	Where string // the scope and the thing in it
	Err   error
}

func (p *Problem) Error() string { return p.Where + ": " + p.Err.Error() }

// Unwrap returns the kind of the problem.
func (p *Problem) Unwrap() error { return p.Err }

// Check returns what keeps m from being a well-formed model: missing parts,
// names defined twice, never or too late, cycles, operator sets that are not
// imported, tensors whose data do not have their size. It does not know the
// operators, and reads no weights. A model without problems gives nil.
func Check(m *Model) []*Problem {
	c := &checker{m: m}
	c.model()
	if err := m.Walk(func(s *Scope) error { c.scope(s); return nil }); err != nil {
		c.add("model", err)
		return c.problems
	}
	c.functions()
	for r := range m.Tensors() {
		c.tensor(r)
	}
	return append(c.problems, orderProblems(m)...)
}

type checker struct {
	m        *Model
	problems []*Problem
}

func (c *checker) add(where string, err error) {
	c.problems = append(c.problems, &Problem{where, err})
}

func (c *checker) model() {
	m := c.m
	if m.IRVersion < 1 {
		c.add("model", fmt.Errorf("%w: no IR version", ErrIncomplete))
	}
	if m.Graph == nil {
		c.add("model", fmt.Errorf("%w: no graph", ErrIncomplete))
	}
	if m.IRVersion >= 3 && len(m.OpsetImports) == 0 {
		c.add("model", fmt.Errorf("%w: no operator set is imported", ErrIncomplete))
	}
	if len(m.Functions) > 0 && m.IRVersion < 8 {
		c.add("model", fmt.Errorf("%w: it has functions, which need IR version 8, and says %d", ErrIncomplete, m.IRVersion))
	}
	c.imports("model", m.OpsetImports)
}

func (c *checker) imports(where string, list []*OpsetImport) {
	seen := make(map[string]int64)
	for _, o := range list {
		if o == nil {
			continue
		}
		d := normalDomain(o.Domain)
		if v, dup := seen[d]; dup && v != o.Version {
			c.add(where, fmt.Errorf("%w: operator set %q is imported as version %d and as %d", ErrDuplicate, d, v, o.Version))
		}
		seen[d] = o.Version
	}
}

func (c *checker) scope(s *Scope) {
	defined := make(map[string]string)
	define := func(name, what string) {
		if name == "" {
			return
		}
		if old, dup := defined[name]; dup {
			c.add(s.Path, fmt.Errorf("%w: %q, by %s and by %s", ErrDuplicate, name, old, what))
			return
		}
		defined[name] = what
	}
	imports := c.m.OpsetImports
	if g := s.Graph; g != nil {
		if s.Parent == nil && g == c.m.Graph && len(g.Outputs) == 0 {
			c.add(s.Path, fmt.Errorf("%w: no outputs", ErrIncomplete))
		}
		for i, v := range g.Inputs {
			if c.nonNil(s, v == nil, "input", i) {
				define(v.Name, "an input")
				c.typ(s, v)
			}
		}
		for i, v := range g.Outputs {
			if c.nonNil(s, v == nil, "output", i) {
				c.typ(s, v)
			}
		}
		// An initializer may have the name of an input, whose default it is.
		inits := make(map[string]bool)
		initializer := func(name string) {
			if inits[name] {
				c.add(s.Path, fmt.Errorf("%w: %q, by two initializers", ErrDuplicate, name))
			}
			inits[name] = true
			if defined[name] == "" {
				define(name, "an initializer")
			}
		}
		for i, t := range g.Initializers {
			if c.nonNil(s, t == nil, "initializer", i) {
				initializer(t.Name)
			}
		}
		for i, sp := range g.SparseInitializers {
			if c.nonNil(s, sp == nil || sp.Values == nil || sp.Indices == nil, "sparse initializer", i) {
				initializer(sp.Values.Name)
			}
		}
	} else {
		imports = s.Function.OpsetImports
		for _, name := range s.Function.Inputs {
			define(name, "an input")
		}
	}
	for p := s; p != nil; p = p.Parent {
		if p.Function != nil {
			imports = p.Function.OpsetImports
		}
	}
	for i, n := range s.Nodes() {
		if !c.nonNil(s, n == nil, "node", i) {
			continue
		}
		for _, name := range n.Outputs {
			define(name, "node "+nodeLabel(n, i))
		}
		c.node(s, n, i, imports)
	}
}

func (c *checker) nonNil(s *Scope, missing bool, what string, i int) bool {
	if missing {
		c.add(s.Path, fmt.Errorf("%w: %s %d is missing or has no data", ErrIncomplete, what, i))
	}
	return !missing
}

func (c *checker) typ(s *Scope, v *ValueInfo) {
	t := v.Type
	if t == nil {
		return
	}
	n := 0
	for _, set := range []bool{t.Tensor != nil, t.Sequence != nil, t.Map != nil, t.Opaque != nil, t.Sparse != nil, t.Optional != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		c.add(s.Path, fmt.Errorf("%w: the type of %q is several types at once", ErrIncomplete, v.Name))
	}
}

func (c *checker) node(s *Scope, n *Node, i int, imports []*OpsetImport) {
	where := s.Path + ": node " + nodeLabel(n, i)
	if n.OpType == "" {
		c.add(where, fmt.Errorf("%w: it names no operator", ErrIncomplete))
	}
	if _, ok := opset(imports, n.Domain); !ok && c.m.IRVersion >= 3 {
		c.add(where, fmt.Errorf("%w: operator set %q of %s is not imported", ErrIncomplete, n.Domain, n.OpType))
	}
	seen := make(map[string]bool)
	for j, a := range n.Attributes {
		if !c.nonNil(s, a == nil, "attribute", j) {
			continue
		}
		if seen[a.Name] {
			c.add(where, fmt.Errorf("%w: attribute %q", ErrDuplicate, a.Name))
		}
		seen[a.Name] = true
		if a.RefAttrName != "" && !inFunction(s) {
			c.add(where, fmt.Errorf("%w: attribute %q refers to attribute %q of a function, but is in none", ErrIncomplete, a.Name, a.RefAttrName))
		}
		if a.RefAttrName == "" && (a.Type == AttrTensor && a.T == nil || a.Type == AttrGraph && a.G == nil) {
			c.add(where, fmt.Errorf("%w: attribute %q has no value", ErrIncomplete, a.Name))
		}
	}
}

func inFunction(s *Scope) bool {
	for ; s != nil; s = s.Parent {
		if s.Function != nil {
			return true
		}
	}
	return false
}

// functions checks that each function is there once and none calls itself.
func (c *checker) functions() {
	byID := make(map[string]*Function)
	for _, f := range c.m.Functions {
		if f == nil {
			c.add("model", fmt.Errorf("%w: a function is missing", ErrIncomplete))
			continue
		}
		if byID[f.ID()] != nil {
			c.add("function "+f.ID(), ErrDuplicate)
			continue
		}
		byID[f.ID()] = f
		c.imports("function "+f.ID(), f.OpsetImports)
	}
	calls := make(map[string][]string)
	_ = c.m.Walk(func(s *Scope) error {
		root := s.Root()
		if root.Function == nil {
			return nil
		}
		for _, n := range s.Nodes() {
			if n != nil && byID[n.OpID()] != nil {
				calls[root.Function.ID()] = append(calls[root.Function.ID()], n.OpID())
			}
		}
		return nil
	})
	state := make(map[string]int)
	var path []string
	var visit func(id string)
	visit = func(id string) {
		switch state[id] {
		case 1:
			at := slices.Index(path, id)
			c.add("function "+id, fmt.Errorf("%w: it calls itself: %s", ErrCycle, strings.Join(append(slices.Clone(path[at:]), id), " -> ")))
			return
		case 2:
			return
		}
		state[id] = 1
		path = append(path, id)
		for _, callee := range calls[id] {
			visit(callee)
		}
		path = path[:len(path)-1]
		state[id] = 2
	}
	for _, f := range c.m.Functions {
		if f != nil {
			visit(f.ID())
		}
	}
}

func (c *checker) tensor(r TensorRef) {
	t := r.Tensor
	if r.Attribute == nil && r.Role == RoleInitializer && t.Name == "" {
		c.add(r.Scope.Path, fmt.Errorf("%w: an initializer has no name", ErrIncomplete))
	}
	if p := r.Check(); p != nil {
		c.problems = append(c.problems, p)
	}
}

// Check returns what keeps the data of the tensor from being read, as [Tensor.Validate] does; nil for nothing.
func (r TensorRef) Check() *Problem {
	err := r.Tensor.Validate()
	if err == nil {
		return nil
	}
	var fe *FormatError
	if errors.As(err, &fe) {
		err = fe.Err // which tensor it is stands in front
	}
	return &Problem{r.Where(), err}
}
