package finetune

import (
	"slices"
	"testing"

	"github.com/cosetq/cosetq/onnx"
)

func TestParameters(t *testing.T) {
	m := onnx.NewModel(8, 17, "g")
	v := func(name string, dims ...int64) *onnx.Tensor {
		n := int64(1)
		for _, d := range dims {
			n *= d
		}
		return onnx.NewTensor(name, dims, make([]float32, n))
	}
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 4), onnx.NewValueInfo("ids", onnx.Int64, 2), onnx.NewValueInfo("w", onnx.Float, 4, 4)}
	m.Graph.Initializers = []*onnx.Tensor{
		v("norm", 4), v("bias", 1, 4), v("half"), v("matrix", 4, 4), v("frequencies", 4, 1), v("small", 4, 2), v("twice", 4), v("table", 8, 4),
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Cast", []string{"ids"}, []string{"positions"}, onnx.IntAttr("to", 1)),
		onnx.NewNode("MatMul", []string{"frequencies", "positions"}, []string{"angles"}),
		onnx.NewNode("Mul", []string{"x", "norm"}, []string{"a"}),
		onnx.NewNode("MatMul", []string{"a", "w"}, []string{"b"}),
		onnx.NewNode("Add", []string{"b", "bias"}, []string{"c"}),
		onnx.NewNode("Mul", []string{"c", "half"}, []string{"d"}),
		onnx.NewNode("Add", []string{"d", "matrix"}, []string{"e"}),
		onnx.NewNode("Sub", []string{"e", "twice"}, []string{"f"}),
		onnx.NewNode("Concat", []string{"twice", "norm2"}, []string{"g"}, onnx.IntAttr("axis", 0)),
		onnx.NewNode("MatMul", []string{"f", "small"}, []string{"y"}),
		onnx.NewNode("Gather", []string{"table", "ids"}, []string{"rows"}),
	}
	if got, want := parameters(m), []string{"norm", "bias", "small"}; !slices.Equal(got, want) {
		t.Errorf("parameters %q, want %q", got, want)
	}
}
