package conformance

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// randomLayer adds an attention over products of the same rows, in one of the ways that exporters write it, with some of what is between as outputs.
type randomLayer struct {
	rng              *rand.Rand
	g                *onnx.Graph
	heads, kv, width int64
	cached           bool
}

func (l *randomLayer) coin() bool { return l.rng.IntN(2) == 0 }

func (l *randomLayer) node(op string, inputs []string, attrs ...*onnx.Attribute) string {
	out := fmt.Sprintf("%s_%d", op, len(l.g.Nodes))
	n := onnx.NewNode(op, inputs, []string{out}, attrs...)
	n.Name = out
	l.g.Nodes = append(l.g.Nodes, n)
	if l.rng.IntN(8) == 0 {
		l.output(out)
	}
	return out
}

func (l *randomLayer) output(name string) {
	for _, o := range l.g.Outputs {
		if o.Name == name {
			return
		}
	}
	v := onnx.NewValueInfo(name, onnx.Float)
	v.Type.Tensor.Shape = nil
	l.g.Outputs = append(l.g.Outputs, v)
}

func (l *randomLayer) list(v ...int64) string {
	name := fmt.Sprintf("list_%d", len(l.g.Initializers))
	l.g.Initializers = append(l.g.Initializers, onnx.NewTensor(name, []int64{int64(len(v))}, v))
	return name
}

func (l *randomLayer) constant(v []float32, dims ...int64) string {
	name := fmt.Sprintf("constant_%d", len(l.g.Initializers))
	l.g.Initializers = append(l.g.Initializers, onnx.NewTensor(name, dims, v))
	return name
}

// operand is a product by heads, with what a cache has ahead of it, and as many heads as queries have.
func (l *randomLayer) operand(name string, heads int64) string {
	x := l.node("Reshape", []string{name, l.list(0, 0, heads, l.width)})
	x = l.node("Transpose", []string{x}, onnx.IntsAttr("perm", 0, 2, 1, 3))
	if name == "q" {
		return x
	}
	if l.cached {
		past := "past_" + name
		l.g.Inputs = append(l.g.Inputs, onnx.NewValueInfo(past, onnx.Float, "batch", int(heads), "past", int(l.width)))
		x = l.node("Concat", []string{past, x}, onnx.IntAttr("axis", 2))
		l.output(x)
	}
	if repeats := l.heads / heads; repeats > 1 {
		x = l.node("Unsqueeze", []string{x, l.list(2)})
		x = l.node("Expand", []string{x, l.list(1, 1, repeats, 1, 1)})
		x = l.node("Reshape", []string{x, l.list(0, l.heads, -1, l.width)})
	}
	return x
}

func (l *randomLayer) add() {
	q, k, v := l.operand("q", l.heads), l.operand("k", l.kv), l.operand("v", l.kv)
	k = l.node("Transpose", []string{k}, onnx.IntsAttr("perm", 0, 1, 3, 2))
	scores := l.node("Mul", []string{l.node("MatMul", []string{q, k}), l.constant([]float32{0.2})})
	if l.coin() {
		l.g.Inputs = append(l.g.Inputs, onnx.NewValueInfo("mask", onnx.Float, []any{"batch", 1, "tokens", "all"}...))
		mask := "mask"
		if l.coin() {
			mask = l.node("Neg", []string{mask})
		}
		scores = l.node("Add", []string{scores, mask})
	}
	y := l.node("MatMul", []string{l.node("Softmax", []string{scores}, onnx.IntAttr("axis", -1)), v})
	y = l.node("Reshape", []string{l.node("Transpose", []string{y}, onnx.IntsAttr("perm", 0, 2, 1, 3)), l.list(0, 0, l.heads*l.width)})
	ones := slices.Repeat([]float32{1, 0.5}, int(l.heads*l.width)/2)
	y = l.node("Add", []string{"x", y})
	y = l.node("LayerNormalization", []string{y, l.constant(ones, l.heads*l.width)}, onnx.FloatAttr("epsilon", 1e-3))
	if l.coin() {
		l.g.Initializers = append(l.g.Initializers, onnx.NewTensor("last", nil, []int64{-1}))
		y = l.node("Gather", []string{y, "last"}, onnx.IntAttr("axis", 1))
	}
	l.output(y)
}

