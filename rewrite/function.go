package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// The opsets of the default domain that the function body is written for.
const (
	MinOpset = 7
	MaxOpset = 25
)

// body writes the nodes of the function. Runtimes inline it at the model's opset, so it uses operators whose form did
// not change from opset 7 to 25. Where a form did change, both are written: Slice takes inputs from opset 10, ReduceSum
// from 13, and a Constant of integers exists from 9.
type body struct {
	opset int64
	forms forms
	nodes []*onnx.Node
}

// forms says which forms of codes a function must be able to read. What none of its nodes needs is left out, since each
// step costs memory while loading.
type forms struct {
	padded bool // rows or columns past the end of a matrix
	ragged bool // gains or scales past the last, in the last byte
	packed bool // digits that share an element, or do not use all its values
	turned bool // a rotation

	largest, total int64 // weights of the largest matrix and of all
}

// lone reports whether one matrix is so much of a model that the memory which its Einsum takes for a while counts for more than two values more of every
// matrix: 17 bytes per weight of the one against 8 of all.
func (f forms) lone() bool { return f.largest > f.total/2 }

// formsOf returns what the codes of a matrix need.
func formsOf(m *quant.Matrix) forms {
	l := quant.LayoutOf(m.Codec)
	f := forms{padded: m.Tiles()*m.Tile != m.N || m.Groups*lattice.GroupSize != m.K, turned: m.Rotation != nil}
	f.total = int64(m.N) * int64(m.K)
	f.largest = f.total
	f.ragged = m.Groups%len(l.GainDivisors) != 0 || len(m.Scales) != m.N && m.N%2 != 0 || f.padded
	for _, s := range l.Slots {
		f.packed = f.packed || s.Divisor != 1 || s.Modulus != 1<<(8*l.ElementBytes)
	}
	return f
}

func (f forms) or(g forms) forms {
	return forms{f.padded || g.padded, f.ragged || g.ragged, f.packed || g.packed, f.turned || g.turned, max(f.largest, g.largest), f.total + g.total}
}

func (b *body) op(op, out string, inputs []string, attrs ...*onnx.Attribute) string {
	b.nodes = append(b.nodes, onnx.NewNode(op, inputs, []string{out}, attrs...))
	return out
}

// used returns the nodes, without those that a value does not need.
func (b *body) used(value string) []*onnx.Node {
	needed := map[string]bool{value: true}
	for _, n := range slices.Backward(b.nodes) {
		if needed[n.Outputs[0]] {
			for _, in := range n.Inputs {
				needed[in] = true
			}
		}
	}
	return slices.DeleteFunc(b.nodes, func(n *onnx.Node) bool { return !needed[n.Outputs[0]] })
}

func (b *body) unary(op, out, in string, attrs ...*onnx.Attribute) string {
	return b.op(op, out, []string{in}, attrs...)
}

func (b *body) binary(op, out, x, y string, attrs ...*onnx.Attribute) string {
	return b.op(op, out, []string{x, y}, attrs...)
}

func (b *body) cast(out, in string, to onnx.DataType) string {
	return b.unary("Cast", out, in, onnx.IntAttr("to", int64(to)))
}

// ints is a constant list of int64; index a constant scalar.
func (b *body) ints(out string, v ...int64) string { return b.integers(out, []int64{int64(len(v))}, v) }

func (b *body) index(out string, v int64) string { return b.integers(out, nil, []int64{v}) }

// int32 is a constant of one int32.
func (b *body) int32(out string, v int32) string {
	if b.opset >= 9 {
		return b.op("Constant", out, nil, onnx.TensorAttr("value", onnx.NewTensor("", []int64{1}, []int32{v})))
	}
	return b.cast(out, b.ints(out+"_long", int64(v)), onnx.Int32)
}

func (b *body) integers(out string, dims, v []int64) string {
	if b.opset >= 9 {
		return b.op("Constant", out, nil, onnx.TensorAttr("value", onnx.NewTensor("", dims, v)))
	}
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = float32(x)
	}
	b.op("Constant", out+"_f", nil, onnx.TensorAttr("value", onnx.NewTensor("", dims, f)))
	return b.cast(out, out+"_f", onnx.Int64)
}

// parameter is the value of a tensor attribute of the node.
func (b *body) parameter(out, name string) string {
	return b.op("Constant", out, nil, onnx.RefAttr("value", name, onnx.AttrTensor))
}

