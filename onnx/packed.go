package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// Packed is a repeated numeric field of a tensor as it lies in the file; its
// numbers are decoded when they are asked for. It is immutable: to change the
// field, assign the result of [Pack].
type Packed[T float32 | float64 | int32 | int64 | uint64] struct {
	wire  []byte       // packed protobuf payload
	index *varintIndex // nil for the fixed-width types
}

// packedField is what decoding and encoding need to know of a Packed.
type packedField interface {
	payload() []byte
	set([]byte)
	wireType() protowire.Type // of one element
}

// varintIndex remembers where every indexStep-th varint starts, so that a range
// in the middle of a huge field is found without reading all before it.
type varintIndex struct {
	once  sync.Once
	start []int
	n     int
	err   error
}

const indexStep = 1024

func (x *varintIndex) build(b []byte) {
	x.once.Do(func() {
		begin := true
		for i, c := range b {
			if begin {
				if x.n%indexStep == 0 {
					x.start = append(x.start, i)
				}
				x.n++
			}
			begin = c < 0x80
		}
		if !begin {
			x.err = ErrTruncated
		}
	})
}

// Pack returns the field that holds v.
func Pack[T float32 | float64 | int32 | int64 | uint64](v ...T) Packed[T] {
	var p Packed[T]
	if len(v) == 0 {
		return p
	}
	var b []byte
	for _, x := range v {
		switch x := any(x).(type) {
		case float32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		case float64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
		case int32:
			b = protowire.AppendVarint(b, uint64(int64(x)))
		case int64:
			b = protowire.AppendVarint(b, uint64(x))
		case uint64:
			b = protowire.AppendVarint(b, x)
		}
	}
	p.set(b)
	return p
}

func (p *Packed[T]) payload() []byte { return p.wire }

func (p *Packed[T]) set(b []byte) {
	p.wire, p.index = b, nil
	if p.wireType() == protowire.VarintType && len(b) > 0 {
		p.index = new(varintIndex)
	}
}

func (p *Packed[T]) wireType() protowire.Type {
	var x T
	switch any(x).(type) {
	case float32:
		return protowire.Fixed32Type
	case float64:
		return protowire.Fixed64Type
	}
	return protowire.VarintType
}

// Len counts the numbers. For integers that reads the whole field once. The
// error wraps [ErrTruncated] when the field ends inside a number.
func (p Packed[T]) Len() (int64, error) {
	switch p.wireType() {
	case protowire.Fixed32Type:
		return fixedLen(p.wire, 4)
	case protowire.Fixed64Type:
		return fixedLen(p.wire, 8)
	}
	if len(p.wire) == 0 {
		return 0, nil
	}
	p.index.build(p.wire)
	return int64(p.index.n), p.index.err
}

func fixedLen(b []byte, width int) (int64, error) {
	if len(b)%width != 0 {
		return 0, fmt.Errorf("%d bytes of %d-byte numbers: %w", len(b), width, ErrTruncated)
	}
	return int64(len(b) / width), nil
}

// Values decodes all numbers.
func (p Packed[T]) Values() ([]T, error) {
	n, err := p.Len()
	if err != nil {
		return nil, err
	}
	v := make([]T, n)
	return v, p.Read(v, 0)
}

// Read fills dst with the numbers from index from on. Reading past the end is
// an error wrapping [ErrTruncated].
func (p Packed[T]) Read(dst []T, from int64) error {
	n, err := p.Len()
	if err != nil {
		return err
	}
	if from < 0 || from > n || int64(len(dst)) > n-from {
		return fmt.Errorf("numbers %d to %d of %d: %w", from, from+int64(len(dst)), n, ErrTruncated)
	}
	if len(dst) == 0 {
		return nil
	}
	switch d := any(dst).(type) {
	case []float32:
		b := p.wire[from*4:]
		for i := range d {
			d[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case []float64:
		b := p.wire[from*8:]
		for i := range d {
			d[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
	case []int32:
		return readVarints(d, p.wire, p.index, from)
	case []int64:
		return readVarints(d, p.wire, p.index, from)
	case []uint64:
		return readVarints(d, p.wire, p.index, from)
	}
	return nil
}

func readVarints[T int32 | int64 | uint64](dst []T, wire []byte, x *varintIndex, from int64) error {
	b := wire[x.start[from/indexStep]:]
	for i := -(from % indexStep); i < int64(len(dst)); i++ {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return fmt.Errorf("number %d: %w", from+i, ErrWire)
		}
		if i >= 0 {
			dst[i] = T(v)
		}
		b = b[n:]
	}
	return nil
}
