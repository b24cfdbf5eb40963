package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Float32s returns all elements as float32. Float types of at most 16 bits and
// integers below 2^24 convert exactly, wider ones are rounded to nearest; bool
// becomes 0 or 1. The error wraps [ErrDataType] for strings and complex numbers.
func (t *Tensor) Float32s() ([]float32, error) {
	n, err := t.checkFloat()
	if err != nil {
		return nil, t.fail(err)
	}
	v := make([]float32, n)
	return v, t.Float32Range(v, 0, n)
}

// checkFloat validates before anything of the announced size is allocated.
func (t *Tensor) checkFloat() (int64, error) {
	switch t.DataType {
	case String, Complex64, Complex128:
		return 0, fmt.Errorf("%w %v: it has no float32 form", ErrDataType, t.DataType)
	}
	a, err := t.access()
	if err != nil {
		return 0, err
	}
	return a.n, nil
}

// Float32Range writes the elements from index from up to, but not including, to,
// in row-major order, into dst, as [Tensor.Float32s] converts them. It reads only
// that range, so a tensor of any size can be gone through with a small dst.
func (t *Tensor) Float32Range(dst []float32, from, to int64) error {
	if room := int64(len(dst)); to-from > room {
		return t.fail(fmt.Errorf("elements %d to %d do not fit a slice of %d", from, to, room))
	}
	return t.Float32Runs(dst[:max(to-from, 0)], from, to-from, 0)
}

// Float32Runs fills dst with runs of n elements, one after the other, as
// [Tensor.Float32Range] reads each: the first begins at index from, each of the
// others stride elements after the one before. Some columns of a matrix are such runs.
func (t *Tensor) Float32Runs(dst []float32, from, n, stride int64) error {
	switch t.DataType {
	case String, Complex64, Complex128:
		return t.fail(fmt.Errorf("%w %v: it has no float32 form", ErrDataType, t.DataType))
	}
	if n < 0 || (n == 0 && len(dst) > 0) || (n > 0 && int64(len(dst))%n != 0) {
		return t.fail(fmt.Errorf("runs of %d elements do not fill a slice of %d", n, len(dst)))
	}
	a, err := t.access()
	if err != nil {
		return t.fail(err)
	}
	if err := a.check(from, from+n); err != nil {
		return t.fail(err)
	}
	run := dst
	convert := func(at int64, raw []byte, first, n int) error {
		toFloat32(run[at:at+int64(n)], t.DataType, a.bits, raw, first)
		return nil
	}
	if n > 0 && stride > n {
		a.touch(from, n, stride, int64(len(dst))/n)
	}
	for ; len(dst) > 0; dst, from = dst[n:], from+stride {
		run = dst[:n]
		if err := a.eachRange(from, from+n, convert); err != nil {
			return t.fail(err)
		}
	}
	return nil
}

// Int64s returns all elements of an integer or bool tensor. The error wraps
// [ErrDataType] for other types, and for a uint64 beyond the range of int64.
func (t *Tensor) Int64s() ([]int64, error) {
	switch t.DataType {
	case Int64, Int32, Int16, Int8, Int4, Int2, Uint64, Uint32, Uint16, Uint8, Uint4, Uint2, Bool:
	default:
		return nil, t.fail(fmt.Errorf("%w %v: not integers", ErrDataType, t.DataType))
	}
	a, err := t.access()
	if err != nil {
		return nil, t.fail(err)
	}
	v := make([]int64, a.n)
	err = a.eachRange(0, a.n, func(at int64, raw []byte, first, n int) error {
		return toInt64(v[at:at+int64(n)], t.DataType, a.bits, raw, first)
	})
	if err != nil {
		return nil, t.fail(err)
	}
	return v, nil
}

// touch reads a byte of every cache line of runs of n elements that are stored far from each other, if they are in memory, so that they come
// from there at the same time: converted one after the other, each would be waited for.
func (a *access) touch(from, n, stride, runs int64) {
	const line, most = 64, 64 << 10 // bytes; what the first-level and second-level cache keep
	if a.fill != nil || runs*n*int64(a.bits)/8 > most {
		return
	}
	var all byte
	for ; runs > 0 && from <= a.n-n; runs-- {
		end := ((from+n)*int64(a.bits) + 7) / 8
		for at := from * int64(a.bits) / 8; at < end; at += line {
			all |= a.raw[at]
		}
		all |= a.raw[end-1]
		from += min(stride, a.n) // from which on there is nothing
	}
	a.touched = all // so that it is read
}