// integerParameter is a tensor attribute of small integers, which travel as float.
func (b *body) integerParameter(out, name string, to onnx.DataType) string {
	return b.cast(out, b.parameter(out+"_f", name), to)
}

// typedParameter is a tensor attribute of small integers that travel as themselves where a Constant can hold them.
func (b *body) typedParameter(out, name string, to onnx.DataType) string {
	if b.opset < 9 {
		return b.integerParameter(out, name, to)
	}
	return b.parameter(out, name)
}

// head keeps the first columns of a matrix: the sizes are the value sizes or, before opset 10, the attribute ints.
func (b *body) head(out, in, sizes, ints string) string {
	if b.opset >= 10 {
		return b.op("Slice", out, []string{in, "origin", sizes})
	}
	return b.unary("Slice", out, in, onnx.IntsAttr("starts", 0, 0), onnx.RefAttr("ends", ints, onnx.AttrInts))
}

// crop keeps the first K rows and N columns of a matrix. The sizes stand in the attribute as (N, K).
func (b *body) crop(out, in string) string {
	if b.opset >= 10 {
		return b.op("Slice", out, []string{in, "origin", "size", "column_axis_first"})
	}
	return b.unary("Slice", out, in, onnx.IntsAttr("starts", 0, 0), onnx.IntsAttr("axes", 1, 0),
		onnx.RefAttr("ends", cudaops.AttrShapeInts, onnx.AttrInts))
}

// sum adds along one axis, which it removes. The axis is the constant value axis from opset 13 on.
func (b *body) sum(out, in, axisValue string, axis int64) string {
	if b.opset >= 13 {
		return b.binary("ReduceSum", out, in, axisValue, onnx.IntAttr("keepdims", 0))
	}
	return b.unary("ReduceSum", out, in, onnx.IntsAttr("axes", axis), onnx.IntAttr("keepdims", 0))
}

// mod is x mod y of whole numbers that are not negative.
func (b *body) mod(out, x, y string) string {
	if b.opset >= 10 {
		return b.binary("Mod", out, x, y)
	}
	quotient := b.binary("Div", out+"_quotient", x, y)
	return b.binary("Sub", out, x, b.binary("Mul", out+"_whole", quotient, y))
}

// newFunction returns the model-local function ai.coset::HNLQLinear for models of the given opset: the decoder of
// docs/format.md in standard operators, then MatMul and Add.
//
// Loading is what shapes it. ONNX Runtime keeps the nodes that are ready in a sorted list, which it walks for every other one: its time is the
// product of all nodes of a model and those of them that only constants feed. So what is known when a node is written is an attribute of it, and the
// forms leave out what no node needs. And ONNX Runtime folds the decoders of all nodes in one pass and keeps every value that it computed until the pass
// is over. So all that can be done on the small tables is done there: level weights and centre are worked into one table, whose rows the digits then name,
// and gains are unpacked by a table of all bytes. What is left of values as large as the weight, in bytes per weight for two levels of D4: digits 5,
// leaders 8, and 4 for each of their combination and its reshape; packed digits cost 4 more, padding 8.
func newFunction(opset int64, f forms) *onnx.Function {
	b := &body{opset: opset, forms: f}
	b.unary("Cast", "weight", b.decoded(), onnx.RefAttr("to", cudaops.AttrComputeType, onnx.AttrInt))
	b.op("MatMul", "product", []string{cudaops.InputA, "weight"})
	b.op("Add", cudaops.OutputY, []string{"product", cudaops.InputBias})
	fn := &onnx.Function{
		Domain: cudaops.Domain, Name: cudaops.OpName,
		Inputs: functionInputs(f), Outputs: []string{cudaops.OutputY},
		Attributes: functionAttributes(opset, f), Nodes: b.used(cudaops.OutputY),
		DocString: "Y = A * transpose(W) + bias with W decoded from nested-lattice codes; the native kernel of the same name replaces it.",
	}
	fn.SetOpset("", opset)
	return fn
}

// decoded is Wᵀ [K, N] in float32.
func (b *body) decoded() string {
	b.constants()
	b.gains()
	b.points()
	weight := b.weight()
	if b.forms.turned {
		weight = b.turnBack(weight)
	}
	return weight
}

// functionInputs leaves out the signs where no node has a rotation.
func functionInputs(f forms) []string {
	if f.turned {
		return cudaops.Inputs()
	}
	return cudaops.Inputs()[:cudaops.PlainInputs]
}

