package grad

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// residual is a chain of blocks x + tanh(x·W1)·W2 with weights as inputs: all that a block keeps is wider than what passes on.
func residual(blocks int) (m *onnx.Model, inputs map[string]*tensor.Tensor, weights []string) {
	const rows, narrow, wide = 256, 8, 64
	r := rand.New(rand.NewPCG(1, 2))
	random := func(shape ...int64) *tensor.Tensor {
		v := make([]float32, product(shape))
		for i := range v {
			v[i] = float32(r.NormFloat64()) / 3
		}
		return tensor.Of(v, shape...)
	}
	m = onnx.NewModel(8, 17, "residual")
	inputs = map[string]*tensor.Tensor{"x0": random(rows, narrow)}
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, rows, narrow)}
	for i := range blocks {
		name := func(s string) string { return fmt.Sprint(s, i) }
		a, b := name("a"), name("b")
		weights = append(weights, a, b)
		inputs[a], inputs[b] = random(narrow, wide), random(wide, narrow)
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(a, onnx.Float, narrow, wide), onnx.NewValueInfo(b, onnx.Float, wide, narrow))
		m.Graph.Nodes = append(m.Graph.Nodes,
			onnx.NewNode("MatMul", []string{name("x"), a}, []string{name("h")}),
			onnx.NewNode("Tanh", []string{name("h")}, []string{name("t")}),
			onnx.NewNode("MatMul", []string{name("t"), b}, []string{name("y")}),
			onnx.NewNode("Add", []string{name("x"), name("y")}, []string{fmt.Sprint("x", i+1)}))
	}
	out := fmt.Sprint("x", blocks)
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(out, onnx.Float, rows, narrow)}
	return m, inputs, weights
}

// Weights that are cast while loading are none of the values of a run.
func TestPeakWithoutCastWeights(t *testing.T) {
	g := &Graph{values: map[string]*Value{}}
	for _, name := range []string{"wide", "long", "y"} {
		g.values[name] = &Value{name, onnx.Float, []int64{4}}
	}
	m := onnx.NewModel(8, 17, "m")
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewFloat16Tensor("w", []int64{4}, make([]float32, 4))}
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float16, 4)}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Cast", []string{"w"}, []string{"wide"}, onnx.IntAttr("to", int64(onnx.Float))),
		onnx.NewNode("Cast", []string{"x"}, []string{"long"}, onnx.IntAttr("to", int64(onnx.Float))),
		onnx.NewNode("Add", []string{"wide", "long"}, []string{"y"}),
	}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 4)}
	if got := g.PeakOf(m); got != 32 {
		t.Errorf("%d bytes, want 32: those of the input in float32 and of the sum", got)
	}
}

// Activations that are computed again give the same gradients, and keep fewer bytes alive.
func TestRecomputation(t *testing.T) {
	const blocks = 6
	m, inputs, weights := residual(blocks)
	load := loader(t, "")
	traced, err := Trace(context.Background(), m, load, inputs)
	if err != nil {
		t.Fatal(err)
	}
	loss, target, err := traced.AddLoss(MSE, fmt.Sprint("x", blocks))
	if err != nil {
		t.Fatal(err)
	}
	inputs[target.Name] = inputs["x0"]
	var results []map[string][]float32
	var peaks []int64
	for _, again := range []bool{false, true} {
		g := traced.Clone()
		var segments []Segment
		if again {
			segments = g.Segments(weights, loss.Name)
			if len(segments) < blocks {
				t.Fatalf("%d segments for %d blocks: %+v", len(segments), blocks, segments)
			}
		}
		grads, err := g.Backward(loss, weights, segments)
		if err != nil {
			t.Fatal(err)
		}
		peaks = append(peaks, g.Peak(grads...))
		s, err := load(g.Model(grads...), false)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(context.Background(), inputs)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		found := map[string][]float32{}
		for i, d := range grads {
			if found[weights[i]], err = tensor.View[float32](out[d.Name]); err != nil {
				t.Fatal(err)
			}
		}
		results = append(results, found)
	}
	for name, want := range results[0] {
		for i, got := range results[1][name] {
			if math.Abs(float64(got-want[i])) > 1e-5*(1+math.Abs(float64(want[i]))) {
				t.Fatalf("gradient %d of %s is %v, with activations computed again %v", i, name, want[i], got)
			}
		}
	}
	if peaks[1] > peaks[0]*7/10 {
		t.Errorf("%d bytes with activations computed again, %d when all are kept", peaks[1], peaks[0])
	}
}

func TestBlocks(t *testing.T) {
	m, inputs, weights := residual(4)
	g, err := Trace(context.Background(), m, loader(t, ""), inputs)
	if err != nil {
		t.Fatal(err)
	}
	any := func(string) bool { return true }
	blocks := g.Join(g.Segments(weights, "x4"), weights, any)
	// What the first weight reads depends on no weight, so the first block is cut once more.
	if len(blocks) != 5 || blocks[0].Input != "" || blocks[0].Output != "h0" || blocks[2].Output != "x2" || blocks[4].Output != "x4" {
		t.Fatalf("blocks %+v", blocks)
	}
	if got := g.Reads(blocks[3], weights); len(got) != 2 || got[0] != "a2" || got[1] != "b2" {
		t.Errorf("block 2 reads %v", got)
	}
	joined := g.Join(g.Segments(weights, "x4"), weights, func(cut string) bool { return cut == "x2" })
	if len(joined) != 1 || joined[0].Output != "x4" {
		t.Errorf("joined %+v", joined)
	}
	// Only the end of the chain depends on the last block's weights.
	late := g.Segments(weights[6:], "x4")
	if len(late) == 0 || late[0].Input != "" {
		t.Errorf("segments behind the last weights: %+v", late)
	}
	g.Cut("x2")
	need := g.Model(g.Value("x4"))
	for _, in := range need.Graph.Inputs {
		if in.Name == "x0" || in.Name == "a0" {
			t.Errorf("behind a cut the graph still reads %s", in.Name)
		}
	}
}

func TestNoRule(t *testing.T) {
	m, _, weights := residual(1)
	m.Graph.Nodes[1].OpType = "Det"
	m.Graph.Nodes[1].Name = "odd one"
	err := Check(m, weights)
	var missing *NoRuleError
	if !errors.As(err, &missing) || len(missing.Nodes) != 1 || missing.Nodes[0] != `Det "odd one"` {
		t.Errorf("got %v", err)
	}
	if err := Check(m, weights[1:]); err != nil {
		t.Errorf("the operator lies in front of the weight, and yet: %v", err)
	}
	m.Graph.Nodes[1].OpType = "Floor"
	if err := Check(m, weights); err != nil {
		t.Errorf("Floor is constant, and yet: %v", err)
	}
}
