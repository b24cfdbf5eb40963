package models

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// Names and versions in the ONNX file. Operator set 17 needs IR version 8 and runs in every ONNX Runtime since 1.12.
const (
	modelIR    = 8
	modelOpset = 17
	inputName  = "image"
	outputName = "logits"
)

// ONNX is the classifier as an ONNX model: image [batch, 784] → logits [batch, 10], pixels from 0 to 1.
// Its layers stand for the ways in which exporters write one: as Gemm with transB (the first and the last) and as MatMul
// followed by Add.
func (m *MLP) ONNX() *onnx.Model {
	model := onnx.NewModel(modelIR, modelOpset, "digits")
	model.ProducerName = "cosetq"
	model.DocString = "Tells digits drawn from the Go fonts apart. Made by github.com/cosetq/cosetq/models."
	g := model.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo(inputName, onnx.Float, "batch", Pixels)}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(outputName, onnx.Float, "batch", classes)}

	add := func(op, name string, inputs []string, output string, attrs ...*onnx.Attribute) {
		node := onnx.NewNode(op, inputs, []string{output}, attrs...)
		node.Name = name
		g.Nodes = append(g.Nodes, node)
	}
	add("Gemm", "fc1", []string{inputName, "fc1.weight", "fc1.bias"}, "fc1.out", onnx.IntAttr("transB", 1))
	add("Relu", "relu1", []string{"fc1.out"}, "relu1.out")
	add("MatMul", "fc2", []string{"relu1.out", "fc2.weight"}, "fc2.product")
	add("Add", "fc2.add", []string{"fc2.product", "fc2.bias"}, "fc2.out")
	add("Relu", "relu2", []string{"fc2.out"}, "relu2.out")
	add("Gemm", "fc3", []string{"relu2.out", "fc3.weight", "fc3.bias"}, outputName, onnx.IntAttr("transB", 1))

	for i := range m.layers {
		l := &m.layers[i]
		w, dims := l.w, []int64{int64(l.in), int64(l.out)}
		if transposed(i) {
			w, dims = transpose(w, l.in, l.out), []int64{int64(l.out), int64(l.in)}
		}
		g.Initializers = append(g.Initializers,
			onnx.NewTensor(weightName(i), dims, w),
			onnx.NewTensor(biasName(i), []int64{int64(l.out)}, l.b))
	}
	return model
}

// fromONNX reads the weights of a model that [MLP.ONNX] made.
func fromONNX(model *onnx.Model) (*MLP, error) {
	m := newMLP()
	for i := range m.layers {
		l := &m.layers[i]
		w, err := weights(model, weightName(i), len(l.w))
		if err != nil {
			return nil, err
		}
		if transposed(i) {
			w = transpose(w, l.out, l.in)
		}
		b, err := weights(model, biasName(i), len(l.b))
		if err != nil {
			return nil, err
		}
		l.w, l.b = w, b
	}
	return m, nil
}

func weights(model *onnx.Model, name string, want int) ([]float32, error) {
	t := model.Graph.Initializer(name)
	if t == nil {
		return nil, fmt.Errorf("models: the stored model has no initializer %q", name)
	}
	v, err := t.Float32s()
	if err != nil {
		return nil, fmt.Errorf("models: the stored model: %w", err)
	}
	if len(v) != want {
		return nil, fmt.Errorf("models: %q of the stored model has %d values, want %d", name, len(v), want)
	}
	return v, nil
}

func weightName(layer int) string { return fmt.Sprintf("fc%d.weight", layer+1) }
func biasName(layer int) string   { return fmt.Sprintf("fc%d.bias", layer+1) }

// transposed tells which layers are a Gemm with transB, whose weight is stored [out, in].
func transposed(layer int) bool { return layer != 1 }

// transpose turns a rows × cols matrix into a cols × rows one.
func transpose(w []float32, rows, cols int) []float32 {
	t := make([]float32, len(w))
	for i := range rows {
		for j := range cols {
			t[j*rows+i] = w[i*cols+j]
		}
	}
	return t
}
