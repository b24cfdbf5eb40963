package grad

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// Value is a tensor in a [Graph]: its name, element type and fixed shape.
type Value struct {
	Name  string
	Type  onnx.DataType
	Shape []int64
}

// Count is the number of elements.
func (v *Value) Count() int64 { return product(v.Shape) }

func (v *Value) rank() int { return len(v.Shape) }

// IsFloat reports whether the elements are floating-point numbers.
func (v *Value) IsFloat() bool {
	return v.Type == onnx.Float || v.Type == onnx.Double || v.Type == onnx.Float16 || v.Type == onnx.BFloat16
}

// Graph is a model for one shape of its inputs, to which a loss and its gradient can be added. Make one with [Trace].
type Graph struct {
	source  *onnx.Model
	opset   int64
	nodes   []*onnx.Node
	values  map[string]*Value
	inputs  []string                // of the model, and those added
	stored  map[string]*onnx.Tensor // initializers
	ints    map[string][]int64      // values of integer tensors that depend on shapes alone
	names   *onnx.Names
	cached  map[string]*Value // constants made, by content
	outputs []string
}

// Clone returns a copy to which more can be added without changing g.
func (g *Graph) Clone() *Graph {
	c := *g
	c.nodes, c.inputs, c.outputs = slices.Clone(g.nodes), slices.Clone(g.inputs), slices.Clone(g.outputs)
	c.values, c.stored, c.ints, c.cached = maps.Clone(g.values), maps.Clone(g.stored), maps.Clone(g.ints), maps.Clone(g.cached)
	return &c
}

// Peak is [Graph.PeakOf] the nodes behind the given outputs.
func (g *Graph) Peak(outputs ...*Value) int64 { return g.PeakOf(g.Model(outputs...)) }

// PeakOf is the number of bytes of the values that are alive together at most while the nodes of m, which was made of g, run in
// their order, its outputs to the end. Inputs, initializers with their casts, which are done while loading, and values that g does not
// know do not count. A runtime may order the nodes otherwise, or work in place.
func (g *Graph) PeakOf(m *onnx.Model) int64 {
	nodes := m.Graph.Nodes
	stored := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		stored[t.Name] = true
	}
	last := map[string]int{}
	for i, n := range nodes {
		for _, in := range reads(n) {
			last[in] = i
		}
	}
	for _, v := range m.Graph.Outputs {
		last[v.Name] = len(nodes)
	}
	ends := make([]int64, len(nodes)+1) // bytes that end with each node
	var alive, peak int64
	for i, n := range nodes {
		cast := n.OpType == "Cast" && stored[n.Inputs[0]]
		for _, out := range n.Outputs {
			v := g.values[out]
			if v == nil || cast {
				continue
			}
			size := v.bytes()
			alive += size
			ends[max(last[out], i)] += size
		}
		peak = max(peak, alive)
		alive -= ends[i]
	}
	return peak
}

func (v *Value) bytes() int64 { return (v.Count()*int64(v.Type.Bits()) + 7) / 8 }

// Value returns the value of that name, or nil.
func (g *Graph) Value(name string) *Value { return g.values[name] }

// Outputs returns the names of the model's outputs.
func (g *Graph) Outputs() []string { return slices.Clone(g.outputs) }

// AddInput declares one more graph input.
func (g *Graph) AddInput(base string, t onnx.DataType, shape ...int64) *Value {
	v := &Value{g.names.Unique(base), t, shape}
	g.values[v.Name] = v
	g.inputs = append(g.inputs, v.Name)
	return v
}

// Release turns an initializer into a graph input of the same name, so that it can change from run to run.
func (g *Graph) Release(name string) error {
	if g.stored[name] == nil {
		return fmt.Errorf("grad: the graph has no initializer %q", name)
	}
	delete(g.stored, name)
	g.inputs = append(g.inputs, name)
	return nil
}

// Model returns the model that computes the given values from the inputs and initializers they need.
func (g *Graph) Model(outputs ...*Value) *onnx.Model {
	m := onnx.NewModel(g.source.IRVersion, g.opset, "gradient")
	m.OpsetImports = g.source.OpsetImports
	m.Functions = g.source.Functions
	need := map[string]bool{}
	for _, v := range outputs {
		need[v.Name] = true
		m.Graph.Outputs = append(m.Graph.Outputs, v.info())
	}
	for _, n := range slices.Backward(g.nodes) {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return need[o] }) {
			continue
		}
		m.Graph.Nodes = append(m.Graph.Nodes, n)
		for _, in := range reads(n) {
			need[in] = true
		}
	}
	slices.Reverse(m.Graph.Nodes)
	for _, in := range g.inputs {
		if need[in] {
			m.Graph.Inputs = append(m.Graph.Inputs, g.values[in].info())
		}
	}
	for _, t := range g.initializers() {
		if need[t.Name] {
			m.Graph.Initializers = append(m.Graph.Initializers, t)
		}
	}
	return m
}

// initializers lists the stored tensors in the order of their names.
func (g *Graph) initializers() []*onnx.Tensor {
	var all []*onnx.Tensor
	for _, t := range g.stored {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *onnx.Tensor) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

func (v *Value) info() *onnx.ValueInfo {
	dims := make([]any, len(v.Shape))
	for i, d := range v.Shape {
		dims[i] = d
	}
	return onnx.NewValueInfo(v.Name, v.Type, dims...)
}

// producer returns the node that computes a value, nil for none.
func (g *Graph) producer(name string) *onnx.Node {
	for _, n := range g.nodes {
		if slices.Contains(n.Outputs, name) {
			return n
		}
	}
	return nil
}

// reads lists what a node reads, its subgraphs included.
func reads(n *onnx.Node) []string {
	var all []string
	for _, in := range n.Inputs {
		if in != "" {
			all = append(all, in)
		}
	}
	return append(all, n.Captures()...)
}

func product(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

// broadcast returns the common shape of two shapes by the rule of NumPy; the runtime has checked that there is one.
func broadcast(a, b []int64) []int64 {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := slices.Clone(a)
	off := len(a) - len(b)
	for i, d := range b {
		if out[off+i] == 1 {
			out[off+i] = d
		}
	}
	return out
}
