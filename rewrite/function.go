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
	packed bool // digits that share an element, or do not use all its values
	turned bool // a rotation
}

// formsOf returns what the codes of a matrix need.
func formsOf(m *quant.Matrix) forms {
	l := quant.LayoutOf(m.Codec)
	f := forms{padded: m.Tiles()*m.Tile != m.N || m.Groups*lattice.GroupSize != m.K, turned: m.Rotation != nil}
	for _, s := range l.Slots {
		f.packed = f.packed || s.Divisor != 1 || s.Modulus != 1<<(8*l.ElementBytes)
	}
	return f
}

func (f forms) or(g forms) forms {
	return forms{f.padded || g.padded, f.packed || g.packed, f.turned || g.turned}
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
// Memory while loading is what shapes it. ONNX Runtime folds the decoders of all nodes in one pass and keeps every value
// that it computed until the pass is over. So all that can be done on the small tables is done there: level weights and
// centre are worked into one table, whose rows the digits then name, and gains are unpacked by a table of all bytes. What
// is left of values as large as the weight, in bytes per weight for two levels of D4: digits 5, leaders 8, and 4 for each
// of their combination and its reshape; packed digits cost 4 more, padding 16.
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
	b.ints("three", 3)
	b.ints("column", -1, 1)
	b.ints("last_pair", 1, 1)
	if b.opset >= 10 {
		b.ints("origin", 0, 0)
		b.ints("column_axis_first", 1, 0)
		b.ints("all_rows", maxShapeRows)
		b.integerParameter("size", cudaops.AttrShape, onnx.Int64) // (N, K)
	}
	b.parameter("level_weights", cudaops.AttrLevelWeights)
	b.unary("Shape", "levels", "level_weights")
}

