package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Bytes returns the data in raw form, whatever form they are stored in: a view
// as [Tensor.RawBytes] does where that is possible, else a new slice.
func (t *Tensor) Bytes() ([]byte, error) {
	b, err := t.rawBytes()
	if !errors.Is(err, ErrNotRaw) {
		if err != nil {
			return nil, t.fail(err)
		}
		return b, nil
	}
	a, err := t.access()
	if err != nil {
		return nil, t.fail(err)
	}
	if t.Data == nil && a.bits == 8 && t.DataType.Bits() == 6 {
		return t.packSix(a)
	}
	b = make([]byte, a.size())
	if err := a.read(b, 0); err != nil {
		return nil, t.fail(err)
	}
	return b, nil
}

// packSix turns 6-bit codes stored one to a number into their raw form.
func (t *Tensor) packSix(a *access) ([]byte, error) {
	codes := make([]byte, a.size())
	if err := a.read(codes, 0); err != nil {
		return nil, t.fail(err)
	}
	b := make([]byte, (len(codes)*6+7)/8+1) // one more, for the spill of the last code
	for i, c := range codes {
		v := uint16(c&0x3f) << (i * 6 % 8)
		b[i*6/8] |= byte(v)
		b[i*6/8+1] |= byte(v >> 8)
	}
	return b[:len(b)-1], nil
}

