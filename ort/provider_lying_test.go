//go:build cgo && linux

package ort_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// lyingCase is a graph of values of given shapes whose numbers lie in any way that nodes can leave them in.
type lyingCase struct{ movesCase }

// lying is a value of a shape, by way of up to so many nodes that move the numbers of another one.
func (c *lyingCase) lying(most int, shape ...int64) string {
	rank := len(shape)
	if most == 0 || rank == 0 {
		if known := c.like(shape); known != "" && c.coin() {
			return known // which others use too
		}
		name := fmt.Sprintf("given%d", len(c.inputs))
		dims := make([]any, rank)
		for i := range dims {
			if dims[i] = fmt.Sprintf("%s_%d", name, i); c.coin() {
				dims[i] = int(shape[i])
			}
		}
		c.graph.Inputs = append(c.graph.Inputs, value(name, onnx.Float, dims...))
		c.inputs[name] = tensor.Of(c.floats(shape...), shape...)
		if c.rng.IntN(4) == 0 {
			return c.keep(name, shape...)
		}
		return c.keep(c.node("Abs", []string{name}), shape...)
	}
	from := slices.Clone(shape)
	d := c.rng.IntN(rank)
	of := func() string { return c.lying(most-1, from...) }
	made := ""
	switch c.rng.IntN(8) {
	case 0, 1:
		perm := c.rng.Perm(rank)
		order := make([]int64, rank)
		for i, p := range perm {
			order[i], from[p] = int64(p), shape[i]
		}
		made = c.node("Transpose", []string{of()}, onnx.IntsAttr("perm", order...))
	case 2:
		first, step := c.rng.Int64N(3), c.oneOf(1, 1, 2, -1)
		start, end := first, first+(shape[d]-1)*step+1
		from[d] = end + c.rng.Int64N(3)
		if step < 0 {
			from[d] = first + shape[d] + c.rng.Int64N(2)
			start, end = from[d]-1-first, from[d]-1-first-shape[d]
			if end < 0 {
				end = -100
			}
		}
		made = c.node("Slice", []string{of(), c.list(start), c.list(end), c.list(int64(d)), c.list(step)})
	case 3:
		from[d] = 1
		made = c.node("Expand", []string{of(), c.list(shape...)})
	case 4, 5:
		switch next := min(d+1, rank-1); {
		case rank > 1 && next > d && c.coin(): // what was one dimension
			from = slices.Concat(shape[:d], []int64{shape[d] * shape[next]}, shape[next+1:])
		case shape[d]%2 == 0 && rank < 6:
			from = slices.Concat(shape[:d], []int64{2, shape[d] / 2}, shape[d+1:])
		default:
			from = slices.Insert(from, d, 1)
		}
		made = c.node("Reshape", []string{of(), c.list(shape...)})
	case 6:
		if rank > 5 {
			return of()
		}
		n := c.oneOf(1, 2, 3)
		from = slices.Insert(from, d, n)
		index := c.integer(c.rng.Int64N(2*n) - n)
		made = c.node("Gather", []string{of(), index}, onnx.IntAttr("axis", int64(d)))
	default:
		low, high := c.rng.Int64N(3), c.rng.Int64N(3)
		from[d] += low + high
		x := of()
		n := onnx.NewNode("Split", []string{x, c.list(low, shape[d], high)}, nil, onnx.IntAttr("axis", int64(d)))
		for part := range 3 {
			n.Outputs = append(n.Outputs, fmt.Sprintf("part%d_%d", len(c.graph.Nodes), part))
		}
		n.Name, made = n.Outputs[1], n.Outputs[1]
		c.graph.Nodes = append(c.graph.Nodes, n)
	}
	return c.keep(made, shape...)
}

// like is a value of such a shape that is there.
func (c *lyingCase) like(shape []int64) string {
	var names []string
	for name, own := range c.shapes {
		if slices.Equal(own, shape) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[c.rng.IntN(len(names))]
}

func (c *lyingCase) integer(v int64) string {
	name := fmt.Sprintf("index%d", len(c.graph.Initializers))
	c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor(name, nil, []int64{v}))
	return name
}

// some is a shape that can be broadcast to another one.
func (c *lyingCase) some(shape ...int64) []int64 {
	own := slices.Clone(shape[c.rng.IntN(len(shape)):])
	for d := range own {
		if c.rng.IntN(3) == 0 {
			own[d] = 1
		}
	}
	return own
}

func (c *lyingCase) attention() string {
	batches, heads, queries, keys, width, wide := c.oneOf(1, 2), c.oneOf(1, 2, 4), c.oneOf(1, 5), c.oneOf(1, 6), c.oneOf(1, 6, 8), c.oneOf(1, 4, 6)
	most := func() int { return c.rng.IntN(5) }
	q := c.lying(most(), batches, heads, queries, width)
	var k string
	if c.coin() {
		k = c.lying(most(), c.oneOf(1, batches), heads, width, keys)
	} else {
		k = c.node("Transpose", []string{c.lying(most(), batches, heads, keys, width)}, onnx.IntsAttr("perm", 0, 1, 3, 2))
	}
	v := c.lying(most(), batches, heads, keys, wide)
	scores := c.node("MatMul", []string{q, k})
	if c.coin() {
		scores = c.node("Add", c.either(scores, c.lying(most(), c.some(batches, heads, queries, keys)...)))
	}
	y := c.node("MatMul", []string{c.node("Softmax", []string{scores}, onnx.IntAttr("axis", -1)), v})
	if c.coin() {
		y = c.node("Transpose", []string{y}, onnx.IntsAttr("perm", 0, 2, 1, 3))
	}
	return y
}