// functionAttributes leaves out the attributes that only other opsets, or a rotation, need.
func functionAttributes(opset int64, f forms) []string {
	var names []string
	for _, name := range cudaops.Attributes() {
		switch name {
		case cudaops.AttrShape:
			if opset >= 10 {
				names = append(names, name)
			}
		case cudaops.AttrShapeInts, cudaops.AttrRowsInts, cudaops.AttrShapeGroupsInts:
			if opset < 10 {
				names = append(names, name)
			}
		case cudaops.AttrRotation:
			if f.turned {
				names = append(names, name)
			}
		case cudaops.AttrRotationInts, cudaops.AttrColumnsInts:
			if f.turned && opset < 10 {
				names = append(names, name)
			}
		default:
			names = append(names, name)
		}
	}
	return names
}

func (b *body) constants() {
	b.ints("any", -1)
	b.ints("zero", 0)
	b.ints("one", 1)
	b.ints("column", -1, 1)
	if b.opset >= 10 {
		b.ints("origin", 0, 0)
		b.ints("column_axis_first", 1, 0)
		b.ints("all_rows", maxShapeRows)
		b.integerParameter("size", cudaops.AttrShape, onnx.Int64) // (N, K)
	}
}

// table builds the value "table", [M·rows, d]: row r of the codebook as level m uses it, times the level's weight and less
// its part of the centre, stands at m·rows + r.
func (b *body) table() {
	b.cast("codebook_float", cudaops.InputCodebook, onnx.Float)
	b.binary("Mul", "weighted", b.parameter("table_factors", cudaops.AttrTableFactors), "codebook_float") // [M, rows, d]
	b.binary("Sub", "table_by_level", "weighted", b.parameter("table_shift", cudaops.AttrTableShift))
	b.unary("Flatten", "table", "table_by_level", onnx.IntAttr("axis", 2))
}

// points decodes the digits: value "parts", [M, 8/d, G, rows, d].
func (b *body) points() {
	b.table()
	b.typedParameter("table_rows", cudaops.AttrTableRows, onnx.Int32)                         // [M, 8/d, 1, 1]
	b.unary("Transpose", "by_element", cudaops.InputCodes, onnx.IntsAttr("perm", 2, 1, 0, 3)) // [E, G, tiles, T]
	digit := b.digits()
	b.binary("Add", "entry", digit, "table_rows")
	b.binary("Gather", "parts", "table", "entry", onnx.IntAttr("axis", 0))
}

