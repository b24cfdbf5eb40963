package rewrite_test

import (
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// TestPartsOfOneTensor quantizes weights that are parts of one tensor, as the query and the key with the value are in PyTorch's
// cross-attention: coverage counts each part, and the tensor goes only when all its parts do.
func TestPartsOfOneTensor(t *testing.T) {
	testenv.ORT(t)
	const k = 64
	build := func(small int64) *onnx.Model {
		rng := rand.New(rand.NewPCG(1, 2))
		return newModel(8, 17, &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", k)},
			Initializers: []*onnx.Tensor{floats("packed", []int64{k + small, k}, normal(rng, int(k+small)*k)), onnx.NewTensor("sizes", []int64{2}, []int64{k, small})},
			Nodes: []*onnx.Node{
				node("split", "Split", []string{"packed", "sizes"}, []string{"a", "b"}),
				node("ta", "Transpose", []string{"a"}, []string{"at"}),
				node("tb", "Transpose", []string{"b"}, []string{"bt"}),
				node("q", "MatMul", []string{"x", "at"}, []string{"y"}),
				node("kv", "MatMul", []string{"x", "bt"}, []string{"z"}),
			},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", k), onnx.NewValueInfo("z", onnx.Float, "batch", small)},
		})
	}
	m := build(2 * k)
	weights, share := rewrite.Coverage(find(t, m))
	if weights != 3*k*k || share != 1 {
		t.Errorf("%d weights, %v of them covered; want %d and all", weights, share, 3*k*k)
	}
	result := apply(t, m)
	if result.Weights != 3*k*k || len(result.Removed) != 2 || m.Graph.Initializer("packed") != nil || len(m.Graph.Nodes) != 2 {
		t.Errorf("%d weights coded, %v removed, %d nodes left; want %d, the tensor with its sizes, and 2", result.Weights, result.Removed, len(m.Graph.Nodes), 3*k*k)
	}
	for _, s := range find(t, build(8)) {
		want := rewrite.SharedWithFloat
		if s.Name == "kv" {
			want = rewrite.TooSmall
		}
		if s.Reason != want {
			t.Errorf("%s is skipped as %q, want %q", s.Name, s.Reason, want)
		}
	}
}
