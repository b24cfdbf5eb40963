package rewrite

import (
	"sync"

	"github.com/cosetq/cosetq/onnx"
)

// maxDequantScales bounds the scales of one DequantizeLinear that are kept in memory: a quarter of a gigabyte of them.
const maxDequantScales = 1 << 26

// dequantElements computes (x − zero point) · scale. The elements are x[outer][axis][inner]; block consecutive places of
// the axis share one of the scales [outer / outerBlock = outer][axisBlocks][inner].
type dequantElements struct {
	x elements
	// parameters reads the scales and the zero points, which are nil when all are 0, at the first use: listing the sites of
	// a model loads no weights, and these can be a thirtieth of them.
	parameters   func() (scale, zero []float32, err error)
	axis, inner  int64
	block        int64 // places of the axis that share a scale
	shared       bool  // one scale along outer and inner, as in the forms that are not blocked
	scalesOnAxis int64
}

func (d *dequantElements) read(dst []float32, start int64) error {
	scale, zero, err := d.parameters()
	if err != nil {
		return err
	}
	if err := d.x.read(dst, start); err != nil {
		return err
	}
	dequantize := func(x float32, s int64) float32 {
		if zero != nil {
			x -= zero[s]
		}
		return x * scale[s]
	}
	for i := int64(0); i < int64(len(dst)); {
		at := start + i
		inner := at % d.inner
		place := at / d.inner % d.axis
		outer := at / d.inner / d.axis
		s := place / d.block
		if d.shared {
			// The run up to the next place of the axis has one scale.
			for end := min(int64(len(dst)), i+d.inner-inner); i < end; i++ {
				dst[i] = dequantize(dst[i], s)
			}
			continue
		}
		s = (outer*d.scalesOnAxis+s)*d.inner + inner
		dst[i] = dequantize(dst[i], s)
		i++
	}
	return nil
}

// onceParameters reads scale and zero, which may be nil, when the result is first called.
func onceParameters(scale, zero *constant) func() (s, z []float32, err error) {
	type parameters struct{ scale, zero []float32 }
	load := sync.OnceValues(func() (p parameters, err error) {
		if p.scale, err = scale.readAll(maxDequantScales); err != nil || zero == nil {
			return p, err
		}
		p.zero, err = zero.readAll(maxDequantScales)
		return p, err
	})
	return func() ([]float32, []float32, error) {
		p, err := load()
		return p.scale, p.zero, err
	}
}

// dequantize turns c, input 0 of the DequantizeLinear n, into its output: scales per tensor, per axis, or per block of
// an axis.
func (vs *values) dequantize(c *constant, n *onnx.Node, depth int) error {
	scale, err := vs.follow(vs.input(n, 1), depth+parameterDepth)
	if err != nil {
		return unsupported("the scale of DequantizeLinear %q is not constant", n.Name)
	}
	d := &dequantElements{x: c.ordered(), axis: 1, inner: 1, block: 1, shared: true, scalesOnAxis: 1}
	rank := len(c.dims)
	switch {
	case scale.size() == 1: // per tensor: the whole tensor is one place of a dummy axis
		d.inner = c.size()
	default:
		axis, err := wrapAxis(n.Int("axis", 1), rank, rank-1)
		if err != nil {
			return unsupported("DequantizeLinear %q: %v", n.Name, err)
		}
		d.axis, d.inner = c.dims[axis], product(c.dims[axis+1:])
		d.scalesOnAxis = d.axis
		block := n.Int("block_size", 0)
		switch {
		case len(scale.dims) == 1 && block == 0:
			if scale.dims[0] != d.axis {
				return unsupported("DequantizeLinear %q has %d scales for an axis of %d", n.Name, scale.dims[0], d.axis)
			}
		case len(scale.dims) == rank && block > 0:
			d.block, d.shared = block, false
			d.scalesOnAxis = (d.axis + block - 1) / block
			for i, s := range scale.dims {
				if want := c.dims[i]; (i == axis && s != d.scalesOnAxis) || (i != axis && s != want) {
					return unsupported("DequantizeLinear %q has scales %v for blocks of %d along axis %d of %v", n.Name, scale.dims, block, axis, c.dims)
				}
			}
		default:
			return unsupported("DequantizeLinear %q has scales %v for a tensor %v and block_size %d", n.Name, scale.dims, c.dims, block)
		}
	}
	var zero *constant
	zeroRecipe := ""
	if v := vs.input(n, 2); v != nil {
		if zero, err = vs.follow(v, depth+parameterDepth); err != nil {
			return unsupported("the zero point of DequantizeLinear %q is not constant", n.Name)
		}
		if zero.size() != scale.size() {
			return unsupported("DequantizeLinear %q has %d zero points for %d scales", n.Name, zero.size(), scale.size())
		}
		zeroRecipe = zero.recipe
	}
	d.parameters = onceParameters(scale, zero)
	out := onnx.DataType(n.Int("output_dtype", 0))
	if out == onnx.Undefined {
		out = scale.dtype
	}
	if !out.IsFloat() {
		return unsupported("DequantizeLinear %q yields %v", n.Name, out)
	}
	c.elements, c.strides, c.dtype = d, contiguous(c.dims), out
	if out == onnx.Float16 || out == onnx.BFloat16 {
		c.elements = roundedElements{d, out}
	}
	c.note("dequantize %s %s axis %d block %d to %v", scale.recipe, zeroRecipe, n.Int("axis", 1), n.Int("block_size", 0), out)
	c.values = c.recipe // the axis depends on the order so far
	return nil
}