// check reports whether there are elements from to to-1.
func (a *access) check(from, to int64) error {
	if from < 0 || to < from || to > a.n {
		return fmt.Errorf("elements %d to %d asked for, it has %d", from, to, a.n)
	}
	return nil
}

// eachRange calls f for pieces of the elements from..to: n elements that start
// with element first of raw and go to index at of the destination.
func (a *access) eachRange(from, to int64, f func(at int64, raw []byte, first, n int) error) error {
	if err := a.check(from, to); err != nil {
		return err
	}
	const step = 8 << 10 // elements, a multiple of what shares bytes
	for i := from; i < to; {
		// From the start of the group of 4 elements, the smallest that begins on
		// a byte for every width.
		group := i / 4 * 4
		end := min(to, group+step)
		lo, hi := group*int64(a.bits)/8, (end*int64(a.bits)+7)/8
		var raw []byte
		if a.fill == nil {
			raw = a.raw[lo:hi]
		} else {
			if int64(cap(a.buf)) < hi-lo {
				a.buf = make([]byte, hi-lo)
			}
			raw = a.buf[:hi-lo]
			if err := a.fill(raw, lo); err != nil {
				return err
			}
		}
		if err := f(i-from, raw, int(i-group), int(end-i)); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// code returns the i-th element of bits <= 8 bits.
func code(raw []byte, bits, i int) byte {
	if bits == 8 {
		return raw[i]
	}
	at := i * bits
	v := uint16(raw[at/8])
	if at/8+1 < len(raw) {
		v |= uint16(raw[at/8+1]) << 8
	}
	return byte(v>>(at%8)) & (1<<bits - 1)
}

// toFloat32 converts len(dst) elements, the first at index first of raw.
func toFloat32(dst []float32, dt DataType, bits int, raw []byte, first int) {
	if bits <= 8 {
		table := codeTables[dt]
		for i := range dst {
			dst[i] = table[code(raw, bits, first+i)]
		}
		return
	}
	raw = raw[first*bits/8:]
	le := binary.LittleEndian
	switch dt {
	case Float:
		for i := range dst {
			dst[i] = math.Float32frombits(le.Uint32(raw[4*i:]))
		}
	case Float16:
		table := float16s()
		for len(dst) >= 4 && len(raw) >= 8 {
			four := le.Uint64(raw)
			dst[0], dst[1], dst[2], dst[3] = table[uint16(four)], table[uint16(four>>16)], table[uint16(four>>32)], table[uint16(four>>48)]
			dst, raw = dst[4:], raw[8:]
		}
		for i := range dst {
			dst[i] = table[le.Uint16(raw[2*i:])]
		}
	case BFloat16:
		for i := range dst {
			dst[i] = BFloat16ToFloat32(le.Uint16(raw[2*i:]))
		}
	case Double:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(le.Uint64(raw[8*i:])))
		}
	case Int16:
		for i := range dst {
			dst[i] = float32(int16(le.Uint16(raw[2*i:])))
		}
	case Uint16:
		for i := range dst {
			dst[i] = float32(le.Uint16(raw[2*i:]))
		}
	case Int32:
		for i := range dst {
			dst[i] = float32(int32(le.Uint32(raw[4*i:])))
		}
	case Uint32:
		for i := range dst {
			dst[i] = float32(le.Uint32(raw[4*i:]))
		}
	case Int64:
		for i := range dst {
			dst[i] = float32(int64(le.Uint64(raw[8*i:])))
		}
	case Uint64:
		for i := range dst {
			dst[i] = float32(le.Uint64(raw[8*i:]))
		}
	}
}

// toInt64 is toFloat32 for integers.
func toInt64(dst []int64, dt DataType, bits int, raw []byte, first int) error {
	if bits <= 8 {
		table := codeTables[dt]
		for i := range dst {
			dst[i] = int64(table[code(raw, bits, first+i)])
		}
		return nil
	}
	raw = raw[first*bits/8:]
	le := binary.LittleEndian
	for i := range dst {
		switch dt {
		case Int16:
			dst[i] = int64(int16(le.Uint16(raw[2*i:])))
		case Uint16:
			dst[i] = int64(le.Uint16(raw[2*i:]))
		case Int32:
			dst[i] = int64(int32(le.Uint32(raw[4*i:])))
		case Uint32:
			dst[i] = int64(le.Uint32(raw[4*i:]))
		case Int64:
			dst[i] = int64(le.Uint64(raw[8*i:]))
		case Uint64:
			v := le.Uint64(raw[8*i:])
			if v > math.MaxInt64 {
				return fmt.Errorf("%w uint64: %d does not fit int64", ErrDataType, v)
			}
			dst[i] = int64(v)
		}
	}
	return nil
}
