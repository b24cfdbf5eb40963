package rewrite

import (
	"fmt"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
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
	nodes []*onnx.Node
}

func (b *body) op(op, out string, inputs []string, attrs ...*onnx.Attribute) string {
	b.nodes = append(b.nodes, onnx.NewNode(op, inputs, []string{out}, attrs...))
	return out
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

// head keeps the first rows and columns of a matrix: the sizes stand in the attribute sizes or, before opset 10, ints.
func (b *body) head(out, in, sizes, ints string) string {
	if b.opset >= 10 {
		return b.op("Slice", out, []string{in, "origin", sizes})
	}
	return b.unary("Slice", out, in, onnx.IntsAttr("starts", 0, 0), onnx.RefAttr("ends", ints, onnx.AttrInts))
}

// mod is x mod y of whole numbers that are not negative.
func (b *body) mod(out, x, y string) string {
	quotient := b.binary("Div", out+"_quotient", x, y)
	return b.binary("Sub", out, x, b.binary("Mul", out+"_whole", quotient, y))
}

// newFunction returns the model-local function ai.coset::HNLQLinear for models of the given opset: the decoder of
// docs/format.md in standard operators, then MatMul and Add. Every value is shrunk, or replaced by a narrower one, as early
// as possible, since runtimes that fold constants hold each of them once.
func newFunction(opset int64) (*onnx.Function, error) {
	if opset < MinOpset || opset > MaxOpset {
		return nil, fmt.Errorf("rewrite: the model uses opset %d; the decoder is written for %d to %d: convert the model to one of these", opset, MinOpset, MaxOpset)
	}
	b := &body{opset: opset}
	b.constants()
	b.points()
	b.gains()
	b.weight()
	b.op("MatMul", "product", []string{cudaops.InputA, "weight"})
	b.op("Add", cudaops.OutputY, []string{"product", cudaops.InputBias})
	f := &onnx.Function{
		Domain: cudaops.Domain, Name: cudaops.OpName,
		Inputs: cudaops.Inputs(), Outputs: []string{cudaops.OutputY},
		Attributes: functionAttributes(opset), Nodes: b.nodes,
		DocString: "Y = A * transpose(W) + bias with W decoded from nested-lattice codes; the native kernel of the same name replaces it.",
	}
	f.SetOpset("", opset)
	return f, nil
}

// functionAttributes leaves out the shape attributes that the other opsets need.
func functionAttributes(opset int64) []string {
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
		default:
			names = append(names, name)
		}
	}
	return names
}

func (b *body) constants() {
	b.ints("any", -1)
	b.ints("two", 2)
	b.ints("column", -1, 1)
	if b.opset >= 10 {
		b.ints("origin", 0, 0)
		b.integerParameter("size", cudaops.AttrShape, onnx.Int64)
		b.ints("all_rows", maxShapeRows)
	}
}

