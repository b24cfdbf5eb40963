package onnx

import "fmt"

// DataType is the element type of a tensor, with the numbers of
// TensorProto.DataType.
type DataType int32

// The data types of ONNX.
const (
	Undefined      DataType = 0
	Float          DataType = 1 // float32
	Uint8          DataType = 2
	Int8           DataType = 3
	Uint16         DataType = 4
	Int16          DataType = 5
	Int32          DataType = 6
	Int64          DataType = 7
	String         DataType = 8
	Bool           DataType = 9
	Float16        DataType = 10
	Double         DataType = 11
	Uint32         DataType = 12
	Uint64         DataType = 13
	Complex64      DataType = 14
	Complex128     DataType = 15
	BFloat16       DataType = 16
	Float8E4M3FN   DataType = 17
	Float8E4M3FNUZ DataType = 18
	Float8E5M2     DataType = 19
	Float8E5M2FNUZ DataType = 20
	Uint4          DataType = 21
	Int4           DataType = 22
	Float4E2M1     DataType = 23
	Float8E8M0     DataType = 24
	Uint2          DataType = 25
	Int2           DataType = 26
	Float6E2M3     DataType = 27
	Float6E3M2     DataType = 28
)

var dataTypes = [...]struct {
	name string
	bits int
}{
	Undefined: {"undefined", 0}, Float: {"float", 32}, Uint8: {"uint8", 8}, Int8: {"int8", 8},
	Uint16: {"uint16", 16}, Int16: {"int16", 16}, Int32: {"int32", 32}, Int64: {"int64", 64},
	String: {"string", 0}, Bool: {"bool", 8}, Float16: {"float16", 16}, Double: {"double", 64},
	Uint32: {"uint32", 32}, Uint64: {"uint64", 64}, Complex64: {"complex64", 64},
	Complex128: {"complex128", 128}, BFloat16: {"bfloat16", 16}, Float8E4M3FN: {"float8e4m3fn", 8},
	Float8E4M3FNUZ: {"float8e4m3fnuz", 8}, Float8E5M2: {"float8e5m2", 8}, Float8E5M2FNUZ: {"float8e5m2fnuz", 8},
	Uint4: {"uint4", 4}, Int4: {"int4", 4}, Float4E2M1: {"float4e2m1", 4}, Float8E8M0: {"float8e8m0", 8},
	Uint2: {"uint2", 2}, Int2: {"int2", 2}, Float6E2M3: {"float6e2m3", 6}, Float6E3M2: {"float6e3m2", 6},
}

func (d DataType) known() bool { return d > Undefined && int(d) < len(dataTypes) }

// String returns the name ONNX uses in type strings, such as "float16", or
// "datatype(99)" for a number this package does not know.
func (d DataType) String() string {
	if d == Undefined || d.known() {
		return dataTypes[d].name
	}
	return fmt.Sprintf("datatype(%d)", int32(d))
}

// Bits returns the bits of one element in raw form: 4 for int4, 32 for float.
// It is 0 for strings and unknown types, which have no raw form.
func (d DataType) Bits() int {
	if d.known() {
		return dataTypes[d].bits
	}
	return 0
}

// IsFloat reports whether d is a real floating-point type.
func (d DataType) IsFloat() bool {
	switch d {
	case Float, Float16, BFloat16, Double, Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ,
		Float8E8M0, Float4E2M1, Float6E2M3, Float6E3M2:
		return true
	}
	return false
}

// String returns the name of t as onnx.proto spells it, such as "INTS".
func (t AttributeType) String() string {
	names := [...]string{"UNDEFINED", "FLOAT", "INT", "STRING", "TENSOR", "GRAPH", "FLOATS", "INTS", "STRINGS",
		"TENSORS", "GRAPHS", "SPARSE_TENSOR", "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS"}
	if t >= 0 && int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("attributetype(%d)", int32(t))
}
