package rewrite

import (
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// turnBack undoes the rotation of a decoded weight, Wᵀ = diag(s)·blockdiag(H/√B)·decoded: runtimes fold that at load, and a
// run costs no more than without a rotation. H_ij is −1 to the number of bits that i and j share. It names a value [K, N].
func (b *body) turnBack(decoded string) string {
	one := b.op("Constant", "one_float", nil, onnx.TensorAttr("value", onnx.NewTensor("", []int64{1}, []float32{1})))
	b.int32("two_int", 2)
	b.cast("every_byte_int", "every_byte", onnx.Int32)
	b.cast("bit_values", b.ints("bit_values_long", 1, 2, 4, 8, 16, 32, 64, 128), onnx.Int32)
	b.parameter("block_float", cudaops.AttrRotation)
	b.cast("block", "block_float", onnx.Int64)

	b.first("index", "every_byte_int", "block", cudaops.AttrRotationInts)
	b.bits("index_bits", "index")
	b.unary("Transpose", "index_bits_turned", "index_bits", onnx.IntsAttr("perm", 1, 0))
	b.cast("shared_bits", b.binary("MatMul", "shared_bits_float", "index_bits", "index_bits_turned"), onnx.Int32)
	b.cast("odd_float", b.mod("odd", "shared_bits", "two_int"), onnx.Float)
	b.binary("Sub", "signs_of_block", one, b.binary("Add", "odd_twice", "odd_float", "odd_float"))
	b.binary("Div", "hadamard", "signs_of_block", b.unary("Sqrt", "block_root", "block_float")) // [B, B]

	b.cast("sign_bytes", cudaops.InputSigns, onnx.Int32)
	b.bits("sign_bits", b.binary("Reshape", "sign_bytes_column", "sign_bytes", "column"))
	b.binary("Sub", "signs_by_byte", one, b.binary("Add", "sign_bits_twice", "sign_bits", "sign_bits"))
	b.binary("Reshape", "signs_padded", "signs_by_byte", "column")
	columns := ""
	if b.opset >= 10 {
		columns = b.binary("Gather", "matrix_columns", "size", "one", onnx.IntAttr("axis", 0))
	}
	b.first("signs_column", "signs_padded", columns, cudaops.AttrColumnsInts) // [K, 1]

	b.unary("Shape", "decoded_shape", decoded)
	b.binary("Gather", "decoded_rows", "decoded_shape", "one", onnx.IntAttr("axis", 0))
	b.op("Concat", "blocks_shape", []string{"any", "block", "decoded_rows"}, onnx.IntAttr("axis", 0))
	b.binary("MatMul", "blocks_turned", "hadamard", b.binary("Reshape", "blocks", decoded, "blocks_shape")) // [K/B, B, N]
	return b.binary("Mul", "turned_back", b.binary("Reshape", "unsigned", "blocks_turned", "decoded_shape"), "signs_column")
}

// first keeps the first rows: as many as the value count says or, before opset 10, the attribute ints.
func (b *body) first(out, in, count, ints string) string {
	if b.opset >= 10 {
		return b.op("Slice", out, []string{in, "zero", count})
	}
	return b.unary("Slice", out, in, onnx.IntsAttr("starts", 0), onnx.IntsAttr("axes", 0), onnx.RefAttr("ends", ints, onnx.AttrInts))
}

// bits is a row of 8 bits, the lowest first, for each of a column of bytes [n, 1], as float.
func (b *body) bits(out, bytes string) string {
	return b.cast(out, b.mod(out+"_int", b.binary("Div", out+"_shifted", bytes, "bit_values"), "two_int"), onnx.Float)
}

// noRotation begins the names of the signs of weights without a rotation.
const noRotation = "no_rotation"

// Unturned bounds the bytes by which m would be larger if some of its coded weights needed no rotation: signs that those share would
// stand in the place of theirs, and may have a longer name.
func Unturned(m *onnx.Model) int64 {
	var bytes int64
	longest := len(noRotation + "_999")
	for _, s := range m.Scopes() {
		for _, n := range s.Nodes() {
			if isCoded(n) && len(n.Inputs) == maxInputs {
				bytes += 2 * int64(max(0, longest-len(n.Inputs[signsInput])))
			}
		}
	}
	return bytes
}

// rotationOf stores the rotation of m, none included, in g, and returns the name of its signs and its attributes.
func (e *editor) rotationOf(r *quant.Rotation, k int64, g *onnx.Graph, base string) (signs string, attributes []*onnx.Attribute) {
	block := int64(1)
	if r == nil {
		key := placed[int64]{k, g}
		if e.unsigned[key] == "" {
			e.unsigned[key] = e.addInitializer(g, noRotation, onnx.NewRawTensor("", onnx.Uint8, []int64{(k + 7) / 8}, make([]byte, (k+7)/8)))
			e.result.Bytes += (k + 7) / 8
		}
		signs = e.unsigned[key]
	} else {
		block = int64(r.Block)
		signs = e.addInitializer(g, base+".signs", onnx.NewRawTensor("", onnx.Uint8, []int64{int64(len(r.Signs))}, r.Signs))
	}
	attributes = append(attributes, onnx.TensorAttr(cudaops.AttrRotation, onnx.NewTensor("", []int64{1}, []float32{float32(block)})))
	if e.opset < 10 {
		attributes = append(attributes, onnx.IntsAttr(cudaops.AttrRotationInts, block), onnx.IntsAttr(cudaops.AttrColumnsInts, k))
	}
	return signs, attributes
}

// rotateAll gives the nodes that were there before, without a rotation, the inputs that the function now takes.
func (e *editor) rotateAll() {
	for _, s := range e.model.Scopes() {
		if s.Graph == nil {
			continue
		}
		for _, n := range s.Graph.Nodes {
			if !isCoded(n) || len(n.Inputs) != cudaops.PlainInputs {
				continue
			}
			signs, attributes := e.rotationOf(nil, n.Int(cudaops.AttrK, 0), s.Graph, "")
			n.Inputs = append(n.Inputs, signs)
			n.Attributes = append(n.Attributes, attributes...)
		}
	}
}
