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

// prune removes the given values if nothing reads them, and then what only they were made from, as long as that is
// constant. It returns the names of the removed initializers.
func prune(m *onnx.Model, refs []valueRef) []string {
	vs := newValues(m)
	p := &pruner{vs: vs, nodes: map[*onnx.Node]bool{}, gone: map[valueRef]bool{}}
	for _, ref := range refs {
		if v := vs.local(vs.index.GraphScope(ref.graph), ref.name); v != nil {
			p.drop(v)
		} else {
			p.gone[ref] = true // a value between two nodes that became one
		}
	}
	for _, s := range vs.index.Scopes {
		if s.Graph != nil {
			p.sweep(s.Graph)
		}
	}
	slices.Sort(p.tensors)
	return p.tensors
}

// pruner marks what is of no use.
type pruner struct {
	vs      *values
	nodes   map[*onnx.Node]bool
	gone    map[valueRef]bool
	tensors []string
}

// drop marks v, unless something still reads it.
func (p *pruner) drop(v *onnx.Value) {
	ref := valueRef{v.Scope.Graph, v.Name}
	if p.gone[ref] || p.used(v) {
		return
	}
	if v.Initializer != nil {
		p.gone[ref] = true
		p.tensors = append(p.tensors, v.Name)
		return
	}
	n := v.Node
	if n == nil || !p.vs.folds(n) && !standard(n, "Constant") {
		return
	}
	for _, out := range n.Outputs { // a Split has several
		if o := p.vs.local(v.Scope, out); o != nil && p.used(o) {
			return
		}
	}
	p.nodes[n] = true
	for _, out := range n.Outputs {
		p.gone[valueRef{v.Scope.Graph, out}] = true
	}
	for i := range n.Inputs {
		if in := p.vs.input(n, i); in != nil {
			p.drop(in)
		}
	}
}

func (p *pruner) used(v *onnx.Value) bool {
	return p.vs.isOutput(v) || slices.ContainsFunc(v.Uses, func(u onnx.Use) bool { return !p.nodes[u.Node] })
}

// sweep removes what is marked from one graph, with everything that speaks of it.
func (p *pruner) sweep(g *onnx.Graph) {
	gone := func(name string) bool { return p.gone[valueRef{g, name}] }
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n *onnx.Node) bool { return p.nodes[n] })
	g.Initializers = slices.DeleteFunc(g.Initializers, func(t *onnx.Tensor) bool { return gone(t.Name) })
	g.Inputs = slices.DeleteFunc(g.Inputs, func(in *onnx.ValueInfo) bool { return gone(in.Name) })
	g.ValueInfo = slices.DeleteFunc(g.ValueInfo, func(v *onnx.ValueInfo) bool { return gone(v.Name) })
	g.QuantizationAnnotations = slices.DeleteFunc(g.QuantizationAnnotations, func(a *onnx.TensorAnnotation) bool {
		return gone(a.TensorName)
	})
}
