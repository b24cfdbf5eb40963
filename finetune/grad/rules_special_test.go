package grad

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Attention is exported with Where(IsNaN(p), 0, p) behind its Softmax: the gradient is not masked there, but is behind anything else.
func TestWhereOfNaN(t *testing.T) {
	for _, c := range []struct {
		op     string
		wheres int
	}{{"Softmax", 1}, {"Exp", 2}} {
		m := onnx.NewModel(8, 13, "masked")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 3)}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)}
		m.Graph.Initializers = []*onnx.Tensor{onnx.Scalar[float32]("zero", 0)}
		m.Graph.Nodes = []*onnx.Node{
			onnx.NewNode(c.op, []string{"x"}, []string{"p"}),
			onnx.NewNode("IsNaN", []string{"p"}, []string{"mask"}),
			onnx.NewNode("Where", []string{"mask", "zero", "p"}, []string{"y"}),
		}
		g, err := Trace(context.Background(), m, loader(t, ""), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)})
		if err != nil {
			t.Fatal(err)
		}
		y := g.Value("y")
		if _, err := g.Backward(g.total(g.mul(y, y)), []string{"x"}, nil); err != nil {
			t.Fatal(err)
		}
		wheres := 0
		for _, n := range g.nodes {
			if n.OpType == "Where" {
				wheres++
			}
		}
		if wheres != c.wheres {
			t.Errorf("behind %s the graph has %d Where nodes with its gradient, want %d", c.op, wheres, c.wheres)
		}
	}
}

// Products of float16 with a vector have gradients: Gemm, as which others are written, does not take float16.
func TestHalfVectors(t *testing.T) {
	for _, shapes := range [][3][]int64{{{3, 4}, {4}, {3}}, {{2, 3, 4}, {4}, {2, 3}}, {{4}, {2, 4, 3}, {2, 3}}, {{4}, {4}, {}}} {
		m := onnx.NewModel(8, 17, "half")
		m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"a", "b"}, []string{"y"})}
		g := &Graph{
			source: m, opset: 17, stored: map[string]*onnx.Tensor{}, ints: map[string][]int64{}, names: onnx.NewNames(m), cached: map[string]*Value{},
			values: map[string]*Value{}, inputs: []string{"a", "b"}, outputs: []string{"y"},
		}
		for i, name := range []string{"a", "b", "y"} {
			g.values[name] = &Value{name, onnx.Float16, shapes[i]}
		}
		if err := g.lower(m.Graph.Nodes); err != nil {
			t.Fatal(err)
		}
		gradients, err := g.Backward(g.total(g.Value("y")), []string{"a", "b"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range gradients {
			if !slices.Equal(d.Shape, shapes[i]) {
				t.Errorf("%v · %v: gradient %d has shape %v", shapes[0], shapes[1], i, d.Shape)
			}
		}
	}
}

// Rows of zeros, as padding is, have a norm without a gradient: theirs is zero, and that of the others is not touched.
func TestNormOfZeros(t *testing.T) {
	m := onnx.NewModel(8, 13, "norm")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 2)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("ReduceL2", []string{"x"}, []string{"y"}, onnx.IntsAttr("axes", 1))}
	inputs := map[string]*tensor.Tensor{"x": tensor.Of([]float32{0, 0, 3, -4}, 2, 2)}
	load := loader(t, "")
	g, err := Trace(context.Background(), m, load, inputs)
	if err != nil {
		t.Fatal(err)
	}
	gradients, err := g.Backward(g.total(g.Value("y")), []string{"x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := load(g.Model(gradients...), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	d, err := tensor.View[float32](out[gradients[0].Name])
	if want := []float32{0, 0, 0.6, -0.8}; err != nil || !slices.Equal(d, want) {
		t.Errorf("gradient %v, %v; want %v", d, err, want)
	}
}

// Nodes that work as in training, and outputs whose gradient nobody knows, are errors that name the node: their gradients would be wrong.
func TestNodesForTraining(t *testing.T) {
	vector := func(name string) *onnx.Tensor { return onnx.NewTensor(name, []int64{2}, []float32{1, 2}) }
	on, off := onnx.NewTensor("on", nil, []bool{true}), onnx.NewTensor("off", nil, []bool{false})
	for name, c := range map[string]struct {
		node *onnx.Node
		want string
	}{
		"batch":        {onnx.NewNode("BatchNormalization", []string{"x", "a", "b", "c", "d"}, []string{"y", "m", "v"}, onnx.IntAttr("training_mode", 1)), "training_mode"},
		"dropping":     {onnx.NewNode("Dropout", []string{"x", "", "on"}, []string{"y"}), "training_mode"},
		"not dropping": {onnx.NewNode("Dropout", []string{"x", "", "off"}, []string{"y"}), ""},
		"mean":         {onnx.NewNode("LayerNormalization", []string{"x", "a"}, []string{"z", "y"}), `output "y"`},
	} {
		m := onnx.NewModel(8, 17, "training")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 3, 2)}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)}
		m.Graph.Initializers = []*onnx.Tensor{vector("a"), vector("b"), vector("c"), vector("d"), on, off}
		m.Graph.Nodes = []*onnx.Node{c.node}
		g, err := Trace(context.Background(), m, loader(t, ""), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3, 4, 5, 7}, 3, 2)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Backward(g.total(g.Value("y")), []string{"x"}, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}
