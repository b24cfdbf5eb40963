package rewrite

import (
	"slices"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// isPointwise reports whether n is a Conv that is a matrix product: one group, a constant kernel of one element along every axis of space.
// Whether its other attributes are such that it can be rewritten is for [values.pointwise] to say.
func (vs *values) isPointwise(n *onnx.Node) bool {
	if !standard(n, "Conv") || n.Int("group", 1) != 1 {
		return false
	}
	c, err := vs.constant(vs.input(n, right))
	if err != nil || len(c.dims) < 3 {
		return false
	}
	return product(c.dims[2:]) == 1
}

// pointwise completes l for a Conv of X [B, K, ...] with c [N, K, 1, ...]: with the channels last it is X·Wᵀ.
func (vs *values) pointwise(l *linear, c *constant) error {
	n := l.node
	rank := len(c.dims)
	if slices.ContainsFunc(n.Ints("pads"), func(p int64) bool { return p != 0 }) {
		return unsupported("it pads its input with zeros: pads %v", n.Ints("pads"))
	}
	strides := n.Ints("strides")
	if slices.ContainsFunc(strides, func(s int64) bool { return s != 1 }) {
		opset, _ := vs.model.Opset("")
		switch auto := n.Str("auto_pad", "NOTSET"); {
		case len(strides) != rank-2 || slices.Min(strides) < 1:
			return unsupported("it has strides %v for %d axes", strides, rank-2)
		case strings.HasPrefix(auto, "SAME") && slices.Max(strides) > 2:
			return unsupported("runtimes disagree on where auto_pad %s begins with strides %v", auto, strides)
		case opset < 10:
			return unsupported("it has strides %v, and a Slice has none before opset 10; the model is of opset %d", strides, opset)
		}
		l.in.steps = append([]int64{1, 1}, strides...)
	}
	l.rank, l.in.perm, l.out = rank, channelsLast(rank), inverse(channelsLast(rank))
	c.dims, c.strides = c.dims[:2], c.strides[:2]
	l.weight = newWeight(c, true, 1)
	addend := vs.input(n, 2)
	if addend == nil {
		return nil
	}
	if bias, err := vs.constant(addend); err == nil && bias.dtype == l.weight.dtype && len(bias.dims) == 1 && bias.dims[0] == int64(l.weight.n) {
		l.bias = bias
	} else {
		l.addend, l.addendRows = addend, true
	}
	return nil
}
