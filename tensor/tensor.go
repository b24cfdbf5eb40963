// Package tensor holds the values that go into a model and come out of it: an element type, a shape, and bytes.
//
// It is the common tongue of ort (which runs models), calib (which reads data) and eval (which judges outputs), so that
// none of them imports another for a type. It computes nothing; weights stored in a model file are onnx's business.
package tensor

import (
	"fmt"
	"math"
	"strings"
	"unsafe"
)

// Tensor is a dense array in row-major order.
type Tensor struct {
	Type  Type
	Shape []int64 // no dimension is negative; empty means a scalar
	Data  []byte  // little-endian elements; Count() × Type.Size() bytes
}

// Element lists the Go types that elements can be seen as.
type Element interface {
	float32 | float64 | Float16 | BFloat16 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

// maxBytes bounds the size of a tensor, well below what Go panics at: user space is 2^47 bytes on x86-64.
const maxBytes = min(1<<47, math.MaxInt)

// New makes a tensor of zeros. It fails for string and sub-byte types, for negative dimensions, and for a size that
// no slice can hold.
func New(t Type, shape ...int64) (*Tensor, error) {
	size := t.Size()
	if size == 0 {
		return nil, fmt.Errorf("tensor: elements of type %s have no fixed size in bytes", t)
	}
	n, err := Count(shape)
	if err != nil {
		return nil, err
	}
	if n > maxBytes/int64(size) {
		return nil, fmt.Errorf("tensor: shape %s of %s is larger than the address space", FormatShape(shape), t)
	}
	// Backed by 8-byte words, so that a view of any element type is aligned.
	words := make([]uint64, (n*int64(size)+7)/8)
	t8 := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	return &Tensor{Type: t, Shape: append([]int64{}, shape...), Data: t8[:n*int64(size)]}, nil
}

// Of wraps data, without copying it, as a tensor of the given shape. It panics when their sizes differ, as that is a
// mistake in the calling code.
func Of[T Element](data []T, shape ...int64) *Tensor {
	n, err := Count(shape)
	if err != nil || n != int64(len(data)) {
		panic(fmt.Sprintf("tensor: %d elements do not fill shape %s", len(data), FormatShape(shape)))
	}
	var zero T
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), len(data)*int(unsafe.Sizeof(zero)))
	return &Tensor{Type: typeOf[T](), Shape: append([]int64{}, shape...), Data: raw}
}

// View gives the elements as a Go slice that shares the tensor's memory.
func View[T Element](t *Tensor) ([]T, error) {
	if want := typeOf[T](); t.Type != want {
		return nil, fmt.Errorf("tensor: holds %s, asked for %s", t.Type, want)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), len(t.Data)/t.Type.Size()), nil
}

// Count is the number of elements.
func (t *Tensor) Count() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Check tells whether the fields agree with each other.
func (t *Tensor) Check() error {
	n, err := Count(t.Shape)
	if err != nil {
		return err
	}
	if size := int64(t.Type.Size()); size == 0 || int64(len(t.Data))%size != 0 || int64(len(t.Data))/size != n {
		return fmt.Errorf("tensor: %d bytes do not fill shape %s of %s", len(t.Data), FormatShape(t.Shape), t.Type)
	}
	return nil
}

// Floats converts elements from up to but excluding to into dst, which must hold to−from values.
// Integers and booleans convert to their value; strings, complex and 8-bit float types are refused.
func (t *Tensor) Floats(dst []float64, from, to int64) error {
	switch t.Type {
	case Float32:
		return floats[float32](dst, t, from, to, func(v float32) float64 { return float64(v) })
	case Float64:
		return floats(dst, t, from, to, func(v float64) float64 { return v })
	case Float16Type:
		return floats(dst, t, from, to, func(v Float16) float64 { return float64(v.Float32()) })
	case BFloat16Type:
		return floats(dst, t, from, to, func(v BFloat16) float64 { return float64(v.Float32()) })
	case Int8:
		return floats(dst, t, from, to, func(v int8) float64 { return float64(v) })
	case Int16:
		return floats(dst, t, from, to, func(v int16) float64 { return float64(v) })
	case Int32:
		return floats(dst, t, from, to, func(v int32) float64 { return float64(v) })
	case Int64:
		return floats(dst, t, from, to, func(v int64) float64 { return float64(v) })
	case Uint8:
		return floats(dst, t, from, to, func(v uint8) float64 { return float64(v) })
	case Uint16:
		return floats(dst, t, from, to, func(v uint16) float64 { return float64(v) })
	case Uint32:
		return floats(dst, t, from, to, func(v uint32) float64 { return float64(v) })
	case Uint64:
		return floats(dst, t, from, to, func(v uint64) float64 { return float64(v) })
	case Bool:
		return floats(dst, t, from, to, func(v bool) float64 {
			if v {
				return 1
			}
			return 0
		})
	}
	return fmt.Errorf("tensor: %s elements have no value as a number here", t.Type)
}

func floats[T Element](dst []float64, t *Tensor, from, to int64, value func(T) float64) error {
	all, err := View[T](t)
	if err != nil {
		return err
	}
	if from < 0 || to < from || to > int64(len(all)) || int64(len(dst)) < to-from {
		return fmt.Errorf("tensor: elements %d to %d asked of %d into %d places", from, to, len(all), len(dst))
	}
	for i, v := range all[from:to] {
		dst[i] = value(v)
	}
	return nil
}

// Converted returns the numbers of t as float32 or float16.
func (t *Tensor) Converted(to Type) (*Tensor, error) {
	values := make([]float64, t.Count())
	if err := t.Floats(values, 0, int64(len(values))); err != nil {
		return nil, err
	}
	switch to {
	case Float32:
		return converted(values, t.Shape, func(v float64) float32 { return float32(v) }), nil
	case Float16Type:
		return converted(values, t.Shape, func(v float64) Float16 { return ToFloat16(float32(v)) }), nil
	}
	return nil, fmt.Errorf("tensor: numbers are converted to float32 and float16, not to %s", to)
}

func converted[T Element](values []float64, shape []int64, to func(float64) T) *Tensor {
	list := make([]T, len(values))
	for i, v := range values {
		list[i] = to(v)
	}
	return Of(list, shape...)
}

// Count is the number of elements of a shape. Negative dimensions and overflow are errors.
func Count(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor: shape %s has a negative dimension", FormatShape(shape))
		}
		if d != 0 && n > math.MaxInt64/d {
			return 0, fmt.Errorf("tensor: shape %s has more elements than can be counted", FormatShape(shape))
		}
		n *= d
	}
	return n, nil
}

// FormatShape writes a shape as [2,3,4].
func FormatShape(shape []int64) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = fmt.Sprint(d)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// ArgMax is the place of the largest value, the first of equals.
func ArgMax[T float32 | float64](values []T) int {
	best := 0
	for i, v := range values {
		if v > values[best] {
			best = i
		}
	}
	return best
}
