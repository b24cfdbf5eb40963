//go:build cgo && linux

package ort_test

import (
	"math/rand/v2"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// sweep makes nodes with random attributes, types and inputs.
type sweep struct {
	*rand.Rand
	half  bool // floats are float16
	empty bool // some dimensions are 0
	opset int64
	attrs []*onnx.Attribute
}

func (s *sweep) coin() bool             { return s.IntN(2) == 0 }
func (s *sweep) rare() bool             { return s.IntN(4) == 0 }
func (s *sweep) oneOf(n ...int64) int64 { return n[s.IntN(len(n))] }
func (s *sweep) between(low, high int64) int64 {
	return low + s.Int64N(high-low+1)
}
func (s *sweep) name(names ...string) string { return names[s.IntN(len(names))] }

// many gives n numbers.
func (s *sweep) many(n int, low, high int64) []int64 {
	v := make([]int64, n)
	for i := range v {
		v[i] = s.between(low, high)
	}
	return v
}

func (s *sweep) dims(rank int) []int64 {
	v := s.many(rank, 1, 5)
	if s.empty && rank > 0 {
		v[s.IntN(rank)] = 0
	}
	return v
}

func product(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

// like makes floats of the type of the case.
func (s *sweep) like(v []float32, dims ...int64) *tensor.Tensor {
	if !s.half {
		return tensor.Of(v, dims...)
	}
	h := make([]tensor.Float16, len(v))
	for i := range v {
		h[i] = tensor.ToFloat16(v[i])
	}
	return tensor.Of(h, dims...)
}

func (s *sweep) floats(dims ...int64) *tensor.Tensor {
	v := make([]float32, product(dims))
	for i := range v {
		v[i] = float32(s.NormFloat64())
	}
	return s.like(v, dims...)
}

func (s *sweep) positive(dims ...int64) *tensor.Tensor {
	v := make([]float32, product(dims))
	for i := range v {
		v[i] = 0.1 + s.Float32()
	}
	return s.like(v, dims...)
}

// few makes floats of which many are alike.
func (s *sweep) few(dims ...int64) *tensor.Tensor {
	v := make([]float32, product(dims))
	for i := range v {
		v[i] = float32(s.IntN(7)-3) / 2
	}
	return s.like(v, dims...)
}

func (s *sweep) integers(low, high int64, dims ...int64) *tensor.Tensor {
	if s.coin() {
		v := make([]int32, product(dims))
		for i := range v {
			v[i] = int32(s.between(low, high))
		}
		return tensor.Of(v, dims...)
	}
	return s.long(low, high, dims...)
}

func (s *sweep) long(low, high int64, dims ...int64) *tensor.Tensor {
	return tensor.Of(s.many(int(product(dims)), low, high), dims...)
}

func (s *sweep) truths(dims ...int64) *tensor.Tensor {
	v := make([]bool, product(dims))
	for i := range v {
		v[i] = s.coin()
	}
	return tensor.Of(v, dims...)
}

// anything is a tensor of any type.
func (s *sweep) anything(dims ...int64) *tensor.Tensor {
	switch s.IntN(4) {
	case 0:
		return s.truths(dims...)
	case 1:
		return s.integers(-9, 9, dims...)
	default:
		return s.floats(dims...)
	}
}

func (s *sweep) numbers(dims ...int64) *tensor.Tensor {
	if s.rare() {
		return s.integers(-9, 9, dims...)
	}
	return s.few(dims...)
}

func (s *sweep) set(attrs ...*onnx.Attribute) { s.attrs = append(s.attrs, attrs...) }
func (s *sweep) sometimes(a *onnx.Attribute) {
	if s.coin() {
		s.set(a)
	}
}

// axis is one of so many, from the front or from the end.
func (s *sweep) axis(rank int) int64 { return s.between(-int64(rank), int64(rank)-1) }

// some gives different axes, which may be negative.
func (s *sweep) some(rank, least int) []int64 {
	axes := []int64{}
	for _, d := range s.Perm(rank)[:least+s.IntN(rank-least+1)] {
		axes = append(axes, int64(d)-s.oneOf(0, int64(rank)))
	}
	return axes
}

// broadcast leaves out, or makes 1, some of the dimensions.
func (s *sweep) broadcast(dims []int64) []int64 {
	out := append([]int64{}, dims...)
	for i := range out {
		if s.rare() {
			out[i] = 1
		}
	}
	if s.rare() {
		out = out[s.IntN(len(out)+1):]
	}
	return out
}

// listed is an attribute in old versions and an input in new ones.
func (s *sweep) listed(name string, input bool, v []int64, inputs *[]*tensor.Tensor) {
	if input {
		*inputs = append(*inputs, tensor.Of(v, int64(len(v))))
	} else {
		s.set(onnx.IntsAttr(name, v...))
	}
}

// window sets what convolutions and pooling have in common.
func (s *sweep) window(spatial []int64, kernel []int64) {
	n, stride := len(spatial), int64(3)
	s.sometimes(onnx.IntsAttr("dilations", s.many(n, 1, 2)...))
	switch s.IntN(4) {
	case 0:
		// Where a stride skips more than the kernel sees ONNX Runtime's operators cut off each another part.
		stride = 2
		s.set(onnx.StringAttr("auto_pad", s.name("SAME_UPPER", "SAME_LOWER", "VALID")))
	case 1, 2:
		pads := make([]int64, 2*n)
		for i := range pads {
			pads[i] = s.between(0, kernel[i%n]-1)
		}
		s.set(onnx.IntsAttr("pads", pads...))
	}
	s.sometimes(onnx.IntsAttr("strides", s.many(n, 1, stride)...))
}

func (s *sweep) shape(v []int64) *tensor.Tensor { return tensor.Of(v, int64(len(v))) }
