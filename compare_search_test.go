package cosetq

import (
	"slices"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// What compare suggests to leave out is one layer, whatever layers and weights are called.
func TestPatternsMatchOneLayer(t *testing.T) {
	m := onnx.NewModel(8, 17, "names")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)}
	for _, w := range []string{"w", "v", "u"} {
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor(w, []int64{64, 64}, make([]float32, 64*64)))
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"a"}), onnx.NewNode("MatMul", []string{"a", "v"}, []string{"b"}),
		onnx.NewNode("MatMul", []string{"b", "u"}, []string{"y"}),
	}
	for i, name := range []string{"v", "op:*", ""} {
		m.Graph.Nodes[i].Name = name
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range sites {
		pattern := patternOf(sites, i)
		if matched, err := rewrite.Select(sites, pattern); err != nil || !slices.Equal(matched, []int{i}) {
			t.Errorf("layer %d, %q: %q matches %v, %v", i, sites[i].Name, pattern, matched, err)
		}
	}
}
