package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// windowElements is a part of elements x[outer][axis][inner]: the places from … to−1 of the axis.
type windowElements struct {
	x           elements
	axis, inner int64
	from, to    int64
}

func (w windowElements) read(dst []float32, start int64) error {
	part := (w.to - w.from) * w.inner
	for len(dst) > 0 {
		outer, within := start/part, start%part
		run := min(int64(len(dst)), part-within)
		if err := w.x.read(dst[:run], (outer*w.axis+w.from)*w.inner+within); err != nil {
			return err
		}
		dst, start = dst[run:], start+run
	}
	return nil
}

// narrow leaves the places from … to−1 of an axis.
func (c *constant) narrow(axis int, from, to int64) error {
	d, inner := c.dims[axis], c.strides[axis]
	if from < 0 || to > d || from >= to {
		return unsupported("places %d to %d are cut out of an axis of %d", from, to-1, d)
	}
	if to-from == d {
		return nil
	}
	c.elements = windowElements{x: c.elements, axis: d, inner: inner, from: from, to: to}
	c.dims, c.strides = slices.Clone(c.dims), slices.Clone(c.strides)
	c.dims[axis] = to - from
	for i, s := range c.strides {
		if i != axis && c.dims[i] != 1 && s > inner {
			c.strides[i] = s / d * (to - from)
		}
	}
	// Which elements they are depends on the axis in the order as stored, not on the one seen.
	c.noteValues("places %d to %d of %d times %d", from, to, d, inner)
	return nil
}

// split leaves what is output out of the Split n.
func (vs *values) split(c *constant, n *onnx.Node, out, depth int) error {
	axis, err := wrapAxis(n.Int("axis", 0), len(c.dims), len(c.dims)-1)
	if err != nil {
		return unsupported("Split %q: %v", n.Name, err)
	}
	sizes, err := vs.ints(n, 1, "split", depth)
	if err != nil {
		return err
	}
	if sizes == nil {
		parts := int64(len(n.Outputs))
		size := (c.dims[axis] + parts - 1) / parts // the last is smaller where they are not even
		return c.narrow(axis, int64(out)*size, min(int64(out+1)*size, c.dims[axis]))
	}
	if len(sizes) != len(n.Outputs) {
		return unsupported("Split %q has %d sizes for %d outputs", n.Name, len(sizes), len(n.Outputs))
	}
	from := int64(0)
	for _, s := range sizes[:out] {
		from += s
	}
	return c.narrow(axis, from, from+sizes[out])
}

// slice leaves what the Slice n cuts out of c.
func (vs *values) slice(c *constant, n *onnx.Node, depth int) error {
	var lists [4][]int64
	for i, attr := range []string{"starts", "ends", "axes", "steps"} {
		var err error
		if lists[i], err = vs.ints(n, i+1, attr, depth); err != nil {
			return err
		}
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if axes == nil {
		axes = identity(len(starts))
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || slices.ContainsFunc(steps, func(s int64) bool { return s != 1 }) {
		return unsupported("Slice %q goes from %v to %v along the axes %v with steps %v", n.Name, starts, ends, axes, steps)
	}
	for i, a := range axes {
		axis, err := wrapAxis(a, len(c.dims), len(c.dims)-1)
		if err != nil {
			return unsupported("Slice %q: %v", n.Name, err)
		}
		d := c.dims[axis]
		place := func(p int64) int64 {
			if p < 0 {
				p += d
			}
			return min(max(p, 0), d)
		}
		if err := c.narrow(axis, place(starts[i]), place(ends[i])); err != nil {
			return err
		}
	}
	return nil
}

// pick leaves the one place of an axis that the Gather n names: one expert of a stack, say.
func (vs *values) pick(c *constant, n *onnx.Node) error {
	place, dims, _ := vs.picked(n)
	axis, err := wrapAxis(n.Int("axis", 0), len(c.dims), len(c.dims)-1)
	if err != nil {
		return unsupported("Gather %q: %v", n.Name, err)
	}
	if place < 0 {
		place += c.dims[axis]
	}
	if err := c.narrow(axis, place, place+1); err != nil {
		return err
	}
	return c.reshape(slices.Concat(c.dims[:axis], dims, c.dims[axis+1:]))
}

// picked returns the place that the Gather n looks up and the dimensions of what stores it, where that is a single stored number; ok is
// false for embeddings.
func (vs *values) picked(n *onnx.Node) (place int64, dims []int64, ok bool) {
	v := vs.input(n, 1)
	if v == nil || vs.overridable(v) {
		return 0, nil, false
	}
	t := v.Initializer
	if v.Node != nil && standard(v.Node, "Constant") {
		t, _ = constantTensor(v.Node)
	}
	if t == nil || t.DataType != onnx.Int64 || product(t.Dims) != 1 {
		return 0, nil, false
	}
	places, err := t.Int64s()
	if err != nil || len(places) != 1 {
		return 0, nil, false
	}
	return places[0], t.Dims, true
}