// points decodes the digits: value "centred", [rows', G, 8], where rows' counts the rows of whole tiles.
func (b *body) points() {
	b.unary("Transpose", "by_row", cudaops.InputCodes, onnx.IntsAttr("perm", 0, 3, 1, 2)) // [tiles, T, G, E]
	elements := b.cast("elements", "by_row", onnx.Int32)
	b.integerParameter("slots", cudaops.AttrSlots, onnx.Int32)
	field := func(name string, row int64) string {
		return b.binary("Gather", name, "slots", b.index(name+"_row", row), onnx.IntAttr("axis", 0))
	}
	element := b.binary("Gather", "element", elements, field("slot_element", cudaops.SlotElement), onnx.IntAttr("axis", 3)) // [tiles, T, G, S]
	shifted := b.binary("Div", "shifted", element, field("slot_divisor", cudaops.SlotDivisor))
	digit := b.mod("digit", shifted, field("slot_modulus", cudaops.SlotModulus))
	entry := b.binary("Add", "entry", digit, field("slot_base", cudaops.SlotBase))
	b.binary("Gather", "leaders", cudaops.InputCodebook, entry, onnx.IntAttr("axis", 0)) // [tiles, T, G, S, d]

	b.unary("Shape", "by_row_shape", "by_row")
	b.binary("Gather", "groups", "by_row_shape", "two", onnx.IntAttr("axis", 0))
	b.parameter("level_weights", cudaops.AttrLevelWeights)
	b.unary("Shape", "levels", "level_weights")
	b.ints("eight", 8)
	b.op("Concat", "level_shape", []string{"any", "groups", "levels", "eight"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "leaders_by_level", "leaders", "level_shape") // [rows', G, M, 8]
	b.cast("leaders_float", "leaders_by_level", onnx.Float)
	b.binary("Reshape", "level_column", "level_weights", "column")
	b.binary("Mul", "weighted", "leaders_float", "level_column")
	if b.opset >= 13 {
		b.binary("ReduceSum", "point", "weighted", "two", onnx.IntAttr("keepdims", 0))
	} else {
		b.unary("ReduceSum", "point", "weighted", onnx.IntsAttr("axes", 2), onnx.IntAttr("keepdims", 0))
	}
	b.parameter("centre", cudaops.AttrCentre)
	b.binary("Sub", "centred", "point", "centre")
}

// gains unpacks the gain of every group: value "gain", [rows', G, 1], or [1, 1, 1] with a single gain.
func (b *body) gains() {
	b.unary("Transpose", "gains_by_row", cudaops.InputGains, onnx.IntsAttr("perm", 0, 2, 1)) // [tiles, T, bytes]
	b.cast("gain_bytes", "gains_by_row", onnx.Int32)
	b.ints("append_axis", 0, 0, -1, 1)
	b.binary("Reshape", "gain_bytes_column", "gain_bytes", "append_axis")
	b.integerParameter("gain_divisors", cudaops.AttrGainDivisors, onnx.Int32)
	b.binary("Div", "gain_shifted", "gain_bytes_column", "gain_divisors") // [tiles, T, bytes, p]
	b.parameter("gain_values", cudaops.AttrGainValues)
	b.cast("gain_count", b.unary("Shape", "gain_values_shape", "gain_values"), onnx.Int32)
	b.mod("gain_index", "gain_shifted", "gain_count")
	b.binary("Gather", "gain_unpacked", "gain_values", "gain_index", onnx.IntAttr("axis", 0))
	b.ints("merge_last", 0, 0, -1)
	b.binary("Reshape", "gain_by_tile", "gain_unpacked", "merge_last") // [tiles, T, bytes·p]
	b.unary("Shape", "gain_shape", "gain_by_tile")
	b.binary("Gather", "gain_width", "gain_shape", "two", onnx.IntAttr("axis", 0))
	b.op("Concat", "gain_rows", []string{"any", "gain_width"}, onnx.IntAttr("axis", 0))
	b.binary("Reshape", "gain_by_row", "gain_by_tile", "gain_rows")
	if b.opset >= 10 {
		b.op("Concat", "group_size", []string{"all_rows", "groups"}, onnx.IntAttr("axis", 0))
	}
	b.head("gain_exact", "gain_by_row", "group_size", cudaops.AttrShapeGroupsInts)
	b.ints("append_to_row", 0, -1, 1)
	b.binary("Reshape", "gain", "gain_exact", "append_to_row")
}

// weight puts the groups back into columns, drops the padding and scales the rows: value "weight", [K, N].
func (b *body) weight() {
	b.binary("Mul", "grouped", "centred", "gain")
	b.unary("Transpose", "columns", "grouped", onnx.IntsAttr("perm", 0, 2, 1)) // group g holds columns g, g+G, …
	b.ints("flat_rows", 0, -1)
	b.binary("Reshape", "padded", "columns", "flat_rows")
	b.head("unscaled", "padded", "size", cudaops.AttrShapeInts)

	b.cast("scale_bytes", cudaops.InputScaleIndex, onnx.Int32)
	b.binary("Reshape", "scale_bytes_column", "scale_bytes", "column")
	b.integerParameter("scale_divisors", cudaops.AttrScaleDivisors, onnx.Int32)
	b.binary("Div", "scale_shifted", "scale_bytes_column", "scale_divisors")
	b.cast("table_size", b.ints("table_size_long", cudaops.ScaleTableSize), onnx.Int32)
	b.mod("scale_entry", "scale_shifted", "table_size")
	b.cast("scales_float", cudaops.InputScales, onnx.Float)
	b.binary("Gather", "scale_gathered", "scales_float", "scale_entry", onnx.IntAttr("axis", 0))
	b.binary("Reshape", "scale_column", "scale_gathered", "column") // [N or N+1, 1]
	if b.opset >= 10 {
		b.ints("zero", 0)
		b.binary("Gather", "rows", "size", "zero", onnx.IntAttr("axis", 0))
		b.op("Slice", "scale", []string{"scale_column", "zero", "rows"})
	} else {
		b.unary("Slice", "scale", "scale_column", onnx.IntsAttr("starts", 0), onnx.IntsAttr("axes", 0),
			onnx.RefAttr("ends", cudaops.AttrRowsInts, onnx.AttrInts))
	}
	b.binary("Mul", "scaled", "unscaled", "scale")
	b.unary("Transpose", "weight_float", "scaled", onnx.IntsAttr("perm", 1, 0))
	b.unary("Cast", "weight", "weight_float", onnx.RefAttr("to", cudaops.AttrComputeType, onnx.AttrInt))
}
