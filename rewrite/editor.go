package rewrite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// editor collects the changes to one model and makes them.
type editor struct {
	model     *onnx.Model
	index     *onnx.Index // of the model as it was
	opset     int64
	names     *onnx.Names
	coded     map[placed[*quant.Matrix]]*codedWeight
	counted   map[*quant.Matrix]bool
	books     map[placed[string]]string        // content to the name of a codebook
	zeros     map[placed[onnx.DataType]]string // type to the name of its zero bias
	unsigned  map[placed[int64]]string         // columns to the name of signs without a rotation
	newBiases map[*linear]*onnx.Tensor         // those that are not stored in the form the node takes
	swap      map[*onnx.Node][]*onnx.Node      // what stands in for a node; none for one that is dropped
	touched   []*onnx.Graph
	dropped   []valueRef // what the replaced nodes read, and may be of no use now
	result    Result
}

// placed is something stored in a graph. The constant inputs of an HNLQLinear stand in the node's own graph, because
// ONNX Runtime before 1.30 does not tell the kernels of a subgraph that a value of the outer graph is constant. So what
// several graphs share is stored in each of them.
type placed[T comparable] struct {
	what  T
	graph *onnx.Graph
}

func newEditor(m *onnx.Model, opset int64) *editor {
	return &editor{
		model: m, index: onnx.NewIndex(m), opset: opset, names: onnx.NewNames(m),
		coded: map[placed[*quant.Matrix]]*codedWeight{}, counted: map[*quant.Matrix]bool{}, books: map[placed[string]]string{},
		zeros: map[placed[onnx.DataType]]string{}, unsigned: map[placed[int64]]string{}, newBiases: map[*linear]*onnx.Tensor{}, swap: map[*onnx.Node][]*onnx.Node{},
	}
}

// addInitializer gives t a name of its own, close to want, and stores it in g.
func (e *editor) addInitializer(g *onnx.Graph, want string, t *onnx.Tensor) string {
	t.Name = e.names.Unique(want)
	g.Initializers = append(g.Initializers, t)
	return t.Name
}

// prepare does for a site what may fail, reading the bias, without changing the model. The correction, if any, is added to
// a bias that is there.
func (e *editor) prepare(site *Site, correction []float32) error {
	l := site.linear
	if !slices.Contains(l.scope.Nodes(), l.node) {
		return fmt.Errorf("rewrite: site %q is not in the model any more; find the sites again after every change", site.Name)
	}
	if l.bias == nil || correction == nil && l.storedBias() != "" {
		return nil
	}
	values, err := l.bias.readAll(int64(l.weight.n))
	if err != nil {
		return fmt.Errorf("rewrite: site %q: read the bias: %w", site.Name, err)
	}
	bias := make([]float32, l.weight.n)
	for i := range bias {
		bias[i] = l.biasScale * values[i%len(values)]
		if correction != nil {
			bias[i] += correction[i]
		}
	}
	e.newBiases[l] = newFloats(l.weight.dtype, []int64{int64(len(bias))}, bias)
	return nil
}

// newFloats returns an unnamed tensor of v as float32 or float16.
func newFloats(dt onnx.DataType, dims []int64, v []float32) *onnx.Tensor {
	if dt == onnx.Float16 {
		return onnx.NewFloat16Tensor("", dims, v)
	}
	return onnx.NewTensor("", dims, v)
}

// storedBias returns the name of the bias if it is stored in just the form, and in the graph, that the node takes it from.
func (l *linear) storedBias() string {
	b := l.bias
	plain := b.root.Initializer != nil && b.root.Scope == l.scope && b.recipe == fmt.Sprintf("%p", b.root.Initializer)
	if plain && l.biasScale == 1 && len(b.dims) == 1 && b.dims[0] == int64(l.weight.n) {
		return b.root.Name
	}
	return ""
}

// biasOf names the bias of l, or "" if it has none.
func (e *editor) biasOf(l *linear) string {
	if t := e.newBiases[l]; t != nil {
		return e.addInitializer(l.scope.Graph, l.bias.root.Name+".bias", t)
	}
	if l.bias != nil {
		return l.storedBias()
	}
	return ""
}

// noBias names a bias of one zero, which all nodes of g without a bias share.
func (e *editor) noBias(g *onnx.Graph, dt onnx.DataType) string {
	key := placed[onnx.DataType]{dt, g}
	if e.zeros[key] == "" {
		zero := onnx.NewRawTensor("", dt, []int64{1}, make([]byte, dt.Bits()/8))
		e.zeros[key] = e.addInitializer(g, "no_bias", zero)
	}
	return e.zeros[key]
}

