package tensor

import (
	"fmt"
	"math"
)

// Type is an element type, numbered as TensorProto.DataType of ONNX (and as ONNX Runtime does).
type Type int32

// The element types by their ONNX numbers. Float16Type and BFloat16Type carry the suffix because [Float16] and
// [BFloat16] name the elements themselves.
const (
	Undefined    Type = 0
	Float32      Type = 1
	Uint8        Type = 2
	Int8         Type = 3
	Uint16       Type = 4
	Int16        Type = 5
	Int32        Type = 6
	Int64        Type = 7
	String       Type = 8
	Bool         Type = 9
	Float16Type  Type = 10
	Float64      Type = 11
	Uint32       Type = 12
	Uint64       Type = 13
	Complex64    Type = 14
	Complex128   Type = 15
	BFloat16Type Type = 16
)

var typeNames = [...]string{
	"undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64",
	"uint32", "uint64", "complex64", "complex128", "bfloat16",
	"float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1",
}

var typeSizes = [...]int{0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2, 1, 1, 1, 1}

// String is the name as NumPy would write it.
func (t Type) String() string {
	if t < 0 || int(t) >= len(typeNames) {
		return fmt.Sprintf("type %d", int32(t))
	}
	return typeNames[t]
}

// Size is the bytes of one element; 0 for strings, sub-byte and unknown types.
func (t Type) Size() int {
	if t < 0 || int(t) >= len(typeSizes) {
		return 0
	}
	return typeSizes[t]
}

// Float tells whether elements are real floating-point numbers of 16 bits or more.
func (t Type) Float() bool {
	return t == Float32 || t == Float64 || t == Float16Type || t == BFloat16Type
}

// Integer tells whether elements are whole numbers of 8 bits or more.
func (t Type) Integer() bool {
	return t >= Uint8 && t <= Int64 || t == Uint32 || t == Uint64
}

func typeOf[T Element]() Type {
	var zero T
	switch any(zero).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case Float16:
		return Float16Type
	case BFloat16:
		return BFloat16Type
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case bool:
		return Bool
	}
	return Undefined
}

// Float16 is the bits of an IEEE 754 binary16 number.
type Float16 uint16

// Float32 is the exact value.
func (h Float16) Float32() float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h & 0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac × 2^-24
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// ToFloat16 rounds to nearest, ties to even; too large becomes infinite.
func ToFloat16(v float32) Float16 {
	bits := math.Float32bits(v)
	sign := Float16(bits >> 16 & 0x8000)
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00
	case abs >= 0x477ff000: // 65520, halfway from the largest half to the next power of two
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: a multiple of 2^-24
		return sign | Float16(math.RoundToEven(float64(math.Float32frombits(abs))*(1<<24)))
	}
	abs -= 112 << 23
	return sign | Float16((abs+0xfff+(abs>>13&1))>>13)
}

// BFloat16 is the upper half of the bits of a float32.
type BFloat16 uint16

// Float32 is the exact value.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// ToBFloat16 rounds to nearest, ties to even.
func ToBFloat16(v float32) BFloat16 {
	bits := math.Float32bits(v)
	if bits&0x7fffffff > 0x7f800000 {
		return BFloat16(bits>>16 | 0x40) // stays a NaN
	}
	return BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}
