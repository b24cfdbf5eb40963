//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// patternCase is a graph that has an operator in pieces, in one of the ways that exporters write them, or in one that only looks like it.
type patternCase struct {
	rng    *rand.Rand
	graph  *onnx.Graph
	inputs map[string]*tensor.Tensor
}

func (c *patternCase) coin() bool             { return c.rng.IntN(2) == 0 }
func (c *patternCase) oneOf(n ...int64) int64 { return n[c.rng.IntN(len(n))] }

func (c *patternCase) floats(dims ...int64) []float32 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(c.rng.NormFloat64())
	}
	return v
}

// input is one of which the graph knows the last dimension, or only how many there are.
func (c *patternCase) input(name string, v []float32, dims ...int64) string {
	shape := make([]any, len(dims))
	for i := range shape {
		shape[i] = fmt.Sprintf("%s%d", name, i)
	}
	if c.coin() {
		shape[len(dims)-1] = int(dims[len(dims)-1])
	}
	c.graph.Inputs = append(c.graph.Inputs, value(name, onnx.Float, shape...))
	c.inputs[name] = tensor.Of(v, dims...)
	return name
}

func (c *patternCase) constant(name string, dims []int64, v ...float32) string {
	c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor(name, dims, v))
	return name
}

func (c *patternCase) node(op string, inputs []string, attrs ...*onnx.Attribute) string {
	out := fmt.Sprintf("%s%d", op, len(c.graph.Nodes))
	n := onnx.NewNode(op, inputs, []string{out}, attrs...)
	n.Name = out
	c.graph.Nodes = append(c.graph.Nodes, n)
	return out
}

// either has both inputs in either order.
func (c *patternCase) either(a, b string) []string {
	if c.coin() {
		return []string{b, a}
	}
	return []string{a, b}
}

func (c *patternCase) output(name string) {
	c.graph.Outputs = append(c.graph.Outputs, value(name, onnx.Float))
	c.graph.Outputs[len(c.graph.Outputs)-1].Type.Tensor.Shape = nil
}

func (c *patternCase) norm() {
	width := c.oneOf(1, 6, 48, 700)
	x := c.input("x", c.floats(2, 3, width), 2, 3, width)
	square := []string{x, x}
	op := "Mul"
	if c.coin() {
		op, square[1] = "Pow", c.constant("two", nil, float32(c.oneOf(2, 2, 3)))
	}
	squared := c.node(op, square)
	c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor("axis", []int64{1}, []int64{c.oneOf(-1, -1, 2, 1)}))
	mean := c.node("ReduceMean", []string{squared, "axis"}, onnx.IntAttr("keepdims", c.oneOf(1, 1, 1, 0)))
	if mean := c.graph.Nodes[len(c.graph.Nodes)-1]; mean.Int("keepdims", 1) == 0 {
		mean.SetAttr(onnx.IntAttr("keepdims", 1))
		c.graph.Initializers = c.graph.Initializers[:len(c.graph.Initializers)-1]
		mean.Inputs = mean.Inputs[:1] // over everything
	}
	sum := c.node("Add", c.either(mean, c.constant("epsilon", []int64{1}, 1e-3)))
	root := c.node("Sqrt", []string{sum})
	var y string
	switch c.rng.IntN(4) {
	case 0:
		y = c.node("Div", []string{x, root})
	case 1:
		y = c.node("Mul", c.either(x, c.node("Reciprocal", []string{root})))
	case 2:
		y = c.node("Mul", c.either(x, c.node("Div", []string{c.constant("number", nil, float32(c.oneOf(1, 1, 2))), root})))
	default:
		y = c.node("Div", []string{root, x}) // something else
	}
	switch c.rng.IntN(6) {
	case 0:
		y = c.node("Mul", c.either(y, c.constant("weight", []int64{width}, c.floats(width)...)))
	case 1:
		y = c.node("Mul", c.either(y, c.constant("weight", []int64{1, width}, c.floats(width)...)))
	case 2:
		y = c.node("Mul", c.either(y, c.constant("weight", []int64{3, 1}, c.floats(3)...)))
	case 3:
		y = c.node("Mul", []string{y, y})
	case 4:
		c.output(c.node("Mul", c.either(y, c.constant("weight", []int64{width}, c.floats(width)...))))
	}
	if c.rng.IntN(5) == 0 {
		c.output([]string{squared, mean, root}[c.rng.IntN(3)])
	}
	c.output(y)
}

// scaled may multiply or divide by a number, one of which has more dimensions than x.
func (c *patternCase) scaled(x string, cases int) string {
	switch name := fmt.Sprintf("number%d", len(c.graph.Nodes)); c.rng.IntN(cases) {
	case 0, 1:
		return c.node("Mul", c.either(x, c.constant(name, [][]int64{nil, {1}}[c.rng.IntN(2)], 0.7)))
	case 2:
		return c.node("Div", []string{x, c.constant(name, nil, 1.5)})
	case 7:
		return c.node("Mul", c.either(x, c.constant(name, []int64{1, 1, 1, 1, 1}, 0.7)))
	}
	return x
}