// Layers of language models give what they do on the CPU, whatever of them is an output, in one session for prompts and tokens of many shapes, as they come
// and as they are recorded.
func TestProviderRunsLayersOfManyShapes(t *testing.T) {
	ops, library, rt := testenv.Ops(t), testenv.Provider(t), openRuntime(t)
	codecs := []string{"d4:4,4:g3,4,5,6", "z1:16:g3,4,5,6"}
	for seed := range uint64(24) {
		l := &randomLayer{rng: rand.New(rand.NewPCG(seed, 53)), heads: 4, width: 16}
		l.kv, l.cached = []int64{1, 2, 4}[l.rng.IntN(3)], l.coin()
		codec := func() string { return codecs[max(0, l.rng.IntN(6)-4)] }
		weights := []factor{{"q", int(l.heads * l.width), codec()}, {"k", int(l.kv * l.width), codec()}, {"v", int(l.kv * l.width), codec()}}
		path := sharedRows(t, onnx.Float, int(l.heads*l.width), weights, func(g *onnx.Graph) { l.g = g; l.add() })
		o := ort.SessionOptions{Threads: 1, Optimization: ort.OptimizeDisabled, OpsLibrary: ops, Config: keeping(cudaops.AccuracyAccurate)}
		open := func() *ort.Session {
			s, err := rt.NewSession(path, o)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
		want := open()
		o.Provider = library
		got := open()
		for run, shape := range [][3]int64{{1, 5, 0}, {1, 5, 0}, {2, 3, 4}, {1, 5, 0}, {1, 5, 0}, {1, 1, 5}, {1, 1, 6}, {1, 1, 6}, {1, 1, 6}, {2, 3, 4}, {1, 1, 6}, {1, 5, 0}, {2, 3, 4}, {2, 3, 4}, {2, 3, 4}, {3, 1, 1}} {
			batch, tokens, past := shape[0], shape[1], shape[2]
			if !l.cached {
				past = 0
			}
			inputs := map[string]*tensor.Tensor{}
			for i, spec := range got.Inputs() {
				dims := map[string][]int64{"x": {batch, tokens, l.heads * l.width}, "mask": {batch, 1, tokens, past + tokens}}[spec.Name]
				if dims == nil {
					dims = []int64{batch, l.kv, past, l.width}
				}
				n := int64(1)
				for _, d := range dims {
					n *= d
				}
				inputs[spec.Name] = suite{dtype: onnx.Float}.tensor(numbers(uint64(run*10+i), int(n)), dims...)
			}
			a, err := want.Run(context.Background(), inputs)
			if err != nil {
				t.Fatalf("seed %d, %v, on the CPU: %v", seed, shape, err)
			}
			b, err := got.Run(context.Background(), inputs)
			if err != nil {
				t.Fatalf("seed %d, %v: %v", seed, shape, err)
			}
			for _, name := range slices.Sorted(maps.Keys(a)) {
				if !slices.Equal(a[name].Shape, b[name].Shape) {
					t.Fatalf("seed %d, run %d of %v: %s is %v, want %v", seed, run, shape, name, b[name].Shape, a[name].Shape)
				}
				if d := relative(floats(t, a[name]), floats(t, b[name])); !(d < 2e-3) {
					t.Errorf("seed %d, run %d of %v: %s has a relative error of %g", seed, run, shape, name, d)
				}
			}
		}
	}
}

func floats(t *testing.T, x *tensor.Tensor) []float64 {
	t.Helper()
	v := make([]float64, x.Count())
	if err := x.Floats(v, 0, int64(len(v))); err != nil {
		t.Fatal(err)
	}
	return v
}