// fused is an attention that is a node, of keys and values behind tokens or by heads.
func (c *lyingCase) fused() string {
	batches, heads, queries, keys, width, wide := c.oneOf(1, 2), c.oneOf(1, 2, 4), c.oneOf(1, 5), c.oneOf(1, 6), c.oneOf(2, 8), c.oneOf(1, 4)
	inputs := []string{c.lying(c.rng.IntN(5), batches, queries, heads*width)}
	byHead := c.coin()
	if byHead {
		wide = width // as ONNX Runtime wants them
	}
	for _, own := range []int64{width, wide} {
		if byHead {
			inputs = append(inputs, c.lying(c.rng.IntN(5), batches, heads, keys, own))
		} else {
			inputs = append(inputs, c.lying(c.rng.IntN(5), batches, keys, heads*own))
		}
	}
	y := c.node("MultiHeadAttention", inputs, onnx.IntAttr("num_heads", heads))
	c.graph.Nodes[len(c.graph.Nodes)-1].Domain = "com.microsoft"
	return y
}

func (c *lyingCase) rotation() string {
	batches, heads, tokens, width := c.oneOf(1, 2), c.oneOf(1, 3), c.oneOf(1, 4), c.oneOf(2, 6, 8)
	var x string
	if c.coin() {
		x = c.node("Transpose", []string{c.lying(c.rng.IntN(5), batches, tokens, heads, width)}, onnx.IntsAttr("perm", 0, 2, 1, 3))
	} else {
		x = c.lying(c.rng.IntN(5), batches, heads, tokens, width)
	}
	half := func(from, to int64) string {
		return c.node("Slice", []string{x, c.list(from), c.list(to), c.list(3), c.list(1)})
	}
	low, high := half(0, width/2), half(width/2, width)
	turned := c.node("Concat", []string{c.node("Neg", []string{high}), low}, onnx.IntAttr("axis", 3))
	angles := [][]int64{{tokens, width}, {1, 1, tokens, width}, {batches, 1, tokens, width}}[c.rng.IntN(3)]
	plain := c.node("Mul", c.either(x, c.lying(c.rng.IntN(5), angles...)))
	return c.node("Add", c.either(plain, c.node("Mul", c.either(turned, c.lying(c.rng.IntN(5), angles...)))))
}

// elementwise is one operator after the other, and perhaps the norm of a sum.
func (c *lyingCase) elementwise() string {
	shape := []int64{c.oneOf(1, 2), c.oneOf(1, 3), c.oneOf(1, 4), c.oneOf(1, 6, 8)}
	y := c.lying(c.rng.IntN(5), shape...)
	for range c.rng.IntN(4) {
		y = c.node([]string{"Add", "Mul", "Sub"}[c.rng.IntN(3)], c.either(y, c.lying(c.rng.IntN(5), c.some(shape...)...)))
	}
	if c.coin() {
		width := shape[3]
		row := func(name string) string {
			return c.constant(fmt.Sprint(name, len(c.graph.Nodes)), []int64{width}, c.floats(width)...)
		}
		y = c.node("LayerNormalization", []string{c.node("Add", c.either(y, c.lying(c.rng.IntN(5), c.some(shape...)...))), row("scale"), row("shift")}, onnx.FloatAttr("epsilon", 1e-3))
	}
	return y
}

func (c *lyingCase) joined() string {
	shape := []int64{c.oneOf(1, 2), c.oneOf(1, 3), c.oneOf(2, 4)}
	axis := c.rng.IntN(3)
	var parts []string
	for range 1 + c.rng.IntN(5) {
		own := slices.Clone(shape)
		own[axis] = 1 + c.rng.Int64N(3)
		parts = append(parts, c.lying(c.rng.IntN(5), own...))
	}
	return c.node("Concat", parts, onnx.IntAttr("axis", int64(axis)))
}

// What reads numbers as they lie reads the right ones, however they came to lie there, and whoever reads them too.
func TestProviderReadsNumbersAsTheyLie(t *testing.T) {
	library, about, _ := aboutProvider(t)
	before, _ := about.Joined()
	for seed := range uint64(1200) {
		c := &lyingCase{movesCase{patternCase{rng: rand.New(rand.NewPCG(seed, 47)), inputs: map[string]*tensor.Tensor{}}, map[string][]int64{}}}
		path := modelOf(t, 18, func(g *onnx.Graph) {
			g.Inputs, c.graph = nil, g
			for range 1 + c.rng.IntN(2) {
				c.output([]func() string{c.attention, c.attention, c.fused, c.rotation, c.elementwise, c.joined}[c.rng.IntN(6)]())
			}
		})
		c.compare(t, library, seed, path, 3e-5)
	}
	if after, _ := about.Joined(); after-before < 600 {
		t.Errorf("%d attentions, rotary embeddings and norms were joined", after-before)
	}
}
