package rewrite_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// A correction joins the bias of a site, whatever form that has, and is left out where there is none.
func TestCorrection(t *testing.T) {
	const k, n, rows = 40, 48, 3
	rng := rand.New(rand.NewPCG(1, 9))
	weights, bias, x := normal(rng, k*n), normal(rng, n), normal(rng, rows*k)
	correction := normal(rng, n)
	for _, c := range []struct {
		name   string
		factor float64 // how often the correction is in the output
		nodes  []*onnx.Node
	}{
		{"stored bias of a Gemm", 1, []*onnx.Node{node("m", "Gemm", []string{"x", "w", "b"}, []string{"y"})}},
		{"scaled bias of a Gemm", 1, []*onnx.Node{node("m", "Gemm", []string{"x", "w", "b"}, []string{"y"}, onnx.FloatAttr("beta", 0.5))}},
		{"a bias of one number", 1, []*onnx.Node{node("m", "Gemm", []string{"x", "w", "b1"}, []string{"y"})}},
		{"Add behind a MatMul", 1, []*onnx.Node{node("m", "MatMul", []string{"x", "w"}, []string{"h"}), node("a", "Add", []string{"b", "h"}, []string{"y"})}},
		{"no bias", 0, []*onnx.Node{node("m", "MatMul", []string{"x", "w"}, []string{"y"})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			build := func(correction []float32) []float32 {
				m := newModel(9, 17, &onnx.Graph{
					Initializers: []*onnx.Tensor{floats("w", []int64{k, n}, weights), floats("b", []int64{n}, bias), floats("b1", []int64{1}, bias[:1])},
					Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, rows, k)},
					Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, rows, n)},
				})
				for _, n := range c.nodes {
					m.Graph.Nodes = append(m.Graph.Nodes, onnx.Clone(n))
				}
				site := find(t, m)[0]
				r, err := quant.Quantize(context.Background(), site.Weight, quant.Options{Codec: parseCodec(t, "d4:4,4:g2,3,4,6")})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: site, Matrix: r.Matrix, Correction: correction}}, "test"); err != nil {
					t.Fatal(err)
				}
				wellFormed(t, m)
				return run(t, m, ort.OptimizeAll, map[string]*tensor.Tensor{"x": tensor.Of(x, rows, k)})["y"]
			}
			plain, corrected := build(nil), build(correction)
			for i := range plain {
				want := float64(plain[i]) + c.factor*float64(correction[i%n])
				if math.Abs(float64(corrected[i])-want) > 1e-4 {
					t.Fatalf("output %d is %v, want %v", i, corrected[i], want)
				}
			}
		})
	}
	m := newModel(9, 17, &onnx.Graph{
		Initializers: []*onnx.Tensor{floats("w", []int64{k, n}, weights)},
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, rows, k)},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, rows, n)},
		Nodes:        []*onnx.Node{node("m", "MatMul", []string{"x", "w"}, []string{"y"})},
	})
	site := find(t, m)[0]
	matrix, _ := onGrid(t, rng, "d4:4,4:g2,3,4,6", n, k)
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: site, Matrix: matrix, Correction: correction[1:]}}, "test"); err == nil {
		t.Error("a correction of the wrong length was taken")
	}
}