// core writes the nodes that compute output = activation·Wᵀ + bias, where bias may be "". The first takes the identity of
// the node it replaces.
type core func(activation, bias, output string) []*onnx.Node

// replace puts the core, and what the form of the site needs around it, in the place of the site's nodes.
func (e *editor) replace(site *Site, core core) {
	l := site.linear
	e.touch(l.scope.Graph)
	around := &surroundings{names: e.names, base: site.Name}
	activation, short := around.arrange(l)
	if short {
		e.drop(l.scope, l.activation.Name)
	}
	if l.add != nil {
		e.swap[l.add] = nil
	}
	behind := l.behind()
	output := func(step int) string {
		switch step {
		case len(behind):
			return l.output()
		case 0:
			return e.names.Unique(l.output() + ".product")
		}
		return e.names.Unique(l.output() + behind[step-1].suffix)
	}
	value := output(0)
	main := core(activation, e.biasOf(l), value)
	main[0].Name, main[0].DocString, main[0].MetadataProps = l.node.Name, l.node.DocString, l.node.MetadataProps
	around.nodes = append(around.nodes, main...)
	for i, s := range behind {
		inputs := []string{value}
		value = output(i + 1)
		if s.addend {
			inputs = append(inputs, e.addendOf(l, around))
		}
		around.add(s.op, value, inputs, s.attributes...)
	}
	e.swap[l.node] = around.nodes

	e.drop(l.scope, l.node.Inputs[l.side])
	if l.add != nil {
		e.drop(l.scope, l.add.Inputs...)
	} else if l.addend == nil && len(l.node.Inputs) > 2 { // folded, or times a beta of 0
		e.drop(l.scope, l.node.Inputs[2])
	}
	e.result.Nodes++
}

// step is a node behind the product of a layer.
type step struct {
	op, suffix string // suffix of what it computes, where that is not the last
	attributes []*onnx.Attribute
	addend     bool // its second input
}

// behind lists what follows the product of l.
func (l *linear) behind() (steps []step) {
	add := step{op: "Add", suffix: ".sum", addend: true}
	if l.addend != nil && l.addendRows {
		steps = append(steps, add)
	}
	if l.out != nil {
		steps = append(steps, step{op: "Transpose", suffix: ".turned", attributes: []*onnx.Attribute{onnx.IntsAttr("perm", l.out...)}})
	}
	if l.addend != nil && !l.addendRows {
		steps = append(steps, add)
	}
	if f := l.function; f != nil {
		steps = append(steps, step{op: f.OpType, attributes: f.Attributes})
	}
	return steps
}

// addendOf names what is added behind the product of l.
func (e *editor) addendOf(l *linear, around *surroundings) string {
	addend := l.addend.Name
	if l.addendScale != 1 {
		beta := newFloats(l.weight.dtype, nil, []float32{l.addendScale})
		factor := e.addInitializer(l.scope.Graph, around.base+".beta", beta)
		addend = around.add("Mul", e.names.Unique(addend+".scaled"), []string{addend, factor})
	}
	return addend
}

// drop notes values that a node read which is gone.
func (e *editor) drop(s *onnx.Scope, names ...string) {
	for _, name := range names {
		if v := e.index.Lookup(e.index.GraphScope(s.Graph), name); v != nil {
			e.dropped = append(e.dropped, valueRef{v.Scope.Graph, v.Name})
		}
	}
}

func (e *editor) touch(g *onnx.Graph) {
	if !slices.Contains(e.touched, g) {
		e.touched = append(e.touched, g)
	}
}

// finish rebuilds the lists of nodes.
func (e *editor) finish() {
	for _, g := range e.touched {
		var nodes []*onnx.Node
		for _, n := range g.Nodes {
			if by, ok := e.swap[n]; ok {
				nodes = append(nodes, by...)
			} else {
				nodes = append(nodes, n)
			}
		}
		g.Nodes = nodes
	}
}

// codecNames lists the codecs in use, of what was coded before too.
func (e *editor) codecNames(before []*Linear) string {
	var codecs []string
	for _, l := range before {
		codecs = append(codecs, l.Matrix.Codec.String())
	}
	for m := range e.counted {
		codecs = append(codecs, m.Codec.String())
	}
	slices.Sort(codecs)
	return strings.Join(slices.Compact(codecs), " ")
}
