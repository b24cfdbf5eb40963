package onnx

import (
	"math"
	"sync"
)

// Float16FromFloat32 rounds f to IEEE 754 binary16, to nearest, ties to even.
// Values beyond the range become infinity, small ones subnormal or zero; a NaN
// stays a (quiet) NaN with the top of its payload.
func Float16FromFloat32(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // rounds to 2^16 or more; includes infinity
		return sign | 0x7c00
	case b >= 0x38800000: // normal: rebias, then round by adding just under half, or half when odd
		b -= 112 << 23
		b += 0xfff + b>>13&1
		return sign | uint16(b>>13)
	case b <= 0x33000000: // at most 2^-25, half the smallest subnormal: even is zero
		return sign
	}
	// Subnormal: the value is mant * 2^(e-150), the unit 2^-24.
	shift := 126 - b>>23
	mant := b&0x7fffff | 0x800000
	half := uint32(1) << (shift - 1)
	q, rest := mant>>shift, mant&(half<<1-1)
	if rest > half || rest == half && q&1 == 1 {
		q++
	}
	return sign | uint16(q)
}

// Float16ToFloat32 converts IEEE 754 binary16 exactly.
func Float16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	bits := uint32(h&0x7fff) << 13
	if bits >= 0x1f<<23 { // infinity and NaN
		return math.Float32frombits(sign | 0xff<<23 | bits)
	}
	// Read as a float32 the exponent is 112 too small; multiplying by a power of
	// two repairs that exactly, for subnormals too.
	f := math.Float32frombits(bits) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(f))
}

// float16s are all float16 numbers, for whoever converts many.
var float16s = sync.OnceValue(func() *[1 << 16]float32 {
	var v [1 << 16]float32
	for h := range v {
		v[h] = Float16ToFloat32(uint16(h))
	}
	return &v
})

// BFloat16FromFloat32 rounds f to bfloat16, to nearest, ties to even. A NaN
// stays a (quiet) NaN.
func BFloat16FromFloat32(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// BFloat16ToFloat32 converts bfloat16 exactly.
func BFloat16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// smallFloat is a float format of at most 8 bits.
type smallFloat struct {
	exp, mant int // bits; the sign is above them
	bias      int
	inf       bool // the top exponent is infinity and NaN
	nanTop    bool // all ones is NaN
	nanNegZ   bool // minus zero is NaN
}

var smallFloats = map[DataType]smallFloat{
	Float8E4M3FN:   {exp: 4, mant: 3, bias: 7, nanTop: true},
	Float8E4M3FNUZ: {exp: 4, mant: 3, bias: 8, nanNegZ: true},
	Float8E5M2:     {exp: 5, mant: 2, bias: 15, inf: true},
	Float8E5M2FNUZ: {exp: 5, mant: 2, bias: 16, nanNegZ: true},
	Float4E2M1:     {exp: 2, mant: 1, bias: 1},
	Float6E2M3:     {exp: 2, mant: 3, bias: 1},
	Float6E3M2:     {exp: 3, mant: 2, bias: 3},
}

// decode returns the value of a code, by the definition of the format.
func (s smallFloat) decode(c int) float32 {
	nan := float32(math.NaN())
	signBit := 1 << (s.exp + s.mant)
	e, m := c>>s.mant&(1<<s.exp-1), c&(1<<s.mant-1)
	neg := c&signBit != 0
	var v float64
	switch {
	case s.nanNegZ && c == signBit:
		return nan
	case s.nanTop && c&(signBit-1) == signBit-1:
		return nan
	case s.inf && e == 1<<s.exp-1:
		if m != 0 {
			return nan
		}
		v = math.Inf(1)
	case e == 0:
		v = math.Ldexp(float64(m), 1-s.bias-s.mant)
	default:
		v = math.Ldexp(float64(m|1<<s.mant), e-s.bias-s.mant)
	}
	if neg {
		v = math.Copysign(v, -1)
	}
	return float32(v)
}

// codeTables holds the float32 of every code of the types of at most 8 bits.
var codeTables = makeCodeTables()

func makeCodeTables() map[DataType]*[256]float32 {
	tables := make(map[DataType]*[256]float32)
	fill := func(dt DataType, f func(c int) float32) {
		t := new([256]float32)
		for c := range t {
			t[c] = f(c & (1<<dt.Bits() - 1))
		}
		tables[dt] = t
	}
	for dt, s := range smallFloats {
		fill(dt, s.decode)
	}
	fill(Float8E8M0, func(c int) float32 {
		if c == 255 {
			return float32(math.NaN())
		}
		return float32(math.Ldexp(1, c-127))
	})
	unsigned := func(c int) float32 { return float32(c) }
	fill(Uint8, unsigned)
	fill(Uint4, unsigned)
	fill(Uint2, unsigned)
	fill(Bool, func(c int) float32 { return float32(min(c, 1)) })
	fill(Int8, func(c int) float32 { return float32(int8(c)) })
	fill(Int4, func(c int) float32 { return float32(int8(c<<4) >> 4) })
	fill(Int2, func(c int) float32 { return float32(int8(c<<6) >> 6) })
	return tables
}