func (c *patternCase) attention() {
	batches, heads, queries, keys, width, wide := c.oneOf(1, 2), c.oneOf(1, 3), c.oneOf(1, 5, 70), c.oneOf(1, 9, 130), c.oneOf(5, 16, 80, 130), c.oneOf(4, 16, 100)
	rank := int(c.oneOf(3, 4))
	shape := func(dims ...int64) []int64 { return dims[4-rank:] }
	q := c.input("q", c.floats(shape(batches, heads, queries, width)...), shape(batches, heads, queries, width)...)
	keyBatches := c.oneOf(batches, batches, 1)
	var k string
	if c.coin() {
		k = c.input("k", c.floats(shape(keyBatches, heads, width, keys)...), shape(keyBatches, heads, width, keys)...)
	} else {
		perm := []int64{0, 1, 3, 2}
		if rank == 3 {
			perm = []int64{0, 2, 1}
		}
		k = c.input("k", c.floats(shape(keyBatches, heads, keys, width)...), shape(keyBatches, heads, keys, width)...)
		k = c.node("Transpose", []string{c.scaled(k, 7)}, onnx.IntsAttr("perm", perm...))
	}
	q, k = c.scaled(q, 8), c.scaled(k, 8)
	v := c.input("v", c.floats(shape(batches, heads, keys, wide)...), shape(batches, heads, keys, wide)...)
	scores := c.node("MatMul", []string{q, k})
	switch c.rng.IntN(3) {
	case 0:
		scores = c.node("Mul", c.either(scores, c.constant("scale", nil, 0.2)))
	case 1:
		scores = c.node("Div", []string{scores, c.constant("scale", []int64{1}, 4)})
	}
	product := scores
	if c.coin() {
		dims := [][]int64{{queries, keys}, {keys}, shape(batches, 1, queries, keys), shape(batches, heads, 1, keys), shape(1, heads, queries, 1)}[c.rng.IntN(5)]
		mask := c.floats(dims...)
		for i := range mask {
			if c.rng.IntN(3) == 0 {
				mask[i] = float32(math.Inf(-1)) // some queries see nothing
			}
		}
		scores = c.node("Add", c.either(scores, c.input("mask", mask, dims...)))
	}
	p := c.node("Softmax", []string{scores}, onnx.IntAttr("axis", c.oneOf(-1, -1, -1, int64(rank-1), int64(rank-2))))
	softmax := p
	if c.coin() {
		test := c.node("IsNaN", []string{p})
		p = c.node("Where", []string{test, c.constant("nothing", nil, float32(c.oneOf(0, 0, 7))), p})
	}
	if c.rng.IntN(6) == 0 {
		c.output([]string{product, softmax, p}[c.rng.IntN(3)])
	}
	y := c.node("MatMul", []string{p, v})
	five := slices.ContainsFunc(c.graph.Initializers, func(t *onnx.Tensor) bool { return len(t.Dims) == 5 })
	if rank == 4 && !five && c.rng.IntN(3) == 0 {
		if c.rng.IntN(4) == 0 {
			c.output(y)
		}
		y = c.node("Transpose", []string{y}, onnx.IntsAttr("perm", [][]int64{{0, 2, 1, 3}, {0, 2, 1, 3}, {0, 1, 3, 2}}[c.rng.IntN(3)]...))
	}
	c.output(y)
}

func (c *patternCase) integers(name string, v ...int64) string {
	c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor(name, []int64{int64(len(v))}, v))
	return name
}

