package grad

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// window is the geometry of a convolution or pooling over the axes from 2 on.
type window struct {
	kernel, strides, dilations []int64
	before, after              []int64 // what windows reach over in front of the input, and behind it; negative where they leave some out
	behind                     []int64 // the padding behind the input, which after exceeds where ceil_mode rounds up
}

// window reads the attributes of the node, for an input and output of the given shapes.
func (s *step) window(kernel []int64) window {
	n, x, y := s.n, s.x(0), s.y(0)
	rank := len(kernel)
	w := window{kernel: kernel, strides: n.Ints("strides"), dilations: n.Ints("dilations")}
	if w.strides == nil {
		w.strides = slices.Repeat([]int64{1}, rank)
	}
	if w.dilations == nil {
		w.dilations = slices.Repeat([]int64{1}, rank)
	}
	pads := n.Ints("pads")
	if pads == nil {
		pads = make([]int64, 2*rank)
	}
	w.before, w.after, w.behind = slices.Clone(pads[:rank]), make([]int64, rank), slices.Clone(pads[rank:])
	auto := n.Str("auto_pad", "NOTSET")
	for i := range rank {
		// What the outputs reach over: the padding behind follows from the output, whatever rounding made it.
		reach := (y.Shape[2+i]-1)*w.strides[i] + (kernel[i]-1)*w.dilations[i] + 1
		total := reach - x.Shape[2+i]
		switch auto {
		case "SAME_UPPER":
			w.before[i] = max(total, 0) / 2
			w.behind[i] = max(total, 0) - w.before[i]
		case "SAME_LOWER":
			w.before[i] = (max(total, 0) + 1) / 2
			w.behind[i] = max(total, 0) - w.before[i]
		case "VALID":
			w.before[i], w.behind[i] = 0, 0
		}
		w.after[i] = total - w.before[i]
	}
	return w
}

// convRule: dX is the transposed convolution of dY, dW the correlation of X with dY, dB the sum of dY.
func convRule(s *step) error {
	g, x, weight, dy := s.g, s.x(0), s.x(1), s.dy(0)
	w := s.window(weight.Shape[2:])
	groups := s.n.Int("group", 1)
	if s.wants(0) {
		// Cut to what the outputs reach: padded input → dX.
		full := slices.Clone(x.Shape)
		for i := range w.kernel {
			full[2+i] = (dy.Shape[2+i]-1)*w.strides[i] + (w.kernel[i]-1)*w.dilations[i] + 1
		}
		dx := g.put("ConvTranspose", []*Value{dy, weight}, x.Type, full, onnx.IntsAttr("strides", w.strides...),
			onnx.IntsAttr("dilations", w.dilations...), onnx.IntAttr("group", groups), onnx.IntsAttr("kernel_shape", w.kernel...))
		s.give(0, g.pad(dx, spatial(w.before, -1), spatial(w.after, -1), 0))
	}
	if s.wants(1) {
		var parts []*Value
		cin, cout := x.Shape[1]/groups, dy.Shape[1]/groups
		for i := range groups {
			parts = append(parts, g.convWeight(g.slice(x, 1, i*cin, (i+1)*cin), g.slice(dy, 1, i*cout, (i+1)*cout), w))
		}
		s.give(1, g.concat(0, parts...))
	}
	s.giveChannels(2, dy)
	return nil
}

// spatial is sign·v with zeros for batch and channels in front.
func spatial(v []int64, sign int64) []int64 {
	out := make([]int64, 2+len(v))
	for i, x := range v {
		out[2+i] = sign * x
	}
	return out
}

// padWindow pads x with a number as the window does.
func (g *Graph) padWindow(x *Value, w window, fill float64) *Value {
	return g.pad(x, spatial(w.before, 1), spatial(w.after, 1), fill)
}

// convWeight correlates x [N, C, …] with dy [N, M, …]: the batch becomes the channel, strides become dilations.
func (g *Graph) convWeight(x, dy *Value, w window) *Value {
	perm := sequence(x.rank())
	perm[0], perm[1] = 1, 0
	x, dy = g.transpose(g.padWindow(x, w, 0), perm...), g.transpose(dy, perm...)
	shape := append([]int64{x.Shape[0], dy.Shape[0]}, w.kernel...)
	dw := g.put("Conv", []*Value{x, dy}, x.Type, shape, onnx.IntsAttr("strides", w.dilations...), onnx.IntsAttr("dilations", w.strides...),
		onnx.IntsAttr("kernel_shape", dy.Shape[2:]...))
	return g.transpose(dw, perm...)
}