// digits are the digits, [M, 8/d, G, rows]: the elements themselves where each is one digit.
func (b *body) digits() string {
	if !b.forms.packed {
		b.binary("Reshape", "digit_byte", "by_element", b.typedParameter("digits_shape", cudaops.AttrDigitsShape, onnx.Int64))
		return b.cast("digit", "digit_byte", onnx.Int32)
	}
	b.unary("Shape", "slot_shape", "table_rows")
	b.op("Concat", "slots_shape", []string{b.ints("slot_fields", cudaops.SlotFields), "slot_shape"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "slots_by_level", b.integerParameter("slots", cudaops.AttrSlots, onnx.Int32), "slots_shape") // [4, M, 8/d, 1, 1]
	field := func(name string, row int64) string {
		return b.binary("Gather", name, "slots_by_level", b.index(name+"_row", row), onnx.IntAttr("axis", 0))
	}
	b.binary("Reshape", "slot_element", field("slot_element_padded", cudaops.SlotElement), b.ints("first_two", 0, 0))
	b.binary("Reshape", "element_rows", "by_element", b.ints("join_rows", 0, 0, -1))            // [E, G, rows]
	b.binary("Gather", "element_byte", "element_rows", "slot_element", onnx.IntAttr("axis", 0)) // [M, 8/d, G, rows]
	b.cast("element", "element_byte", onnx.Int32)
	b.binary("Div", "shifted", "element", field("slot_divisor", cudaops.SlotDivisor))
	return b.mod("digit", "shifted", field("slot_modulus", cudaops.SlotModulus))
}

// gains unpacks the gain of every group: value "gain", [rows, G], or a single one.
func (b *body) gains() {
	bytes := make([]float32, 256)
	for i := range bytes {
		bytes[i] = float32(i)
	}
	b.op("Constant", "every_byte", nil, onnx.TensorAttr("value", onnx.NewTensor("", []int64{256, 1}, bytes)))
	b.parameter("gain_values", cudaops.AttrGainValues)
	b.binary("Div", "gain_shifted", "every_byte", b.parameter("gain_divisors", cudaops.AttrGainDivisors))
	b.cast("gain_index", "gain_shifted", onnx.Int32)
	b.binary("Tile", "gain_cycle", "gain_values", b.ints("cycles", 256))                     // what is above an index in its byte counts for nothing
	b.binary("Gather", "gains_of_byte", "gain_cycle", "gain_index", onnx.IntAttr("axis", 0)) // [256, p]

	b.unary("Transpose", "gains_by_row", cudaops.InputGains, onnx.IntsAttr("perm", 0, 2, 1)) // [tiles, T, bytes]
	b.cast("gain_bytes", "gains_by_row", onnx.Int32)
	b.binary("Gather", "gain_unpacked", "gains_of_byte", "gain_bytes", onnx.IntAttr("axis", 0)) // [tiles, T, bytes, p]
	if !b.forms.ragged {
		b.unary("Flatten", "gain", "gain_unpacked", onnx.IntAttr("axis", 2))
		return
	}
	b.unary("Flatten", "gain_by_row", "gain_unpacked", onnx.IntAttr("axis", 2))
	if b.opset >= 10 {
		b.unary("Shape", "codes_shape", cudaops.InputCodes)
		b.binary("Gather", "groups", "codes_shape", "one", onnx.IntAttr("axis", 0))
		b.op("Concat", "group_size", []string{"all_rows", "groups"}, onnx.IntAttr("axis", 0))
	}
	b.head("gain", "gain_by_row", "group_size", cudaops.AttrShapeGroupsInts)
}

// weight puts the groups back into rows of Wᵀ, drops the padding and scales the columns: value [K, N].
func (b *body) weight() string {
	b.scales()
	factor := "gain"
	if !b.forms.padded { // one scale for every row of the tiles: work it into the gains, which are smaller than the weight
		column := "scale"
		if b.forms.ragged {
			column = b.binary("Reshape", "scale_column", "scale", "column")
		}
		factor = b.binary("Mul", "factor", "gain", column)
	}
	// m level, b block, g group, n row, d place; group g holds columns g, g+G, …
	if b.opset >= 12 && !b.forms.lone() {
		b.op("Einsum", "turned", []string{"parts", factor}, onnx.StringAttr("equation", "mbgnd,ng->bdgn"))
	} else { // not by an Einsum of the parts alone, which ONNX Runtime 1.24 gets wrong
		b.unary("Transpose", "centred", b.sum("centred_by_row", "parts", "zero", 0), onnx.IntsAttr("perm", 0, 3, 1, 2))
		b.binary("Mul", "turned", "centred", b.unary("Transpose", "factor_turned", factor, onnx.IntsAttr("perm", 1, 0)))
	}
	if !b.forms.padded {
		return b.unary("Flatten", "scaled", "turned", onnx.IntAttr("axis", 3)) // [8·G, rows] = [K, N]
	}
	b.unary("Flatten", "padded", "turned", onnx.IntAttr("axis", 3))
	b.crop("unscaled", "padded")
	return b.binary("Mul", "scaled", "unscaled", "scale")
}

// scales unpacks the scales of the rows: value "scale", [N], or [N, 1] where none is past the last.
func (b *body) scales() {
	b.cast("scale_bytes", cudaops.InputScaleIndex, onnx.Float)
	b.binary("Reshape", "scale_bytes_column", "scale_bytes", "column")
	b.binary("Div", "scale_shifted", "scale_bytes_column", b.parameter("scale_divisors", cudaops.AttrScaleDivisors))
	b.cast("scale_whole", "scale_shifted", onnx.Int32)
	b.mod("scale_entry", "scale_whole", b.int32("table_size", cudaops.ScaleTableSize))
	b.cast("scales_float", cudaops.InputScales, onnx.Float)
	b.binary("Gather", "scale_gathered", "scales_float", "scale_entry", onnx.IntAttr("axis", 0))
	if !b.forms.ragged {
		b.binary("Reshape", "scale", "scale_gathered", "column")
		return
	}
	b.binary("Reshape", "scale_all", "scale_gathered", "any") // N, or N+1 of them
	if b.opset >= 10 {
		b.binary("Gather", "matrix_rows", "size", "zero", onnx.IntAttr("axis", 0))
		b.op("Slice", "scale", []string{"scale_all", "zero", "matrix_rows"})
	} else {
		b.unary("Slice", "scale", "scale_all", onnx.IntsAttr("starts", 0), onnx.IntsAttr("axes", 0),
			onnx.RefAttr("ends", cudaops.AttrRowsInts, onnx.AttrInts))
	}
}
