package rewrite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// editor collects the changes to one model and makes them.
type editor struct {
	model     *onnx.Model
	opset     int64
	names     names
	coded     map[*quant.Matrix]*codedWeight
	books     map[string]string           // codec to the name of its codebook
	zeros     map[onnx.DataType]string    // type to the name of its zero bias
	newBiases map[*linear]*onnx.Tensor    // those that are not stored in the form the node takes
	swap      map[*onnx.Node][]*onnx.Node // what stands in for a node; none for one that is dropped
	touched   []*onnx.Graph
	dropped   []valueRef // what the replaced nodes read, and may be of no use now
	result    Result
}

// codedWeight names the tensors of one matrix and holds the attributes that read them.
type codedWeight struct {
	codes, scales, scaleIndex, codebook, gains string
	attributes                                 []*onnx.Attribute
}

func newEditor(m *onnx.Model, opset int64) *editor {
	return &editor{
		model: m, opset: opset, names: newNames(m), coded: map[*quant.Matrix]*codedWeight{}, books: map[string]string{},
		zeros: map[onnx.DataType]string{}, newBiases: map[*linear]*onnx.Tensor{}, swap: map[*onnx.Node][]*onnx.Node{},
	}
}

// addInitializer gives t a name of its own, close to want, and stores it in g.
func (e *editor) addInitializer(g *onnx.Graph, want string, t *onnx.Tensor) string {
	t.Name = e.names.unique(want)
	g.Initializers = append(g.Initializers, t)
	return t.Name
}

// prepare does for r what may fail, reading the bias, without changing the model.
func (e *editor) prepare(r *Replacement) error {
	l := r.Site.linear
	if !slices.Contains(l.scope.nodes(), l.node) {
		return fmt.Errorf("rewrite: site %q is not in the model any more; find the sites again after every change", r.Site.Name)
	}
	if l.bias == nil || l.storedBias() != "" {
		return nil
	}
	values, err := l.bias.readAll(int64(l.weight.n))
	if err != nil {
		return fmt.Errorf("rewrite: site %q: read the bias: %w", r.Site.Name, err)
	}
	bias := make([]float32, l.weight.n)
	for i := range bias {
		bias[i] = l.biasScale * values[i%len(values)]
	}
	dims := []int64{int64(len(bias))}
	t := onnx.NewTensor("", dims, bias)
	if l.weight.dtype == onnx.Float16 {
		t = onnx.NewFloat16Tensor("", dims, bias)
	}
	e.newBiases[l] = t
	return nil
}

// storedBias returns the name of the bias if it is stored in just the form that the node takes.
func (l *linear) storedBias() string {
	b := l.bias
	plain := b.root.initializer != nil && b.recipe == fmt.Sprintf("%p", b.root.initializer)
	if plain && l.biasScale == 1 && len(b.dims) == 1 && b.dims[0] == int64(l.weight.n) {
		return b.root.name
	}
	return ""
}

func (e *editor) biasOf(l *linear, owner *onnx.Graph) string {
	if t := e.newBiases[l]; t != nil {
		return e.addInitializer(owner, l.bias.root.name+".bias", t)
	}
	if l.bias != nil {
		return l.storedBias()
	}
	dt := l.weight.dtype
	if e.zeros[dt] == "" {
		zero := onnx.NewRawTensor("", dt, []int64{1}, make([]byte, dt.Bits()/8))
		e.zeros[dt] = e.addInitializer(e.model.Graph, "cosetq.no_bias", zero)
	}
	return e.zeros[dt]
}

// replace puts the HNLQLinear, and what it needs around it, in the place of the node of r.
func (e *editor) replace(r *Replacement) {
	l := r.Site.linear
	g := l.scope.graph
	e.touch(g)
	w := e.store(r.Matrix, l.weight)
	base := r.Site.Name
	var nodes []*onnx.Node
	add := func(op, output string, inputs []string, attrs ...*onnx.Attribute) string {
		n := onnx.NewNode(op, inputs, []string{output}, attrs...)
		n.Name = e.names.unique(base + "." + strings.ToLower(op))
		nodes = append(nodes, n)
		return output
	}

	activation := l.activation.name
	if l.turnIn {
		activation = add("Transpose", e.names.unique(activation+".transposed"), []string{activation}, swapLast(l.rank))
	}
	output := l.node.Outputs[0]
	if l.add != nil {
		output = l.add.Outputs[0]
		e.swap[l.add] = nil
	}
	product := output
	if l.turnOut || l.addend != nil {
		product = e.names.unique(output + ".product")
	}
	linear := &onnx.Node{
		OpType: cudaops.OpName, Domain: cudaops.Domain, Name: l.node.Name, DocString: l.node.DocString,
		MetadataProps: l.node.MetadataProps,
		Inputs:        []string{activation, w.codes, w.scales, w.scaleIndex, w.codebook, w.gains, e.biasOf(l, g)},
		Outputs:       []string{product},
		Attributes:    append(slices.Clone(w.attributes), onnx.IntAttr(cudaops.AttrComputeType, int64(l.weight.dtype))),
	}
	nodes = append(nodes, linear)
	if l.turnOut {
		turned := output
		if l.addend != nil {
			turned = e.names.unique(output + ".turned")
		}
		product = add("Transpose", turned, []string{product}, swapLast(l.rank))
	}
	if l.addend != nil {
		addend := l.addend.name
		if l.addendScale != 1 {
			dt := l.weight.dtype
			beta := onnx.NewTensor("", nil, []float32{l.addendScale})
			if dt == onnx.Float16 {
				beta = onnx.NewFloat16Tensor("", nil, []float32{l.addendScale})
			}
			factor := e.addInitializer(g, base+".beta", beta)
			addend = add("Mul", e.names.unique(addend+".scaled"), []string{addend, factor})
		}
		add("Add", output, []string{product, addend})
	}
	e.swap[l.node] = nodes
	e.dropped = append(e.dropped, refTo(l.scope.lookup(l.node.Inputs[l.side])))
	if l.add != nil {
		e.dropped = append(e.dropped, refTo(l.scope.lookup(l.add.Inputs[0])), refTo(l.scope.lookup(l.add.Inputs[1])))
	} else if l.bias != nil {
		e.dropped = append(e.dropped, refTo(l.scope.lookup(l.node.Inputs[2])))
	}
	e.result.Nodes++
}

// swapLast is the perm of a Transpose that exchanges the last two axes.
func swapLast(rank int) *onnx.Attribute {
	perm := make([]int64, rank)
	for i := range perm {
		perm[i] = int64(i)
	}
	perm[rank-1], perm[rank-2] = perm[rank-2], perm[rank-1]
	return onnx.IntsAttr("perm", perm...)
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

// codecNames lists the codecs in use.
func (e *editor) codecNames() string {
	var codecs []string
	for c := range e.books {
		codecs = append(codecs, c)
	}
	slices.Sort(codecs)
	return strings.Join(codecs, " ")
}
