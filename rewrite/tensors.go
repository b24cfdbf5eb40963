package rewrite

import (
	"math"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// maxShapeRows is the end of a Slice that keeps all rows: float32 holds it exactly, and no weight has as many.
const maxShapeRows = 1 << 24

// codedWeight names the tensors of one matrix and holds the attributes that read them.
type codedWeight struct {
	codes, scales, scaleIndex, codebook, gains string
	signs                                      string // "" for no rotation
	attributes                                 []*onnx.Attribute
}

// store adds the tensors of m, the code of l's weight, to the graph of l, once.
func (e *editor) store(m *quant.Matrix, l *linear) *codedWeight {
	owner, base := l.scope.Graph, l.weight.Name()
	if v := e.index.Lookup(e.index.GraphScope(owner), l.node.Inputs[l.side]); v != nil && v.Node != nil && isMarked(v.Node) {
		base = v.Name // one of a batch: all have the same tensor behind them
	}
	if c := e.coded[placed[*quant.Matrix]{m, owner}]; c != nil {
		return c
	}
	layout := quant.LayoutOf(m.Codec)
	tiles, tile, groups := int64(m.Tiles()), int64(m.Tile), int64(m.Groups)

	codeType := onnx.Uint8
	if layout.ElementBytes == 2 {
		codeType = onnx.Uint16
	}
	gainDims := []int64{1, 1, 1}
	if len(layout.GainDivisors) > 1 {
		gainDims = []int64{tiles, int64(layout.GainBytes(m.Groups)), tile}
	}
	direct := len(m.Scales) == m.N && len(m.ScaleIndex) == 1
	scaleDims := []int64{cudaops.ScaleTableSize, 1}
	if direct {
		scaleDims = []int64{1, int64(m.N)}
	}
	scales := onnx.NewTensor("", scaleDims, m.Scales)
	scales.DataType = onnx.Float16

	c := &codedWeight{
		codes:      e.addInitializer(owner, base+".codes", packed{m, false}.tensor(codeType, []int64{tiles, groups, int64(layout.Elements), tile})),
		scales:     e.addInitializer(owner, base+".scales", scales),
		scaleIndex: e.addInitializer(owner, base+".index", onnx.NewRawTensor("", onnx.Uint8, []int64{int64(len(m.ScaleIndex))}, m.ScaleIndex)),
		gains:      e.addInitializer(owner, base+".gains", packed{m, true}.tensor(onnx.Uint8, gainDims)),
	}
	// Codecs that differ in gains alone share a codebook.
	book := placed[string]{bookKey(layout), owner}
	if e.books[book] == "" {
		entries := int64(len(layout.Codebook) / layout.Dim)
		e.books[book] = e.addInitializer(owner, "codebook",
			onnx.NewTensor("", []int64{entries, int64(layout.Dim)}, layout.Codebook))
		e.result.Bytes += int64(len(layout.Codebook))
	}
	c.codebook = e.books[book]
	c.attributes = e.attributes(m, layout, direct)
	if m.Rotation != nil {
		signs, attributes := e.rotationOf(m.Rotation, int64(m.K), owner, base)
		c.signs, c.attributes = signs, append(c.attributes, attributes...)
	}
	e.coded[placed[*quant.Matrix]{m, owner}] = c
	e.result.Bytes += m.Bytes()
	if e.counted[m] {
		for _, data := range [][]byte{m.Codes, m.Gains} {
			if len(data) >= ExternalThreshold {
				e.result.Bytes -= int64(len(data))
			}
		}
	} else {
		e.counted[m] = true
		e.result.Matrices++
		e.result.Weights += int64(m.N) * int64(m.K)
	}
	return c
}

// bookKey tells codebooks apart by their content.
func bookKey(l *quant.Layout) string {
	key := make([]byte, 0, 1+len(l.Codebook))
	key = append(key, byte(l.Dim))
	for _, v := range l.Codebook {
		key = append(key, byte(v))
	}
	return string(key)
}

// node returns the HNLQLinear that multiplies by the weight, for activations of type dt.
func (c *codedWeight) node(activation, bias, output string, dt onnx.DataType) *onnx.Node {
	inputs := []string{activation, c.codes, c.scales, c.scaleIndex, c.codebook, c.gains, bias}
	if c.signs != "" {
		inputs = append(inputs, c.signs)
	}
	n := onnx.NewNode(cudaops.OpName, inputs, []string{output},
		append(slices.Clone(c.attributes), onnx.IntAttr(cudaops.AttrComputeType, int64(dt)))...)
	n.Domain = cudaops.Domain
	return n
}

// attributes returns all attributes of the node but compute_type.
func (e *editor) attributes(m *quant.Matrix, layout *quant.Layout, direct bool) []*onnx.Attribute {
	floats := func(name string, v []float32) *onnx.Attribute {
		return onnx.TensorAttr(name, onnx.NewTensor("", []int64{int64(len(v))}, v))
	}
	where := make([]float32, 0, cudaops.SlotFields*len(layout.Slots))
	for field := range cudaops.SlotFields {
		for _, s := range layout.Slots {
			where = append(where, float32(slotField(s, field)))
		}
	}
	n, k, groups := int64(m.N), int64(m.K), int64(m.Groups)
	attributes := []*onnx.Attribute{
		onnx.IntAttr(cudaops.AttrK, k),
		onnx.IntAttr(cudaops.AttrN, n),
		onnx.StringAttr(cudaops.AttrCodec, m.Codec.String()),
		onnx.TensorAttr(cudaops.AttrSlots, onnx.NewTensor("", []int64{cudaops.SlotFields, int64(len(layout.Slots))}, where)),
		floats(cudaops.AttrLevelWeights, scaled(layout.LevelWeights, m.Exponent)),
		floats(cudaops.AttrCentre, scaled(layout.Centre[:], m.Exponent)),
		floats(cudaops.AttrGainValues, layout.GainValues),
		floats(cudaops.AttrGainDivisors, layout.GainDivisors),
		floats(cudaops.AttrScaleDivisors, scaleDivisors(direct)),
	}
	attributes = append(attributes, e.tableAttributes(m, layout)...)
	if e.opset >= 10 {
		return append(attributes, floats(cudaops.AttrShape, []float32{float32(n), float32(k)}))
	}
	return append(attributes,
		onnx.IntsAttr(cudaops.AttrShapeInts, n, k),
		onnx.IntsAttr(cudaops.AttrRowsInts, n),
		onnx.IntsAttr(cudaops.AttrShapeGroupsInts, maxShapeRows, groups))
}

// tableAttributes returns what the function body would otherwise derive from the other attributes.
func (e *editor) tableAttributes(m *quant.Matrix, layout *quant.Layout) []*onnx.Attribute {
	levels, blocks := int64(len(layout.LevelWeights)), int64(lattice.GroupSize/layout.Dim)
	shift := scaled(layout.Centre[:layout.Dim], m.Exponent)
	for i := range shift {
		shift[i] /= float32(levels)
	}
	rows := make([]int32, len(layout.Slots))
	for i, s := range layout.Slots {
		rows[i] = int32(i/int(blocks)*len(layout.Codebook)/layout.Dim + s.Base)
	}
	return []*onnx.Attribute{
		onnx.TensorAttr(cudaops.AttrTableFactors, onnx.NewTensor("", []int64{levels, 1, 1}, scaled(layout.LevelWeights, m.Exponent))),
		onnx.TensorAttr(cudaops.AttrTableShift, onnx.NewTensor("", []int64{int64(layout.Dim)}, shift)),
		onnx.TensorAttr(cudaops.AttrTableRows, newIntegers(e.opset, []int64{levels, blocks, 1, 1}, rows)),
		onnx.TensorAttr(cudaops.AttrDigitsShape, newIntegers(e.opset, []int64{4}, []int64{levels, blocks, int64(m.Groups), -1})),
	}
}

// newIntegers returns an unnamed tensor of v, as float before the opset whose Constant holds integers.
func newIntegers[T int32 | int64](opset int64, dims []int64, v []T) *onnx.Tensor {
	if opset >= 9 {
		return onnx.NewTensor("", dims, v)
	}
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = float32(x)
	}
	return onnx.NewTensor("", dims, f)
}

// tabulate gives the nodes that were there before, perhaps written when the function did not read them, these attributes.
func (e *editor) tabulate(before []*Linear) {
	for _, l := range before {
		if l.Node.Attr(cudaops.AttrTableRows) == nil {
			l.Node.Attributes = append(l.Node.Attributes, e.tableAttributes(l.Matrix, quant.LayoutOf(l.Matrix.Codec))...)
		}
	}
}

// scaleDivisors unpack the index of a row's scale from its byte: two to a byte, or the single zero of the direct form.
func scaleDivisors(direct bool) []float32 {
	if direct {
		return []float32{1}
	}
	return []float32{1, 16}
}

// slotField returns one row of the attribute slots.
func slotField(s quant.Slot, field int) int {
	return [cudaops.SlotFields]int{
		cudaops.SlotElement: s.Element, cudaops.SlotDivisor: s.Divisor, cudaops.SlotModulus: s.Modulus, cudaops.SlotBase: s.Base,
	}[field]
}

// scaled returns v · 2^e.
func scaled(v []float32, e int) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(math.Ldexp(float64(x), e))
	}
	return out
}
