package grad

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// rule emits the gradient of a node's inputs from that of its outputs.
type rule func(s *step) error

// step is the differentiation of one node.
type step struct {
	g     *Graph
	n     *onnx.Node
	sweep *sweep
}

// x returns input i, nil when it was left out.
func (s *step) x(i int) *Value {
	if i >= len(s.n.Inputs) || s.n.Inputs[i] == "" {
		return nil
	}
	return s.sweep.find(s.n.Inputs[i])
}

// y returns output i, nil when it was left out.
func (s *step) y(i int) *Value {
	if i >= len(s.n.Outputs) || s.n.Outputs[i] == "" {
		return nil
	}
	return s.sweep.find(s.n.Outputs[i])
}

// dy returns the gradient of output i, nil when the loss does not depend on it.
func (s *step) dy(i int) *Value {
	if i >= len(s.n.Outputs) {
		return nil
	}
	return s.sweep.gradient(s.n.Outputs[i])
}

// wants reports whether the gradient of input i is needed.
func (s *step) wants(i int) bool {
	return i < len(s.n.Inputs) && s.n.Inputs[i] != "" && s.sweep.active[s.n.Inputs[i]]
}

// give adds to the gradient of input i. What was broadcast is summed first.
func (s *step) give(i int, d *Value) {
	if !s.wants(i) {
		return
	}
	x := s.g.values[s.n.Inputs[i]]
	d = s.g.cast(s.g.sumTo(d, x.Shape), x.Type)
	s.sweep.parts[x.Name] = append(s.sweep.parts[x.Name], d)
}

// ints returns the integers of input i, which must follow from shapes.
func (s *step) ints(i int) ([]int64, error) {
	v, ok := s.g.ints[s.n.Inputs[i]]
	if !ok {
		return nil, fmt.Errorf("its input %d depends on data, and its gradient is known for constants only", i)
	}
	return v, nil
}

// sweep is one pass from the loss to the inputs.
type sweep struct {
	g      *Graph
	active map[string]bool     // values whose gradient is needed
	parts  map[string][]*Value // contributions to the gradient of each value
	clones map[string]*Value   // values computed again for the backward pass
}

// find returns a value as the backward pass should read it.
func (w *sweep) find(name string) *Value {
	if v := w.clones[name]; v != nil {
		return v
	}
	return w.g.values[name]
}

// gradient sums the contributions to the gradient of a value; nil when there are none.
func (w *sweep) gradient(name string) *Value {
	parts := w.parts[name]
	if len(parts) == 0 {
		return nil
	}
	sum := parts[0]
	for _, p := range parts[1:] {
		sum = w.g.add(sum, p)
	}
	w.parts[name] = []*Value{sum}
	return sum
}

// Backward appends the gradients of a scalar loss with respect to the named values, and returns them in that order; zeros
// for those that the loss does not depend on. segments, if any, are the nodes whose results are to be computed again when the
// backward pass needs them instead of being kept: see [Graph.Segments].
func (g *Graph) Backward(loss *Value, wrt []string, segments []Segment) ([]*Value, error) {
	if loss.Count() != 1 {
		return nil, fmt.Errorf("grad: the loss %q has shape %v, want one number", loss.Name, loss.Shape)
	}
	w := &sweep{g: g, active: g.active(loss.Name, wrt), parts: map[string][]*Value{}, clones: map[string]*Value{}}
	w.parts[loss.Name] = []*Value{g.number(loss.Type, 1, loss.Shape...)}
	nodes := slices.Clone(g.nodes)
	next := len(segments) - 1
	for i := len(nodes) - 1; i >= 0; i-- {
		if next >= 0 && i == segments[next].last {
			w.recompute(nodes, segments[next])
			next--
		}
		n := nodes[i]
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return w.active[o] && len(w.parts[o]) > 0 }) {
			continue
		}
		r := rules[opName(n)]
		if r == nil {
			return nil, &NoRuleError{Nodes: []string{describe(n)}}
		}
		for i, out := range n.Outputs {
			if i > 0 && opName(n) != "Split" && len(w.parts[out]) > 0 {
				return nil, fmt.Errorf("grad: %s: its output %q is used, and only that of the first is known", describe(n), out)
			}
		}
		if err := r(&step{g: g, n: n, sweep: w}); err != nil {
			return nil, fmt.Errorf("grad: %s: %w", describe(n), err)
		}
	}
	var out []*Value
	for _, name := range wrt {
		d := w.gradient(name)
		if d == nil {
			v := g.values[name]
			d = g.zeros(v.Type, v.Shape)
		}
		out = append(out, d)
	}
	return out, nil
}

