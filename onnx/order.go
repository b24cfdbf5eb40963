package onnx

import (
	"fmt"
	"strings"
)

// CheckOrder verifies that, in every graph and function body, each node reads
// only what is defined before it, there or in a scope around it. The error is
// the first [*Problem]; it wraps [ErrUndefined], [ErrOrder] or [ErrCycle] and
// names the node and the value. Training graphs are not looked at.
func (m *Model) CheckOrder() error {
	for _, p := range orderProblems(m) {
		return p
	}
	return nil
}

// orderProblems finds everything that is read before it is defined.
func orderProblems(m *Model) []*Problem {
	c := &orderCheck{scopes: make(map[*Scope]*frame)}
	// Walk visits a scope before those inside it, so each finds the frame of its
	// parent ready.
	for _, s := range m.Scopes() {
		if s.Parent == nil && s.Graph != nil && s.Graph != m.Graph {
			continue // training
		}
		if s.Parent != nil && c.scopes[s.Parent] == nil {
			continue
		}
		c.scope(s)
	}
	return c.problems
}

// frame records where in the list of nodes each name of a scope is defined.
type frame struct {
	at   map[string]int // -1 for inputs and initializers
	node map[*Node]int
}

type orderCheck struct {
	scopes   map[*Scope]*frame
	problems []*Problem
}

func newFrame(s *Scope) *frame {
	f := &frame{at: make(map[string]int), node: make(map[*Node]int)}
	for name, v := range definitions(s) {
		if v.Node == nil {
			f.at[name] = -1
		}
	}
	for i, n := range s.Nodes() {
		if n == nil {
			continue
		}
		f.node[n] = i
		for _, name := range n.Outputs {
			if _, dup := f.at[name]; name != "" && !dup {
				f.at[name] = i
			}
		}
	}
	return f
}

func (c *orderCheck) scope(s *Scope) {
	f := newFrame(s)
	c.scopes[s] = f
	report := func(err error, n *Node, i int, name string) {
		where := s.Path + ": output"
		if n != nil {
			where = s.Path + ": node " + nodeLabel(n, i)
		}
		c.problems = append(c.problems, &Problem{where, fmt.Errorf("%w: %q", err, name)})
	}
	unsorted := -1 // the first such problem of the scope
	for i, n := range s.Nodes() {
		if n == nil {
			continue
		}
		for _, name := range n.Inputs {
			if name == "" {
				continue
			}
			switch c.find(s, i, name) {
			case nowhere:
				report(ErrUndefined, n, i, name)
			case later:
				if unsorted < 0 {
					unsorted = len(c.problems)
					report(ErrOrder, n, i, name)
				}
			}
		}
	}
	for _, name := range s.outputs() {
		if name != "" && c.find(s, len(s.Nodes()), name) != before {
			report(ErrUndefined, nil, 0, name)
		}
	}
	if unsorted >= 0 {
		// Say whether sorting would help.
		if _, err := sorted(s); err != nil {
			c.problems[unsorted] = &Problem{s.Path, err}
		}
	}
}

const (
	nowhere = iota
	before
	later
)

// find tells whether name is defined before node i of scope s.
func (c *orderCheck) find(s *Scope, i int, name string) int {
	for {
		f := c.scopes[s]
		if at, ok := f.at[name]; ok {
			if at < i {
				return before
			}
			return later
		}
		if s.Parent == nil {
			return nowhere
		}
		if p := c.scopes[s.Parent]; s.Node != nil {
			i = p.node[s.Node]
		} else {
			i = 0
		}
		s = s.Parent
	}
}

// Sort puts the nodes of the scope into an order in which each comes after what
// it, or a subgraph in it, reads. Nodes that are in order already keep it. On a
// cycle it changes nothing and returns an error that wraps [ErrCycle] and names
// the nodes in it.
func (s *Scope) Sort() error {
	order, err := sorted(s)
	if err != nil {
		return &Problem{s.Path, err}
	}
	s.SetNodes(order)
	return nil
}

// sorted returns the nodes of s, each after what it needs.
func sorted(s *Scope) ([]*Node, error) {
	nodes := s.Nodes()
	f := newFrame(s)
	needs := make([][]int, len(nodes))
	for i, n := range nodes {
		if n == nil {
			continue
		}
		for _, name := range reads(n, 0) {
			if at, ok := f.at[name]; ok && at >= 0 {
				needs[i] = append(needs[i], at)
			}
		}
	}
	out := make([]*Node, 0, len(nodes))
	state := make([]byte, len(nodes)) // 0 new, 1 on the stack, 2 done
	next := make([]int, len(nodes))   // which need is looked at next
	var stack []int                   // explicit: chains of nodes are long
	for root := range nodes {
		if state[root] != 0 {
			continue
		}
		state[root] = 1
		stack = append(stack[:0], root)
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			if next[i] == len(needs[i]) {
				state[i] = 2
				out = append(out, nodes[i])
				stack = stack[:len(stack)-1]
				continue
			}
			j := needs[i][next[i]]
			next[i]++
			switch state[j] {
			case 0:
				state[j] = 1
				stack = append(stack, j)
			case 1:
				return nil, cycleError(nodes, stack, j)
			}
		}
	}
	return out, nil
}

func cycleError(nodes []*Node, stack []int, start int) error {
	var names []string
	for k := len(stack) - 1; k >= 0; k-- {
		names = append(names, nodeLabel(nodes[stack[k]], stack[k]))
		if stack[k] == start {
			break
		}
	}
	// The stack runs from reader to source; tell it in the direction of the data.
	names = append(names, names[0])
	if len(names) > 12 {
		names = append(append(names[:11:11], "..."), names[len(names)-1])
	}
	return fmt.Errorf("%w: %s", ErrCycle, strings.Join(names, " -> "))
}

// reads returns the names that a node takes from its scope and those around it:
// its inputs, and what its subgraphs do not define themselves.
func reads(n *Node, depth int) []string {
	var names []string
	for _, name := range n.Inputs {
		if name != "" {
			names = append(names, name)
		}
	}
	if depth > maxNesting/3 {
		return names
	}
	for _, a := range n.Attributes {
		if a == nil {
			continue
		}
		if a.G != nil {
			names = append(names, freeNames(a.G, depth+1)...)
		}
		for _, g := range a.Graphs {
			if g != nil {
				names = append(names, freeNames(g, depth+1)...)
			}
		}
	}
	return names
}

// freeNames returns the names that g takes from the scopes around it.
func freeNames(g *Graph, depth int) []string {
	s := &Scope{Graph: g}
	own := definitions(s)
	seen := make(map[string]bool)
	var free []string
	add := func(name string) {
		if name != "" && own[name] == nil && !seen[name] {
			seen[name] = true
			free = append(free, name)
		}
	}
	for _, n := range g.Nodes {
		if n == nil {
			continue
		}
		for _, name := range reads(n, depth) {
			add(name)
		}
	}
	for _, name := range s.outputs() {
		add(name)
	}
	return free
}

// Captures returns the names that the subgraphs of n take from the scopes around
// it, in the order of first use. They are inputs of the node in all but form.
func (n *Node) Captures() []string {
	var names []string
	seen := make(map[string]bool)
	for _, name := range reads(&Node{Attributes: n.Attributes}, 0) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}
