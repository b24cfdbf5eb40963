package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// TestMatMulForms covers ranks, sides and biases. A form says how a graph with one MatMul looks; "x" is the dynamic input,
// W is [40 × 37] and the bias, where there is one, is added by an Add whose other input it is.
func TestMatMulForms(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(10, 11))
	const n, k = formN, formK
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", n, k)
	for _, f := range []struct {
		name    string
		x       []int64 // shape of x
		unknown bool    // declare x without a shape
		left    bool
		w       []int64 // shape of the stored weight; [K, N], or [N, K] on the left
		bias    []int64 // nil for none
		reason  rewrite.Reason
		folded  bool
	}{
		{name: "vector", x: []int64{k}, w: []int64{k, n}},
		{name: "matrix", x: []int64{2, k}, w: []int64{k, n}, bias: []int64{n}, folded: true},
		{name: "rank 4", x: []int64{2, 1, 3, k}, w: []int64{k, n}, bias: []int64{1, 1, n}, folded: true},
		{name: "scalar bias", x: []int64{2, k}, w: []int64{k, n}, bias: []int64{}, folded: true},
		{name: "longer bias", x: []int64{2, k}, w: []int64{k, n}, bias: []int64{1, 1, n}},
		{name: "bias of every row", x: []int64{2, k}, w: []int64{k, n}, bias: []int64{2, 1}},
		{name: "unknown rank", x: []int64{2, k}, unknown: true, w: []int64{k, n}, bias: []int64{n}, folded: true},
		{name: "unknown rank, long bias", x: []int64{2, k}, unknown: true, w: []int64{k, n}, bias: []int64{1, n}},
		{name: "leading ones", x: []int64{2, 3, k}, w: []int64{1, k, n}},
		{name: "leading ones that lengthen", x: []int64{2, k}, w: []int64{1, k, n}, reason: rewrite.Rank},
		{name: "left", x: []int64{k, 3}, left: true, w: []int64{n, k}, bias: []int64{n, 1}, folded: true},
		{name: "left, bias of every column", x: []int64{k, 3}, left: true, w: []int64{n, k}, bias: []int64{3}},
		{name: "left, batch", x: []int64{2, k, 3}, left: true, w: []int64{n, k}, bias: []int64{n, 1}, folded: true},
		{name: "left, vector", x: []int64{k}, left: true, w: []int64{n, k}, bias: []int64{n}, folded: true},
		{name: "left, unknown rank", x: []int64{k, 3}, unknown: true, left: true, w: []int64{n, k}, reason: rewrite.UnsupportedAttr},
	} {
		t.Run(f.name, func(t *testing.T) {
			info := onnx.NewValueInfo("x", onnx.Float, onnx.UnknownRank)
			if !f.unknown {
				dims := make([]any, len(f.x))
				for i, d := range f.x {
					dims[i] = d
				}
				info = onnx.NewValueInfo("x", onnx.Float, dims...)
			}
			v, inputs := w.transposed(), []string{"x", "w"}
			if f.left {
				v, inputs = w.v, []string{"w", "x"}
			}
			g := &onnx.Graph{Inputs: []*onnx.ValueInfo{info}, Initializers: []*onnx.Tensor{floats("w", f.w, v)}}
			g.Nodes = append(g.Nodes, node("fc", "MatMul", inputs, []string{"y"}))
			if f.bias != nil {
				size := 1
				for _, d := range f.bias {
					size *= int(d)
				}
				g.Initializers = append(g.Initializers, floats("b", f.bias, normal(rng, size)))
				g.Nodes = append(g.Nodes, node("add", "Add", []string{"y", "b"}, []string{"z"}))
			}
			g.Nodes = append(g.Nodes, node("", "Identity", g.Nodes[len(g.Nodes)-1].Outputs, []string{"out"}))
			g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("out", onnx.Float, onnx.UnknownRank)}
			m := newModel(8, 17, g)
			before := onnx.Clone(m)

			sites := find(t, m)
			if len(sites) != 1 || sites[0].Reason != f.reason {
				t.Fatalf("sites %+v, want one with reason %q", sites, f.reason)
			}
			if f.reason != "" {
				return
			}
			apply(t, m, matrix)
			if f.bias != nil && (count(m, "Add") == 0) != f.folded {
				t.Errorf("folded: %v, want %v\n%s", !f.folded, f.folded, dump(t, m))
			}
			size := 1
			for _, d := range f.x {
				size *= int(d)
			}
			sameOutputs(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, size), f.x...)}, 2e-6)
		})
	}
}

// TestBiasStaysWhenTheProductIsSeen keeps the Add when something else reads the product.
func TestBiasStaysWhenTheProductIsSeen(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 13))
	_, w := onGrid(t, rng, "d4:4", formN, formK)
	for _, seen := range []string{"output", "node"} {
		g := &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, formK)},
			Initializers: []*onnx.Tensor{floats("w", []int64{formK, formN}, w.transposed()), floats("b", []int64{formN}, normal(rng, formN))},
			Nodes: []*onnx.Node{
				node("fc", "MatMul", []string{"x", "w"}, []string{"y"}),
				node("add", "Add", []string{"y", "b"}, []string{"z"}),
			},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, 2, formN)},
		}
		if seen == "output" {
			g.Outputs = append(g.Outputs, onnx.NewValueInfo("y", onnx.Float, 2, formN))
		} else {
			g.Nodes = append(g.Nodes, node("relu", "Relu", []string{"y"}, []string{"r"}))
			g.Outputs = append(g.Outputs, onnx.NewValueInfo("r", onnx.Float, 2, formN))
		}
		m := newModel(8, 17, g)
		apply(t, m)
		if count(m, "Add") != 1 {
			t.Errorf("%s: the Add is gone:\n%s", seen, dump(t, m))
		}
	}
}

// TestUntransposes joins a Transpose of the activation with the one that the constant on the left asks for.
func TestUntransposes(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(14, 15))
	matrix, w := onGrid(t, rng, "d4:4,4", formN, formK)
	for _, perm := range [][]int64{nil, {1, 0}} {
		t.Run(fmt.Sprint(perm), func(t *testing.T) {
			turn := node("t", "Transpose", []string{"x"}, []string{"xt"})
			if perm != nil {
				turn.SetAttr(onnx.IntsAttr("perm", perm...))
			}
			m := newModel(8, 17, &onnx.Graph{
				Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", formK)},
				Initializers: []*onnx.Tensor{floats("w", []int64{formN, formK}, w.v)},
				Nodes:        []*onnx.Node{turn, node("fc", "MatMul", []string{"w", "xt"}, []string{"y"})},
				Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, formN, "batch")},
			})
			before := onnx.Clone(m)
			apply(t, m, matrix)
			if count(m, "Transpose") != 1 {
				t.Errorf("want only the Transpose of the result:\n%s", dump(t, m))
			}
			sameOutputs(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 5*formK), 5, formK)}, 2e-6)
		})
	}
}
