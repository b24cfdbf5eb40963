package rewrite_test

import (
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// Nodes that lack what their operators need end no program: no more is expected of a model than [onnx.Check] knows of.
func TestNodesWithoutInputsOrOutputs(t *testing.T) {
	w := floats("w", []int64{64, 64}, make([]float32, 64*64))
	model := func(nodes ...*onnx.Node) *onnx.Model {
		return newModel(8, 17, &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 64, 64), onnx.NewValueInfo("ids", onnx.Int64, "count")},
			Initializers: []*onnx.Tensor{w},
			Nodes:        nodes,
			Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 64, 64)},
		})
	}

	m := model(node("turn", "Transpose", nil, []string{"xt"}), node("fc", "Gemm", []string{"xt", "w"}, []string{"y"}, onnx.IntAttr("transA", 1)))
	sites := find(t, m)
	if len(sites) != 1 || sites[0].Status != rewrite.Candidate {
		t.Fatalf("%+v", sites)
	}
	if _, err := rewrite.ExportNBits(m, sites, rewrite.NBitsOptions{}); err != nil { // which arranges the activation
		t.Error(err)
	}

	for _, outputs := range [][]string{nil, {""}} {
		m = model(node("look", "Gather", []string{"w", "ids"}, outputs), node("fc", "MatMul", []string{"x", "w"}, []string{"y"}))
		sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
		if err != nil || len(sites) != 2 || sites[1].Op != "Gather" || sites[1].Reason != rewrite.UnsupportedAttr {
			t.Errorf("outputs %q: %v, %+v", outputs, err, sites)
		}
	}
}

// A table that a caller may replace is told of, as a weight of a product is.
func TestReplaceableEmbedding(t *testing.T) {
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, "count"), onnx.NewValueInfo("table", onnx.Float, 80, 64)},
		Initializers: []*onnx.Tensor{floats("table", []int64{80, 64}, make([]float32, 80*64))},
		Nodes:        []*onnx.Node{node("look", "Gather", []string{"table", "ids"}, []string{"y"})},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "count", 64)},
	})
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil || len(sites) != 1 || sites[0].Reason != rewrite.Replaceable {
		t.Errorf("%v, %+v", err, sites)
	}
}