// table builds the value "table", [M·rows, d]: row r of the codebook as level m uses it, times the level's weight and less
// its part of the centre, stands at m·rows + r.
func (b *body) table() {
	b.unary("Shape", "codebook_shape", cudaops.InputCodebook)
	b.binary("Gather", "rows", "codebook_shape", "zero", onnx.IntAttr("axis", 0))
	b.binary("Gather", "dimension", "codebook_shape", "one", onnx.IntAttr("axis", 0))
	b.cast("codebook_float", cudaops.InputCodebook, onnx.Float)
	b.ints("level_axis", -1, 1, 1)
	b.binary("Mul", "weighted", b.binary("Reshape", "level_weights_3", "level_weights", "level_axis"), "codebook_float") // [M, rows, d]
	b.op("Concat", "centre_shape", []string{"any", "dimension"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "centres", b.parameter("centre", cudaops.AttrCentre), "centre_shape") // every block has the same
	b.binary("Gather", "block_centre", "centres", "zero", onnx.IntAttr("axis", 0))
	b.binary("Div", "centre_part", "block_centre", b.cast("levels_float", "levels", onnx.Float))
	b.binary("Sub", "table_by_level", "weighted", "centre_part")
	b.binary("Reshape", "table", "table_by_level", "centre_shape")
	// The number of a level is the number of smaller level weights.
	b.binary("Reshape", "level_column", "level_weights", "column")
	b.cast("smaller_float", b.binary("Greater", "smaller", "level_column", "level_weights"), onnx.Float)
	b.sum("level_number", "smaller_float", "one", 1)
	b.binary("Mul", "level_start_float", "level_number", b.cast("rows_float", "rows", onnx.Float))
	b.cast("level_start", b.binary("Reshape", "level_start_column", "level_start_float", "column"), onnx.Int32) // [M, 1]
}

// points decodes the digits: value "centred", [tiles, T, G, 8/d, d].
func (b *body) points() {
	b.table()
	b.unary("Transpose", "by_row", cudaops.InputCodes, onnx.IntsAttr("perm", 0, 3, 1, 2)) // [tiles, T, G, E]
	b.integerParameter("slots", cudaops.AttrSlots, onnx.Int32)
	b.op("Concat", "slots_shape", []string{b.ints("slot_fields", cudaops.SlotFields), "levels", "any"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "slots_by_level", "slots", "slots_shape") // [4, M, 8/d]
	field := func(name string, row int64) string {
		return b.binary("Gather", name, "slots_by_level", b.index(name+"_row", row), onnx.IntAttr("axis", 0))
	}
	b.cast("slot_element_long", field("slot_element", cudaops.SlotElement), onnx.Int64)
	b.binary("Gather", "element_byte", "by_row", "slot_element_long", onnx.IntAttr("axis", 3)) // [tiles, T, G, M, 8/d]
	b.cast("element", "element_byte", onnx.Int32)
	digit := "element"
	if b.forms.packed {
		b.binary("Div", "shifted", "element", field("slot_divisor", cudaops.SlotDivisor))
		digit = b.mod("digit", "shifted", field("slot_modulus", cudaops.SlotModulus))
	}
	b.binary("Add", "slot_start", field("slot_base", cudaops.SlotBase), "level_start")
	b.binary("Add", "entry", digit, "slot_start")
	b.binary("Gather", "parts", "table", "entry", onnx.IntAttr("axis", 0)) // [tiles, T, G, M, 8/d, d]
	if !b.einsum() {
		b.sum("centred", "parts", "three", 3)
	}
}

// einsum reports whether one Einsum takes the place of sum, gains and transposition. It exists from opset 12, and wants a factor
// for every row of the tiles.
func (b *body) einsum() bool { return b.opset >= 12 && !b.forms.padded }

// gains unpacks the gain of every group: value "gain", [tiles, T, G, 1, 1], or all ones with a single gain.
func (b *body) gains() {
	bytes := make([]int64, 256)
	for i := range bytes {
		bytes[i] = int64(i)
	}
	b.cast("every_byte", b.binary("Reshape", "every_byte_column", b.ints("every_byte_long", bytes...), "column"), onnx.Int32)
	b.integerParameter("gain_divisors", cudaops.AttrGainDivisors, onnx.Int32)
	b.binary("Div", "gain_shifted", "every_byte", "gain_divisors")
	b.parameter("gain_values", cudaops.AttrGainValues)
	b.cast("gain_count", b.unary("Shape", "gain_values_shape", "gain_values"), onnx.Int32)
	b.mod("gain_index", "gain_shifted", "gain_count")
	b.binary("Gather", "gains_of_byte", "gain_values", "gain_index", onnx.IntAttr("axis", 0)) // [256, p]

	b.unary("Transpose", "gains_by_row", cudaops.InputGains, onnx.IntsAttr("perm", 0, 2, 1)) // [tiles, T, bytes]
	b.unary("Shape", "gain_byte_shape", "gains_by_row")
	b.cast("gain_bytes", "gains_by_row", onnx.Int32)
	b.binary("Gather", "gain_unpacked", "gains_of_byte", "gain_bytes", onnx.IntAttr("axis", 0)) // [tiles, T, bytes, p]
	b.unary("Shape", "gain_divisor_count", "gain_divisors")
	b.ints("two", 2)
	b.binary("Gather", "gain_width_bytes", "gain_byte_shape", "two", onnx.IntAttr("axis", 0))
	b.binary("Mul", "gain_width", "gain_width_bytes", "gain_divisor_count")
	b.op("Concat", "gain_rows", []string{"any", "gain_width"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "gain_by_row", "gain_unpacked", "gain_rows")
	b.unary("Shape", "codes_shape", cudaops.InputCodes)
	b.binary("Gather", "groups", "codes_shape", "one", onnx.IntAttr("axis", 0))
	if b.opset >= 10 {
		b.op("Concat", "group_size", []string{"all_rows", "groups"}, onnx.IntAttr("axis", 0))
	}
	b.head("gain_exact", "gain_by_row", "group_size", cudaops.AttrShapeGroupsInts)
	b.binary("Gather", "gain_tiles", "gain_byte_shape", b.ints("first_two", 0, 1), onnx.IntAttr("axis", 0))
	b.op("Concat", "gain_shape", []string{"gain_tiles", "any", "last_pair"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "gain", "gain_exact", "gain_shape")
}

// weight puts the groups back into rows of Wᵀ, drops the padding and scales the columns: value [K, N].
func (b *body) weight() string {
	b.scales()
	factor := "gain"
	if !b.forms.padded { // one scale for every row of the tiles: work it into the gains, which are smaller than the weight
		b.binary("Gather", "code_tiles", "codes_shape", b.ints("first_and_last", 0, 3), onnx.IntAttr("axis", 0)) // a single gain has no rows
		b.op("Concat", "tile_shape", []string{"code_tiles", "last_pair", "one"}, onnx.IntAttr("axis", 0))
		factor = b.binary("Mul", "factor", "gain", b.binary("Reshape", "scale_by_tile", "scale", "tile_shape"))
	}
	if b.einsum() { // t tile, n row, g group, m level, b block, d place; group g holds columns g, g+G, …
		b.op("Einsum", "turned", []string{"parts", factor}, onnx.StringAttr("equation", "tngmbd,tngxy->bdgtn"))
	} else {
		b.binary("Mul", "grouped", "centred", factor)
		b.unary("Transpose", "turned", "grouped", onnx.IntsAttr("perm", 3, 4, 2, 0, 1))
	}
	b.binary("Mul", "padded_columns", "groups", b.ints("eight", cudaops.GroupSize))
	b.op("Concat", "padded_shape", []string{"padded_columns", "any"}, onnx.IntAttr("axis", 0))
	if !b.forms.padded {
		return b.binary("Reshape", "scaled", "turned", "padded_shape") // [8·G, tiles·T] = [K, N]
	}
	b.binary("Reshape", "padded", "turned", "padded_shape")
	b.crop("unscaled", "padded")
	return b.binary("Mul", "scaled", "unscaled", "scale")
}

// scales unpacks the scales of the rows: value "scale", [N].
func (b *body) scales() {
	b.cast("scale_bytes", cudaops.InputScaleIndex, onnx.Int32)
	b.binary("Reshape", "scale_bytes_column", "scale_bytes", "column")
	b.integerParameter("scale_divisors", cudaops.AttrScaleDivisors, onnx.Int32)
	b.binary("Div", "scale_shifted", "scale_bytes_column", "scale_divisors")
	b.cast("table_size", b.ints("table_size_long", cudaops.ScaleTableSize), onnx.Int32)
	b.mod("scale_entry", "scale_shifted", "table_size")
	b.cast("scales_float", cudaops.InputScales, onnx.Float)
	b.binary("Gather", "scale_gathered", "scales_float", "scale_entry", onnx.IntAttr("axis", 0))
	b.binary("Reshape", "scale_all", "scale_gathered", "any") // N, or N+1 of them
	if b.opset >= 10 {
		b.binary("Gather", "matrix_rows", "size", "zero", onnx.IntAttr("axis", 0))
		b.op("Slice", "scale", []string{"scale_all", "zero", "matrix_rows"})
	} else {
		b.unary("Slice", "scale", "scale_all", onnx.IntsAttr("starts", 0), onnx.IntsAttr("axes", 0),
			onnx.RefAttr("ends", cudaops.AttrRowsInts, onnx.AttrInts))
	}
}
