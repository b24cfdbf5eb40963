package onnx_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/onnx"
)

// affine returns the model y = x·W.
func affine() *onnx.Model {
	m := onnx.NewModel(8, 17, "affine")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "N", 3)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "N", 2)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("W", []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6})}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"x", "W"}, []string{"y"})}
	return m
}

// Write a model, open it, add a node behind its output and write it again, with
// the weights in a file of their own.
func Example() {
	dir, err := os.MkdirTemp("", "onnx")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "affine.onnx")
	if _, err := affine().Save(path, onnx.SaveOptions{}); err != nil {
		log.Fatal(err)
	}

	m, err := onnx.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	names := onnx.NewNames(m)
	hidden := names.Unique("y")
	m.Graph.Nodes[0].Outputs[0] = hidden
	m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Relu", []string{hidden}, []string{"y"}))
	for _, p := range onnx.Check(m) {
		log.Fatal(p)
	}
	files, err := m.Save(filepath.Join(dir, "relu.onnx"), onnx.SaveOptions{
		External:          onnx.ExternalAlways,
		ExternalThreshold: 1,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		fmt.Println(filepath.Base(f.Path), f.Bytes > 0)
	}
	// Output:
	// relu.onnx true
	// relu.onnx.data true
}

func ExampleModel_Tensors() {
	for r := range affine().Tensors() {
		n, err := r.Tensor.ByteSize()
		fmt.Println(r.Where(), r.Tensor.DataType, r.Tensor.Dims, n, "bytes", err)
	}
	// Output:
	// graph: initializer "W" float [3 2] 24 bytes <nil>
}

func ExampleNewIndex() {
	m := affine()
	x := onnx.NewIndex(m)
	main := x.GraphScope(m.Graph)
	w := x.Lookup(main, m.Graph.Nodes[0].Inputs[1])
	fmt.Println(w.Name, "constant:", w.IsConstant(), "readers:", len(w.Uses))
	y := x.Lookup(main, "y")
	fmt.Println(y.Name, "made by", y.Node.OpType)
	// Output:
	// W constant: true readers: 1
	// y made by MatMul
}

func ExampleFloat16FromFloat32() {
	h := onnx.Float16FromFloat32(1.0 / 3)
	fmt.Printf("%04x %v\n", h, onnx.Float16ToFloat32(h))
	// Output: 3555 0.33325195
}

func ExampleCheck() {
	m := affine()
	m.Graph.Nodes[0].Inputs[0] = "z"
	for _, p := range onnx.Check(m) {
		fmt.Println(p)
	}
	// Output: graph: node node[0]:MatMul: reads a value that nothing defines: "z"
}
