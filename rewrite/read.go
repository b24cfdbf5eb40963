package rewrite

import (
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// Linear is a node on a coded weight, read back: an HNLQLinear, Y = A·Wᵀ + bias, or an HNLQGather, Y = W[A].
type Linear struct {
	Node       *onnx.Node
	Gather     bool
	Activation string // the value A
	Matrix     *quant.Matrix
	// Bias is the bias [N], nil when the node has none. It is float16 rounded to start with when DType is Float16.
	Bias  []float32
	DType onnx.DataType // of A and Y

	scope  *onnx.Scope
	stored [maxInputs]*onnx.Value // by input
	key    string                 // equal for nodes with the same weight
}

// maxInputs is the number of inputs of a node with a rotation.
const maxInputs = cudaops.PlainInputs + 1

// Inputs of the node.
const (
	codebookInput = 4
	biasInput     = 6
	signsInput    = 7
)

// maxSide bounds K and N: the function body counts rows and columns in float32.
const maxSide = 1 << 24

// ReadLinear reads the HNLQLinear or HNLQGather node n of m. The matrix views the tensors of m. Everything the node says is checked
// against its codec, so that a damaged or hostile file gives an error and never a wrong weight.
func ReadLinear(m *onnx.Model, n *onnx.Node) (*Linear, error) { return newValues(m).readLinear(n) }

// ReadLinears reads all HNLQLinear and HNLQGather nodes of m.
func ReadLinears(m *onnx.Model) ([]*Linear, error) {
	vs := newValues(m)
	var all []*Linear
	for _, s := range vs.inferenceScopes() {
		for _, n := range s.Nodes() {
			if !isCoded(n) && !isCodedGather(n) {
				continue
			}
			l, err := vs.readLinear(n)
			if err != nil {
				return nil, err
			}
			all = append(all, l)
		}
	}
	return all, nil
}

// isCoded reports whether n is an HNLQLinear.
func isCoded(n *onnx.Node) bool { return n.Domain == cudaops.Domain && n.OpType == cudaops.OpName }

func (vs *values) readLinear(n *onnx.Node) (*Linear, error) {
	l, err := vs.parseLinear(n)
	if err != nil {
		return nil, fmt.Errorf("rewrite: %s: %w", describe(n), err)
	}
	return l, nil
}

func (vs *values) parseLinear(n *onnx.Node) (*Linear, error) {
	s := vs.scopeOf[n]
	switch version, _ := vs.model.Opset(cudaops.Domain); {
	case s == nil:
		return nil, fmt.Errorf("the node is not in the model")
	case !isCoded(n) && !isCodedGather(n):
		return nil, fmt.Errorf("it is no %s::%s and no %s", cudaops.Domain, cudaops.OpName, cudaops.GatherName)
	case version != cudaops.OpVersion:
		return nil, fmt.Errorf("the model imports version %d of %s, this program reads version %d: use the program that wrote it", version, cudaops.Domain, cudaops.OpVersion)
	case isCodedGather(n) && (len(n.Inputs) != len(cudaops.GatherInputs()) || len(n.Outputs) != 1):
		return nil, fmt.Errorf("it has %d inputs and %d outputs, want %d and 1", len(n.Inputs), len(n.Outputs), len(cudaops.GatherInputs()))
	case isCoded(n) && (len(n.Inputs) != cudaops.PlainInputs && len(n.Inputs) != maxInputs || len(n.Outputs) != 1):
		return nil, fmt.Errorf("it has %d inputs and %d outputs, want %d or %d and 1", len(n.Inputs), len(n.Outputs), cudaops.PlainInputs, maxInputs)
	}
	l := &Linear{Node: n, Gather: isCodedGather(n), Activation: n.Inputs[0], DType: onnx.DataType(n.Int(cudaops.AttrComputeType, 0)), scope: s}
	if l.DType != onnx.Float && l.DType != onnx.Float16 {
		return nil, fmt.Errorf("its %s is %v, want float or float16", cudaops.AttrComputeType, l.DType)
	}
	k, rows := n.Int(cudaops.AttrK, 0), n.Int(cudaops.AttrN, 0)
	if k < 1 || k > maxSide || rows < 1 || rows > maxSide {
		return nil, fmt.Errorf("K = %d and N = %d are not sizes between 1 and %d", k, rows, maxSide)
	}
	name := n.Str(cudaops.AttrCodec, "")
	codec, err := lattice.ParseCodec(name)
	if err != nil {
		return nil, err
	}
	r := &linearReader{values: vs, linear: l, layout: quant.LayoutOf(codec), n: rows, k: k, groups: (k + cudaops.GroupSize - 1) / cudaops.GroupSize}
	r.matrix = &quant.Matrix{N: int(rows), K: int(k), Codec: codec, Groups: int(r.groups)}
	if err := r.readAttributes(); err != nil {
		return nil, err
	}
	if err := r.readInputs(); err != nil {
		return nil, err
	}
	l.Matrix = r.matrix
	l.key = fmt.Sprintf("%s %d %d %d", name, k, rows, r.matrix.Exponent)
	for i, v := range l.stored[1:signsInput] {
		if i+1 != biasInput {
			l.key += fmt.Sprintf(" %p", v)
		}
	}
	if r.matrix.Rotation != nil {
		l.key += fmt.Sprintf(" turned %d by %p", r.matrix.Rotation.Block, l.stored[signsInput])
	}
	return l, r.matrix.Validate()
}

// linearReader checks one node, part by part.
type linearReader struct {
	values       *values
	linear       *Linear
	layout       *quant.Layout
	matrix       *quant.Matrix
	n, k, groups int64
	direct       bool // a scale per row instead of an index per row
}

func (r *linearReader) readAttributes() error {
	levels, err := r.floats(cudaops.AttrLevelWeights, len(r.layout.LevelWeights))
	if err != nil {
		return err
	}
	// The finest level has weight 1, so its weight in the file is the power of two of the matrix.
	mantissa, exponent := math.Frexp(float64(levels[0]))
	if mantissa != 0.5 || exponent < -125 || exponent > 125 {
		return fmt.Errorf("%s begins with %v, which is no power of two in range", cudaops.AttrLevelWeights, levels[0])
	}
	e := exponent - 1
	r.matrix.Exponent = e
	slots := make([]float32, 0, cudaops.SlotFields*len(r.layout.Slots))
	for field := range cudaops.SlotFields {
		for _, s := range r.layout.Slots {
			slots = append(slots, float32(slotField(s, field)))
		}
	}
	divisors, err := r.floats(cudaops.AttrScaleDivisors, -1)
	if err != nil {
		return err
	}
	r.direct = len(divisors) == 1
	for _, a := range []struct {
		name string
		want []float32
	}{
		{cudaops.AttrLevelWeights, scaled(r.layout.LevelWeights, e)},
		{cudaops.AttrCentre, scaled(r.layout.Centre[:], e)},
		{cudaops.AttrSlots, slots},
		{cudaops.AttrGainValues, r.layout.GainValues},
		{cudaops.AttrGainDivisors, r.layout.GainDivisors},
		{cudaops.AttrScaleDivisors, scaleDivisors(r.direct)},
	} {
		got, err := r.floats(a.name, len(a.want))
		if err != nil {
			return err
		}
		if !slices.Equal(got, a.want) {
			return fmt.Errorf("its %s does not fit the codec %v", a.name, r.matrix.Codec)
		}
	}
	return nil
}

// floats returns a float32 tensor attribute of count numbers; of any small count when that is negative.
func (r *linearReader) floats(name string, count int) ([]float32, error) {
	a := r.linear.Node.Attr(name)
	if a == nil || a.T == nil || a.T.DataType != onnx.Float {
		return nil, fmt.Errorf("it lacks the float tensor attribute %s", name)
	}
	n, err := a.T.NumElements()
	if err != nil || (count >= 0 && n != int64(count)) || n > 1<<10 {
		return nil, fmt.Errorf("its %s has dimensions %v, which do not fit the codec %v", name, a.T.Dims, r.matrix.Codec)
	}
	return a.T.Float32s()
}

// readInputs views the tensors.
func (r *linearReader) readInputs() error {
	m, elements := r.matrix, int64(r.layout.Elements)
	codeType := onnx.Uint8
	if r.layout.ElementBytes == 2 {
		codeType = onnx.Uint16
	}
	codes, dims, err := r.input(1, codeType, -1, r.groups, elements, -1)
	if err != nil {
		return err
	}
	m.Codes, m.Tile = codes, int(dims[3])
	if tile := dims[3]; tile < 1 || tile > cudaops.MaxTile || dims[0] != (r.n+tile-1)/tile {
		return fmt.Errorf("its codes are %v, which are not the tiles of %d rows", dims, r.n)
	}
	scaleDims, indexBytes := []int64{cudaops.ScaleTableSize, 1}, (r.n+1)/2
	if r.direct {
		scaleDims, indexBytes = []int64{1, r.n}, 1
	}
	scales, _, err := r.input(2, onnx.Float16, scaleDims...)
	if err != nil {
		return err
	}
	m.Scales = make([]uint16, len(scales)/2)
	for i := range m.Scales {
		m.Scales[i] = uint16(scales[2*i]) | uint16(scales[2*i+1])<<8
		if m.Scales[i]&0x7c00 == 0x7c00 {
			return fmt.Errorf("scale %d is not finite", i)
		}
	}
	if m.ScaleIndex, _, err = r.input(3, onnx.Uint8, indexBytes); err != nil {
		return err
	}
	entries := int64(len(r.layout.Codebook) / r.layout.Dim)
	book, _, err := r.input(codebookInput, onnx.Int8, entries, int64(r.layout.Dim))
	if err != nil {
		return err
	}
	for i, b := range book {
		if int8(b) != r.layout.Codebook[i] {
			return fmt.Errorf("entry %d of its codebook is not that of %v; the file runs, but this program cannot decode it", i/r.layout.Dim, m.Codec)
		}
	}
	gainDims := []int64{1, 1, 1}
	if len(r.layout.GainDivisors) > 1 {
		gainDims = []int64{dims[0], int64(r.layout.GainBytes(m.Groups)), dims[3]}
	}
	if m.Gains, _, err = r.input(5, onnx.Uint8, gainDims...); err != nil {
		return err
	}
	if r.linear.Gather {
		return nil
	}
	if len(r.linear.Node.Inputs) == maxInputs {
		if err := r.readRotation(); err != nil {
			return err
		}
	}
	return r.readBias()
}

func (r *linearReader) readRotation() error {
	signs, _, err := r.input(signsInput, onnx.Uint8, (r.k+7)/8)
	if err != nil {
		return err
	}
	block, err := r.floats(cudaops.AttrRotation, 1)
	if err != nil {
		return err
	}
	if b := block[0]; !(b >= 1 && b <= cudaops.MaxRotation) || b != float32(int(b)) {
		return fmt.Errorf("its %s is %v, want a whole number from 1 to %d", cudaops.AttrRotation, b, cudaops.MaxRotation)
	}
	if block[0] > 1 || slices.ContainsFunc(signs, func(b byte) bool { return b != 0 }) {
		r.matrix.Rotation = &quant.Rotation{Block: int(block[0]), Signs: signs}
	}
	return nil
}

func (r *linearReader) readBias() error {
	v, err := r.initializer(biasInput)
	if err != nil {
		return err
	}
	t := v.Initializer
	if t.DataType != r.linear.DType || len(t.Dims) != 1 || (t.Dims[0] != r.n && t.Dims[0] != 1) {
		return fmt.Errorf("its bias %q is %v %v, want %v [%d] or [1]", v.Name, t.DataType, t.Dims, r.linear.DType, r.n)
	}
	bias, err := t.Float32s()
	if err != nil {
		return err
	}
	if len(bias) == 1 && bias[0] == 0 {
		return nil
	}
	for int64(len(bias)) < r.n { // one number for all rows
		bias = append(bias, bias[0])
	}
	r.linear.Bias = bias
	return nil
}

// input returns the bytes and dimensions of input i, which must be a stored tensor of the given type and dimensions; -1
// stands for any.
func (r *linearReader) input(i int, dt onnx.DataType, dims ...int64) ([]byte, []int64, error) {
	v, err := r.initializer(i)
	if err != nil {
		return nil, nil, err
	}
	t := v.Initializer
	fits := t.DataType == dt && len(t.Dims) == len(dims)
	for j := range dims {
		fits = fits && (dims[j] < 0 || t.Dims[j] == dims[j])
	}
	if !fits {
		return nil, nil, fmt.Errorf("its %s %q is %v %v, want %v %v", cudaops.Inputs()[i], v.Name, t.DataType, t.Dims, dt, dims)
	}
	b, err := t.Bytes()
	return b, t.Dims, err
}

func (r *linearReader) initializer(i int) (*onnx.Value, error) {
	v := r.values.input(r.linear.Node, i)
	if v == nil || v.Initializer == nil || r.values.overridable(v) {
		return nil, fmt.Errorf("its %s %q is no constant initializer", cudaops.Inputs()[i], r.linear.Node.Inputs[i])
	}
	r.linear.stored[i] = v
	return v, nil
}
