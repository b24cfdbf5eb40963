//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// heads is an input of heads, [2, count, tokens, width], as a graph may have them.
func (c *patternCase) heads(name string, count, tokens, width int64) string {
	shape := []int64{2, count, tokens, width}
	swaps := c.coin()
	if swaps {
		shape = []int64{2, tokens, count, width}
	}
	x := c.input(name, c.floats(shape...), shape...)
	c.graph.Inputs[len(c.graph.Inputs)-1].Type.Tensor.Shape.Dims[3] = &onnx.Dim{Value: width, HasValue: true}
	if swaps {
		x = c.node("Transpose", []string{x}, onnx.IntsAttr("perm", 0, 2, 1, 3))
	}
	return x
}

// turned is the rotary embedding of heads.
func (c *patternCase) turned(x, cosine, sine string, width int64) string {
	part := fmt.Sprintf("part%d", len(c.graph.Nodes))
	split := onnx.NewNode("Split", []string{x, c.integers(part, width/2, width/2)}, []string{part + "low", part + "high"}, onnx.IntAttr("axis", -1))
	split.Name = part
	c.graph.Nodes = append(c.graph.Nodes, split)
	turned := c.node("Concat", []string{c.node("Neg", []string{part + "high"}), part + "low"}, onnx.IntAttr("axis", -1))
	return c.node("Add", c.either(c.node("Mul", c.either(x, cosine)), c.node("Mul", c.either(turned, sine))))
}

// append is what models of language do to queries, keys and values over caches that grow, in any order that their nodes may have, or nearly that; it says
// whether that can be one step.
func (c *patternCase) append() bool {
	width, tokens := c.oneOf(2, 6, 16, 64), c.oneOf(1, 5)
	heads, own := c.oneOf(2, 4), c.oneOf(1, 2)
	past := func(name string, tokens int64) string {
		return c.input(name, c.floats(2, own, tokens, width), 2, own, tokens, width)
	}
	angles := func(name string) string {
		dims := [][]int64{{1, 1, tokens, width}, {2, 1, tokens, width}, {tokens, width}}[c.rng.IntN(3)]
		return c.input(name, c.floats(dims...), dims...)
	}
	before := c.oneOf(0, 1, 7)
	q, k, v := c.heads("q", heads, tokens, width), c.heads("k", own, tokens, width), c.heads("v", own, tokens, width)
	pastKeys, pastValues := past("past_keys", before), past("past_values", c.oneOf(before, before, 2))
	cosine, sine := angles("cosine"), angles("sine")
	one := true
	sineOfQueries := sine
	if c.rng.IntN(8) == 0 {
		sineOfQueries, one = angles("another"), false
	}
	axis := onnx.IntAttr("axis", c.oneOf(2, -2))
	var turnedQueries, keys, values string
	of := map[int]func(){
		0: func() { turnedQueries = c.turned(q, cosine, sineOfQueries, width) },
		1: func() {
			turned := c.turned(k, cosine, sine, width)
			keys = c.node("Concat", []string{pastKeys, turned}, axis)
			if c.rng.IntN(8) == 0 {
				c.output(turned)
				one = false
			}
		},
		2: func() {
			if keys != "" && c.rng.IntN(4) == 0 { // what comes behind the keys
				one = false
				v = c.node("Add", []string{v, c.node("ReduceMax", []string{keys}, onnx.IntAttr("keepdims", 0))})
			}
			values = c.node("Concat", []string{pastValues, v}, axis)
		},
	}
	for _, i := range c.rng.Perm(3) {
		of[i]()
		if c.rng.IntN(8) == 0 && keys != "" && (turnedQueries == "" || values == "") { // used ahead of what is yet to come
			c.output(c.node("Abs", []string{keys}))
		}
	}
	for _, y := range []string{turnedQueries, keys, values} {
		if c.coin() {
			c.output(y)
		} else {
			c.output(c.node("Abs", []string{y}))
		}
	}
	return one
}

// Queries, keys and values of caches that grow are one step where that can be, and what they are on the CPU either way.
func TestProviderAppendsToCaches(t *testing.T) {
	library, about, _ := aboutProvider(t)
	whole, joined := int64(0), int64(0)
	for seed := range uint64(160) {
		c := &patternCase{rng: rand.New(rand.NewPCG(seed, 43)), inputs: map[string]*tensor.Tensor{}}
		before, _ := about.Joined()
		path := modelOf(t, 18, func(g *onnx.Graph) {
			g.Inputs, c.graph = nil, g
			if c.append() {
				whole++
			}
		})
		c.compare(t, library, seed, path, 3e-5)
		if after, _ := about.Joined(); after-before == 3 { // two rotary embeddings, and both in one
			joined++
		}
	}
	if joined != whole || whole < 80 {
		t.Errorf("%d of %d such graphs are one step", joined, whole)
	}
}

