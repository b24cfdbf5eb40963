package rewrite

import (
	"math"
	"sync"

	"github.com/cosetq/cosetq/onnx"
)

// maxDequantScales bounds the scales of one DequantizeLinear that are kept in memory: a quarter of a gigabyte of them.
const maxDequantScales = 1 << 26

// affineElements computes (x − zero point) · scale, or where it quantizes x / scale + zero point, rounded. The elements are x[outer][axis][inner]; block consecutive places of
// the axis share one of the scales [outer / outerBlock = outer][axisBlocks][inner].
type affineElements struct {
	x elements
	// compute makes one element; zero is 0 where there are no zero points.
	compute func(x, scale, zero float32) float32
	// parameters reads the scales and the zero points, which are nil when all are 0, at the first use: listing the sites of
	// a model loads no weights, and these can be a thirtieth of them.
	parameters   func() (scale, zero []float32, err error)
	axis, inner  int64
	block        int64 // places of the axis that share a scale
	shared       bool  // one scale along outer and inner, as in the forms that are not blocked
	scalesOnAxis int64
}

func (d *affineElements) read(dst []float32, start int64) error {
	scale, zero, err := d.parameters()
	if err != nil {
		return err
	}
	if err := d.x.read(dst, start); err != nil {
		return err
	}
	compute := func(x float32, s int64) float32 {
		if zero == nil {
			return d.compute(x, scale[s], 0)
		}
		return d.compute(x, scale[s], zero[s])
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
				dst[i] = compute(dst[i], s)
			}
			continue
		}
		s = (outer*d.scalesOnAxis+s)*d.inner + inner
		dst[i] = compute(dst[i], s)
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

// affine reads the parameters of the DequantizeLinear or QuantizeLinear n, whose input 0 is c: scales per tensor, per axis, or per block
// of an axis. zero is nil when there are no zero points.
func (vs *values) affine(c *constant, n *onnx.Node, depth int) (d *affineElements, scale, zero *constant, err error) {
	if scale, err = vs.follow(vs.input(n, 1), depth+parameterDepth); err != nil {
		return nil, nil, nil, unsupported("the scale of %s %q is not constant", n.OpType, n.Name)
	}
	d = &affineElements{x: c.ordered(), axis: 1, inner: 1, block: 1, shared: true, scalesOnAxis: 1}
	rank := len(c.dims)
	switch {
	case scale.size() == 1: // per tensor: the whole tensor is one place of a dummy axis
		d.inner = c.size()
	default:
		axis, err := wrapAxis(n.Int("axis", 1), rank, rank-1)
		if err != nil {
			return nil, nil, nil, unsupported("%s %q: %v", n.OpType, n.Name, err)
		}
		d.axis, d.inner = c.dims[axis], product(c.dims[axis+1:])
		d.scalesOnAxis = d.axis
		block := n.Int("block_size", 0)
		switch {
		case len(scale.dims) == 1 && block == 0:
			if scale.dims[0] != d.axis {
				return nil, nil, nil, unsupported("%s %q has %d scales for an axis of %d", n.OpType, n.Name, scale.dims[0], d.axis)
			}
		case len(scale.dims) == rank && block > 0:
			d.block, d.shared = block, false
			d.scalesOnAxis = (d.axis + block - 1) / block
			for i, s := range scale.dims {
				if want := c.dims[i]; (i == axis && s != d.scalesOnAxis) || (i != axis && s != want) {
					return nil, nil, nil, unsupported("%s %q has scales %v for blocks of %d along axis %d of %v", n.OpType, n.Name, scale.dims, block, axis, c.dims)
				}
			}
		default:
			return nil, nil, nil, unsupported("%s %q has scales %v for a tensor %v and block_size %d", n.OpType, n.Name, scale.dims, c.dims, block)
		}
	}
	if v := vs.input(n, 2); v != nil {
		if zero, err = vs.follow(v, depth+parameterDepth); err != nil {
			return nil, nil, nil, unsupported("the zero point of %s %q is not constant", n.OpType, n.Name)
		}
		if zero.size() != scale.size() {
			return nil, nil, nil, unsupported("%s %q has %d zero points for %d scales", n.OpType, n.Name, zero.size(), scale.size())
		}
	}
	d.parameters = onceParameters(scale, zero)
	return d, scale, zero, nil
}

// become makes d, which n computes, the elements of c.
func (c *constant) become(d *affineElements, n *onnx.Node, scale, zero *constant, to onnx.DataType) {
	zeroRecipe := ""
	if zero != nil {
		zeroRecipe = zero.recipe
	}
	c.elements, c.strides, c.dtype = d, contiguous(c.dims), to
	c.note("%s %s %s axis %d block %d to %v", n.OpType, scale.recipe, zeroRecipe, n.Int("axis", 1), n.Int("block_size", 0), to)
	c.values = c.recipe // the axis depends on the order so far
}

// dequantize turns c, input 0 of the DequantizeLinear n, into its output.
func (vs *values) dequantize(c *constant, n *onnx.Node, depth int) error {
	d, scale, zero, err := vs.affine(c, n, depth)
	if err != nil {
		return err
	}
	d.compute = func(x, scale, zero float32) float32 { return (x - zero) * scale }
	out := onnx.DataType(n.Int("output_dtype", 0))
	if out == onnx.Undefined {
		out = scale.dtype
	}
	if !out.IsFloat() {
		return unsupported("DequantizeLinear %q yields %v", n.Name, out)
	}
	c.become(d, n, scale, zero, out)
	if out == onnx.Float16 || out == onnx.BFloat16 {
		c.elements = roundedElements{d, out}
	}
	return nil
}

// quantize turns c, input 0 of the QuantizeLinear n, into its output: exporters of models trained for integers leave the float weight
// with a QuantizeLinear and a DequantizeLinear behind it.
func (vs *values) quantize(c *constant, n *onnx.Node, depth int) error {
	d, scale, zero, err := vs.affine(c, n, depth)
	if err != nil {
		return err
	}
	to := onnx.DataType(n.Int("output_dtype", int64(onnx.Uint8)))
	if zero != nil {
		to = zero.dtype
	}
	bits := to.Bits()
	least, most := -math.Exp2(float64(bits-1)), math.Exp2(float64(bits-1))-1
	switch to {
	case onnx.Int4, onnx.Int8, onnx.Int16:
	case onnx.Uint4, onnx.Uint8, onnx.Uint16:
		least, most = 0, math.Exp2(float64(bits))-1
	default:
		return unsupported("QuantizeLinear %q yields %v", n.Name, to)
	}
	if c.dtype != onnx.Float || scale.dtype != onnx.Float {
		return unsupported("QuantizeLinear %q divides %v by %v", n.Name, c.dtype, scale.dtype)
	}
	d.compute = func(x, scale, zero float32) float32 {
		return float32(min(max(math.RoundToEven(float64(x/scale))+float64(zero), least), most))
	}
	c.become(d, n, scale, zero, to)
	return nil
}