// rotation is the rotary embedding as models of language have it, or nearly so.
func (c *patternCase) rotation() {
	width, tokens := c.oneOf(2, 6, 16, 64), c.oneOf(1, 5)
	shape := []int64{2, 3, tokens, width}
	from, swaps := shape, c.rng.IntN(3) == 0
	if swaps {
		from = []int64{2, tokens, 3, width}
	}
	x := c.input("x", c.floats(from...), from...)
	if known := c.graph.Inputs[len(c.graph.Inputs)-1].Type.Tensor.Shape; c.rng.IntN(4) > 0 {
		known.Dims[3] = &onnx.Dim{Value: width, HasValue: true}
	}
	if swaps {
		x = c.node("Transpose", []string{x}, onnx.IntsAttr("perm", 0, 2, 1, 3))
		if c.rng.IntN(4) == 0 {
			c.output(x)
		}
	}
	half, axis := width/2, c.oneOf(-1, 3)
	var low, high string
	if c.coin() {
		if c.rng.IntN(6) == 0 && half > 1 {
			half-- // unequal parts
		}
		split := onnx.NewNode("Split", []string{x, c.integers("sizes", half, width-half)}, []string{"low", "high"}, onnx.IntAttr("axis", axis))
		split.Name = "split"
		c.graph.Nodes = append(c.graph.Nodes, split)
		low, high = "low", "high"
	} else {
		axes := c.integers("last", axis)
		low = c.node("Slice", []string{x, c.integers("begin", 0), c.integers("middle", half), axes})
		high = c.node("Slice", []string{x, c.integers("from", c.oneOf(half, half-width)), c.integers("to", c.oneOf(width, 1<<40)), axes})
	}
	if c.rng.IntN(6) == 0 && half == width-half {
		low, high = high, low // turned the other way
	}
	turned := c.node("Concat", []string{c.node("Neg", []string{high}), low}, onnx.IntAttr("axis", axis))
	angles := func(name string) string {
		dims := [][]int64{{1, 1, tokens, width}, {2, 1, tokens, width}, {tokens, width}, shape, {1}}[c.rng.IntN(5)]
		return c.input(name, c.floats(dims...), dims...)
	}
	plain, product := c.node("Mul", c.either(x, angles("cosine"))), c.node("Mul", c.either(turned, angles("sine")))
	if c.rng.IntN(6) == 0 {
		c.output([]string{turned, plain, low}[c.rng.IntN(3)])
	}
	c.output(c.node("Add", c.either(plain, product)))
}

// sum is what is added, perhaps broadcast, and its norm, of which others may want the sum too.
func (c *patternCase) sum() {
	width := c.oneOf(1, 6, 48, 700)
	shape := []int64{2, 3, width}
	other := [][]int64{shape, shape, shape, {3, width}, {2, 1, width}, {width}, {1, 1, 1}}[c.rng.IntN(7)]
	x := c.node("Add", c.either(c.input("x", c.floats(shape...), shape...), c.input("y", c.floats(other...), other...)))
	for _, in := range c.graph.Inputs {
		if dims := in.Type.Tensor.Shape.Dims; dims[len(dims)-1] != nil && c.rng.IntN(6) > 0 {
			dims[len(dims)-1] = &onnx.Dim{Value: c.inputs[in.Name].Shape[len(dims)-1], HasValue: true}
		}
	}
	if c.rng.IntN(4) == 0 {
		c.output(x)
	}
	inputs := []string{x, c.constant("scale", []int64{width}, c.floats(width)...)}
	if c.rng.IntN(6) == 0 {
		inputs[1] = c.input("scale_given", c.floats(width), width)
	}
	if c.coin() {
		inputs = append(inputs, c.constant("shift", []int64{width}, c.floats(width)...))
	}
	y := c.node("LayerNormalization", inputs, onnx.IntAttr("axis", c.oneOf(-1, -1, -1, 2, 1)), onnx.FloatAttr("epsilon", 1e-3))
	if n := c.graph.Nodes[len(c.graph.Nodes)-1]; n.Int("axis", -1) == 1 { // over two dimensions, which rows are broadcast to
		c.output(n.Outputs[0])
		return
	}
	if c.coin() {
		y = c.node("Add", c.either(x, c.node("Neg", []string{y})))
	}
	c.output(y)
}

// compare runs the graph on the provider several times, so that runs are recorded and repeated, and on the CPU.
func (c *patternCase) compare(t *testing.T, library string, seed uint64, path string, limit float64) {
	t.Helper()
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
	a, err := session(t, path, o).Run(context.Background(), c.inputs)
	if err != nil {
		t.Fatalf("seed %d on the CPU: %v", seed, err)
	}
	o.Provider, o.Config = library, map[string]string{"ai.coset.gpu_nodes": "all"}
	got := session(t, path, o)
	for range 4 {
		b, err := got.Run(context.Background(), c.inputs)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for name := range a {
			if d := distance(t, a[name], b[name]); !(d < limit) {
				var ops []string
				for _, n := range c.graph.Nodes {
					ops = append(ops, n.OpType)
				}
				t.Errorf("seed %d, %v: %s is off by %g", seed, ops, name, d)
			}
		}
	}
}

// Attention, normalizations and rotary embeddings that a graph has in pieces are what they are on the CPU, however the provider joins them, and so is what only
// looks like one.
func TestProviderJoinsPatterns(t *testing.T) {
	library, about, _ := aboutProvider(t)
	before, _ := about.Joined()
	for seed := range uint64(480) {
		c := &patternCase{rng: rand.New(rand.NewPCG(seed, 13)), inputs: map[string]*tensor.Tensor{}}
		path := modelOf(t, 18, func(g *onnx.Graph) {
			g.Inputs, c.graph = nil, g
			[]func(){c.norm, c.attention, c.rotation, c.sum}[seed%4]()
		})
		c.compare(t, library, seed, path, 3e-5)
	}
	const whole = 207 // have all of an operator, and nothing else looks into it
	if after, _ := about.Joined(); after-before != whole {
		t.Errorf("%d of these graphs were joined, want %d", after-before, whole)
	}
}
