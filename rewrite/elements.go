package rewrite

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// elements is a sequence of numbers in row-major order, read on demand.
type elements interface {
	// read writes the elements from start on. It is safe for concurrent use.
	read(dst []float32, start int64) error
}

// readRuns fills dst with runs of n elements, each stride after the one before.
func readRuns(e elements, dst []float32, start, n, stride int64) error {
	if t, ok := e.(tensorElements); ok {
		return t.Float32Runs(dst, start, n, stride)
	}
	for ; len(dst) > 0; dst, start = dst[n:], start+stride {
		if err := e.read(dst[:n], start); err != nil {
			return err
		}
	}
	return nil
}

// tensorElements reads a stored tensor.
type tensorElements struct{ *onnx.Tensor }

func (t tensorElements) read(dst []float32, start int64) error {
	return t.Float32Range(dst, start, start+int64(len(dst)))
}

// roundedElements passes the elements through a narrower floating-point type.
type roundedElements struct {
	elements
	to onnx.DataType
}

func (r roundedElements) read(dst []float32, start int64) error {
	if err := r.elements.read(dst, start); err != nil {
		return err
	}
	for i, v := range dst {
		if r.to == onnx.Float16 {
			dst[i] = onnx.Float16ToFloat32(onnx.Float16FromFloat32(v))
		} else {
			dst[i] = onnx.BFloat16ToFloat32(onnx.BFloat16FromFloat32(v))
		}
	}
	return nil
}

// permutedElements reads a constant whose order differs from the order it is stored in, one element at a time. Only
// what lies between a Transpose and a DequantizeLinear takes this path.
type permutedElements struct{ c constant }

func (p permutedElements) read(dst []float32, start int64) error {
	at := make([]int64, len(p.c.dims))
	offset, rest := int64(0), start
	for i := len(at) - 1; i >= 0; i-- {
		at[i] = rest % p.c.dims[i]
		rest /= p.c.dims[i]
		offset += at[i] * p.c.strides[i]
	}
	for j := range dst {
		if err := p.c.elements.read(dst[j:j+1], offset); err != nil {
			return err
		}
		for i := len(at) - 1; i >= 0; i-- {
			if at[i]++; at[i] < p.c.dims[i] {
				offset += p.c.strides[i]
				break
			}
			offset -= (at[i] - 1) * p.c.strides[i]
			at[i] = 0
		}
	}
	return nil
}

// ordered returns the elements of c in the row-major order of its dimensions.
func (c *constant) ordered() elements {
	if c.isContiguous() {
		return c.elements
	}
	return permutedElements{*c} // a copy: what is done to c next lies above this
}

// readAll returns all elements of c in row-major order, when there are at most limit.
func (c *constant) readAll(limit int64) ([]float32, error) {
	if c.size() > limit {
		return nil, fmt.Errorf("tensor %q has %d elements, more than the %d expected here", c.root.Name, c.size(), limit)
	}
	dst := make([]float32, c.size())
	return dst, c.ordered().read(dst, 0)
}