// WriteRaw writes the data in raw form to w, piece by piece, and returns the
// bytes written.
func (t *Tensor) WriteRaw(w io.Writer) (int64, error) {
	if t.Data != nil {
		if want, err := t.ByteSize(); err != nil {
			return 0, t.fail(err)
		} else if t.Data.Size() != want {
			return 0, t.fail(fmt.Errorf("%w: %v %v needs %d bytes, its Data announces %d", ErrTensorSize, t.DataType, short(t.Dims), want, t.Data.Size()))
		}
		return writePart(w, part{data: t.Data})
	}
	if b, err := t.rawBytes(); !errors.Is(err, ErrNotRaw) {
		if err != nil {
			return 0, t.fail(err)
		}
		return writeBytes(w, b)
	}
	if t.DataType.Bits() == 6 {
		b, err := t.Bytes()
		if err != nil {
			return 0, err
		}
		return writeBytes(w, b)
	}
	a, err := t.access()
	if err != nil {
		return 0, t.fail(err)
	}
	var total int64
	buf := make([]byte, min(64<<10, a.size()))
	for total < a.size() {
		b := buf[:min(int64(len(buf)), a.size()-total)]
		if err := a.read(b, total); err != nil {
			return total, t.fail(err)
		}
		n, err := w.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Validate checks that the data are there and have the size that shape and type
// ask for. Raw and external data are not read for it; integers in typed fields
// are counted.
func (t *Tensor) Validate() error {
	if t.DataType == String {
		n, err := t.NumElements()
		if err == nil && t.doc != nil && t.doc.isClosed() {
			err = ErrClosed
		}
		if err == nil && int64(len(t.StringData)) != n {
			err = fmt.Errorf("%w: string %v needs %d strings, string_data has %d", ErrTensorSize, short(t.Dims), n, len(t.StringData))
		}
		if err != nil {
			return t.fail(err)
		}
		return nil
	}
	if _, err := t.access(); err != nil {
		return t.fail(err)
	}
	return nil
}

// access reads the data of a tensor in raw form, from any storage.
type access struct {
	n    int64  // elements
	bits int    // of one element
	raw  []byte // all data, or nil
	fill func(dst []byte, from int64) error
	buf  []byte // what eachRange has filled
	// touched is made of what touch has read.
	touched byte
}

func (a *access) size() int64 { return (a.n*int64(a.bits) + 7) / 8 }

// read fills dst with the raw bytes from byte from on. Both ends lie on element
// boundaries, or on bytes for elements below one.
func (a *access) read(dst []byte, from int64) error {
	if a.fill != nil {
		return a.fill(dst, from)
	}
	copy(dst, a.raw[from:])
	return nil
}

func (t *Tensor) access() (*access, error) {
	n, err := t.NumElements()
	if err != nil {
		return nil, err
	}
	a := &access{n: n, bits: t.DataType.Bits()}
	if t.Data != nil {
		if want, err := rawSize(t.DataType, n); err != nil {
			return nil, err
		} else if t.Data.Size() != want {
			return nil, fmt.Errorf("%w: %v %v needs %d bytes, its Data announces %d", ErrTensorSize, t.DataType, short(t.Dims), want, t.Data.Size())
		}
		a.fill = func(dst []byte, from int64) error { return readData(t.Data, dst, from) }
		return a, nil
	}
	a.raw, err = t.rawBytes()
	if !errors.Is(err, ErrNotRaw) {
		return a, err
	}
	switch t.DataType {
	case Float:
		err = typed(a, &t.FloatData, "float_data", 4, n, func(b []byte, v float32) {
			binary.LittleEndian.PutUint32(b, math.Float32bits(v))
		})
	case Complex64:
		err = typed(a, &t.FloatData, "float_data", 4, 2*n, func(b []byte, v float32) {
			binary.LittleEndian.PutUint32(b, math.Float32bits(v))
		})
	case Double:
		err = typed(a, &t.DoubleData, "double_data", 8, n, putFloat64)
	case Complex128:
		err = typed(a, &t.DoubleData, "double_data", 8, 2*n, putFloat64)
	case Int64:
		err = typed(a, &t.Int64Data, "int64_data", 8, n, func(b []byte, v int64) {
			binary.LittleEndian.PutUint64(b, uint64(v))
		})
	case Uint64:
		err = typed(a, &t.Uint64Data, "uint64_data", 8, n, binary.LittleEndian.PutUint64)
	case Uint32:
		err = typed(a, &t.Uint64Data, "uint64_data", 4, n, func(b []byte, v uint64) {
			binary.LittleEndian.PutUint32(b, uint32(v))
		})
	default:
		if a.bits == 6 {
			a.bits = 8 // one code to a number, see onnx.proto
		}
		switch width := (a.bits + 7) / 8; width {
		case 1:
			err = typed(a, &t.Int32Data, "int32_data", 1, a.size(), func(b []byte, v int32) { b[0] = byte(v) })
		case 2:
			err = typed(a, &t.Int32Data, "int32_data", 2, n, func(b []byte, v int32) {
				binary.LittleEndian.PutUint16(b, uint16(v))
			})
		default:
			err = typed(a, &t.Int32Data, "int32_data", 4, n, func(b []byte, v int32) {
				binary.LittleEndian.PutUint32(b, uint32(v))
			})
		}
	}
	return a, err
}

func putFloat64(b []byte, v float64) { binary.LittleEndian.PutUint64(b, math.Float64bits(v)) }

// typed makes a read from a typed field in which each number stands for width
// bytes of the raw form.
func typed[T float32 | float64 | int32 | int64 | uint64](a *access, p *Packed[T], name string, width int, want int64, put func([]byte, T)) error {
	have, err := p.Len()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if have != want {
		return fmt.Errorf("%w: needs %d numbers, %s has %d, and there is no raw_data", ErrTensorSize, want, name, have)
	}
	a.fill = func(dst []byte, from int64) error {
		var buf [512]T
		next := from / int64(width)
		for len(dst) > 0 {
			v := buf[:min(len(buf), len(dst)/width)]
			if err := p.Read(v, next); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for i, x := range v {
				put(dst[i*width:], x)
			}
			dst, next = dst[len(v)*width:], next+int64(len(v))
		}
		return nil
	}
	return nil
}

// readData reads a range of what a Data produces.
func readData(d Data, dst []byte, from int64) error {
	if r, ok := d.(io.ReaderAt); ok {
		n, err := r.ReadAt(dst, from)
		if n == len(dst) {
			return nil
		}
		return err
	}
	w := &rangeWriter{dst: dst, skip: from}
	if _, err := d.WriteTo(w); err != nil && !errors.Is(err, errHaveRange) {
		return err
	}
	if len(w.dst) > 0 {
		return fmt.Errorf("%w: the Data of the tensor wrote less than it announced", ErrTensorSize)
	}
	return nil
}

var errHaveRange = errors.New("range complete")

// rangeWriter keeps one range of what is written to it.
type rangeWriter struct {
	dst  []byte
	skip int64
}

func (w *rangeWriter) Write(b []byte) (int, error) {
	drop := min(w.skip, int64(len(b)))
	w.skip -= drop
	n := copy(w.dst, b[drop:])
	w.dst = w.dst[n:]
	if len(w.dst) == 0 && w.skip == 0 {
		return len(b), errHaveRange
	}
	return len(b), nil
}

// Strings returns the elements of a string tensor.
func (t *Tensor) Strings() ([]string, error) {
	if t.DataType != String {
		return nil, t.fail(fmt.Errorf("%w %v: not strings", ErrDataType, t.DataType))
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	s := make([]string, len(t.StringData))
	for i, b := range t.StringData {
		s[i] = string(b)
	}
	return s, nil
}