// What layers ask of shapes is asked once where it is alike, and told apart where it is not.
func TestProviderAsksShapesOnce(t *testing.T) {
	library, _, _ := aboutProvider(t)
	for seed := range uint64(40) {
		c := &patternCase{rng: rand.New(rand.NewPCG(seed, 47)), inputs: map[string]*tensor.Tensor{}}
		layers := 2 + c.rng.IntN(4)
		path := modelOf(t, 18, func(g *onnx.Graph) {
			g.Inputs, c.graph = nil, g
			list := func(v ...int64) string { return c.integers(fmt.Sprintf("list%d", len(g.Initializers)), v...) }
			for i := range layers {
				x := c.input(fmt.Sprint("x", i), c.floats(1), 1, 1, 1)
				g.Inputs[i].Type.Tensor.Shape.Dims[2] = &onnx.Dim{Param: "any"}
				var attrs []*onnx.Attribute
				if c.rng.IntN(4) == 0 {
					attrs = append(attrs, onnx.IntAttr("start", c.oneOf(0, -3)))
				}
				shape := c.node("Shape", []string{x}, attrs...)
				cut := func(from int64) string { return c.node("Slice", []string{shape, list(from), list(from + 1)}) }
				to := c.node("Concat", []string{cut(0), list(c.oneOf(1, 1, -1)), c.node("Mul", []string{cut(1), cut(2)})}, onnx.IntAttr("axis", 0))
				c.output(c.node("Reshape", []string{x, to}))
				c.output(c.node("Expand", []string{c.node("ReduceMax", []string{x}), c.node("Mul", []string{to, to})}))
			}
		})
		o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
		want := session(t, path, o)
		o.Provider, o.Config = library, map[string]string{"ai.coset.gpu_nodes": "all"}
		got := session(t, path, o)
		for run := range 5 {
			for i := range layers {
				dims := []int64{c.oneOf(1, 2), c.oneOf(2, 3), c.oneOf(2, 3)}
				c.inputs[fmt.Sprint("x", i)] = tensor.Of(c.floats(dims...), dims...)
			}
			a, err := want.Run(context.Background(), c.inputs)
			if err != nil {
				t.Fatal(err)
			}
			b, err := got.Run(context.Background(), c.inputs)
			if err != nil {
				t.Fatal(err)
			}
			for name := range a {
				if d := distance(t, a[name], b[name]); !(d == 0) {
					t.Errorf("seed %d, run %d: %s is off by %g", seed, run, name, d)
				}
			}
		}
	}
}

// Nor do constants of other types with the same bytes pass for each other.
func TestProviderTellsTypesApart(t *testing.T) {
	library := aboutLibrary(t)
	zero := func(name string, v *onnx.Tensor) *onnx.Node {
		return onnx.NewNode("ConstantOfShape", []string{"rank"}, []string{name}, onnx.TensorAttr("value", v))
	}
	integers := func(from, to string) *onnx.Node {
		return onnx.NewNode("Cast", []string{from}, []string{to}, onnx.IntAttr("to", int64(onnx.Int64)))
	}
	path := modelOf(t, 18, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", "columns")}
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("two", nil, []float32{2}), onnx.NewTensor("three", nil, []int32{3})}
		g.Nodes = []*onnx.Node{
			onnx.NewNode("Shape", []string{"x"}, []string{"shape"}), onnx.NewNode("Shape", []string{"shape"}, []string{"rank"}),
			zero("none", onnx.NewTensor("", []int64{1}, []int32{0})), onnx.NewNode("Add", []string{"none", "three"}, []string{"threes"}), integers("threes", "often"),
			onnx.NewNode("Tile", []string{"x", "often"}, []string{"y"}),
			zero("no", onnx.NewTensor("", []int64{1}, []float32{0})), onnx.NewNode("Add", []string{"no", "two"}, []string{"twos"}), integers("twos", "times"),
			onnx.NewNode("Tile", []string{"x", "times"}, []string{"z"}),
		}
		g.Outputs = []*onnx.ValueInfo{untyped("y", onnx.Float), untyped("z", onnx.Float)}
		named(g, "")
	})
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
	in := map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)}
	want, err := session(t, path, o).Run(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	o.Provider, o.Config = library, map[string]string{"ai.coset.gpu_nodes": "all"}
	got, err := session(t, path, o).Run(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if d := distance(t, want[name], got[name]); !(d == 0) {
			t.Errorf("%s is off by %g", name, d)
		}
	}
}