// active finds the values between the inputs of interest and the loss.
func (g *Graph) active(loss string, wrt []string) map[string]bool {
	forward := map[string]bool{}
	for _, name := range wrt {
		forward[name] = true
	}
	for _, n := range g.nodes {
		if constant[opName(n)] || !slices.ContainsFunc(n.Inputs, func(in string) bool { return forward[in] }) {
			continue
		}
		for _, out := range n.Outputs {
			if v := g.values[out]; v != nil && v.IsFloat() {
				forward[out] = true
			}
		}
	}
	active := map[string]bool{}
	need := map[string]bool{loss: true}
	for _, n := range slices.Backward(g.nodes) {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return need[o] }) {
			continue
		}
		for _, in := range reads(n) {
			need[in] = true
		}
	}
	for name := range forward {
		if need[name] {
			active[name] = true
		}
	}
	return active
}

// NoRuleError says which operators between the trained values and the outputs cannot be differentiated.
type NoRuleError struct{ Nodes []string }

func (e *NoRuleError) Error() string {
	shown := e.Nodes
	more := ""
	if len(shown) > 5 {
		more = fmt.Sprintf(" and %d more", len(shown)-5)
		shown = shown[:5]
	}
	return fmt.Sprintf("no gradient is known for %s%s, which lies between a trained weight and the output; leave the weights before it out",
		strings.Join(shown, ", "), more)
}

// Check reports, before any work, the operators that stand between the named values and the outputs of m without a rule, as
// a *NoRuleError.
func Check(m *onnx.Model, wrt []string) error {
	reached := map[string]bool{}
	for _, name := range wrt {
		reached[name] = true
	}
	var bad []*onnx.Node
	for _, n := range m.Graph.Nodes {
		op := opName(n)
		if constant[op] || op == "Cast" && !onnx.DataType(n.Int("to", 0)).IsFloat() ||
			!slices.ContainsFunc(reads(n), func(in string) bool { return reached[in] }) {
			continue
		}
		for _, out := range n.Outputs {
			reached[out] = true
		}
		if rules[op] == nil && lowerings[op] == nil {
			bad = append(bad, n)
		}
	}
	need := map[string]bool{}
	for _, out := range m.Graph.Outputs {
		need[out.Name] = true
	}
	e := &NoRuleError{}
	for _, n := range slices.Backward(m.Graph.Nodes) {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return need[o] }) {
			continue
		}
		for _, in := range reads(n) {
			need[in] = true
		}
		if slices.Contains(bad, n) {
			e.Nodes = append(e.Nodes, describe(n))
		}
	}
	if len(e.Nodes) > 0 {
		slices.Reverse(e.Nodes)
		return e
	}
	return nil
}

// opName is the operator with its domain, unless that is the standard one.
func opName(n *onnx.Node) string {
	if standard(n.Domain) {
		return n.OpType
	}
	return n.Domain + "::" + n.OpType
}

func describe(n *onnx.Node) string {
	if n.Name == "" {
		return fmt.Sprintf("%s (of %q)", opName(n), n.Outputs[0])
	}
	return fmt.Sprintf("%s %q", opName(n), n.Name)
}
