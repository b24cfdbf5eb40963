package onnx_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// Attributes, tensors of every kind and a subgraph, put together by hand and printed.
func ExampleNewNode() {
	branch := func(name, op string) *onnx.Graph {
		return &onnx.Graph{
			Name:    name,
			Nodes:   []*onnx.Node{onnx.NewNode(op, []string{"x"}, []string{name})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo(name, onnx.Float, 2)},
		}
	}
	m := onnx.NewModel(8, 17, "kinds")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("positive", onnx.Bool)}
	m.Graph.Initializers = []*onnx.Tensor{
		onnx.NewRawTensor("x", onnx.Float, []int64{2}, onnx.RawFloat32([]float32{1, -2})),
		onnx.NewStringTensor("names", []int64{2}, []string{"first", "second"}),
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Constant", nil, []string{"scale"}, onnx.FloatsAttr("value_floats", 0.5, 2)),
		onnx.NewNode("If", []string{"positive"}, []string{"y"},
			onnx.GraphAttr("then_branch", branch("a", "Relu")), onnx.GraphAttr("else_branch", branch("b", "Neg"))),
	}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2)}
	if err := onnx.Fprint(os.Stdout, m); err != nil {
		log.Fatal(err)
	}
	for _, t := range m.Graph.Initializers {
		n, err := t.NumElements()
		fmt.Println(t.Name, n, t.DataType.IsFloat(), err)
	}
	// Output:
	// model ir=8 producer=""
	// import "" 17
	// graph "kinds"
	//   input  positive tensor(bool)[]
	//   init   x float[2]
	//   init   names string[2]
	//   scale = Constant() {value_floats=[0.5 2]}
	//   y = If(positive) {then_branch=graph, else_branch=graph}
	//     then_branch:
	//       a = Relu(x)
	//       output a tensor(float)[2]
	//     else_branch:
	//       b = Neg(x)
	//       output b tensor(float)[2]
	//   output y tensor(float)[2]
	// x 2 true <nil>
	// names 2 false <nil>
}

// Scope.SetNodes is how a pass edits graphs and functions alike; Metadata is where a program leaves a note for itself.
func ExampleModel_Walk() {
	m := affine()
	m.SetMetadata("passes", "1")
	err := m.Walk(func(s *onnx.Scope) error {
		// The output is read once more.
		s.SetNodes(append(slices.Clone(s.Nodes()), onnx.NewNode("Neg", []string{"y"}, []string{"z"})))
		return nil
	})
	passes, ok := m.Metadata("passes")
	_, other := m.Metadata("author")
	fmt.Println(len(m.Graph.Nodes), m.Graph.Nodes[1].OpType, err)
	fmt.Println(passes, ok, other)
	// Output:
	// 2 Neg <nil>
	// 1 true false
}

// A long job asks first whether what stands at its target may be replaced.
func ExampleModel_CheckTargets() {
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
	taken, free := filepath.Join(dir, "taken.onnx"), filepath.Join(dir, "free.onnx")
	if err := os.WriteFile(taken+".data", nil, 0o600); err != nil {
		log.Fatal(err)
	}
	none, replace := onnx.SaveOptions{}, onnx.SaveOptions{Overwrite: true}
	fmt.Println("a new file:", m.CheckTargets(free, none, true))
	fmt.Println("the model itself:", errors.Is(m.CheckTargets(path, replace, false), onnx.ErrSameFile))
	fmt.Println("a file that is there:", errors.Is(m.CheckTargets(taken, none, true), fs.ErrExist))
	fmt.Println("the same, without external data:", m.CheckTargets(taken, none, false))
	fmt.Println("the same, to be replaced:", m.CheckTargets(taken, replace, true))
	// Output:
	// a new file: <nil>
	// the model itself: true
	// a file that is there: true
	// the same, without external data: <nil>
	// the same, to be replaced: <nil>
}

// Errors keep their kind, whatever is said about the place.
func ExampleFormatError() {
	_, err := onnx.Parse([]byte("no model"))
	var format *onnx.FormatError
	fmt.Println(errors.Is(err, onnx.ErrWire), errors.As(err, &format))

	typed := &onnx.Tensor{Name: "t", DataType: onnx.Int32, Dims: []int64{1}, Int32Data: onnx.Pack[int32](7)}
	_, err = typed.RawBytes() // there is no view of it; Bytes makes a copy
	fmt.Println(errors.Is(err, onnx.ErrNotRaw), err)

	m := affine()
	m.Graph.Initializers[0].Dims = []int64{3, 3}
	problems := onnx.Check(m)
	fmt.Println(errors.Is(problems[0], onnx.ErrTensorSize), problems[0].Where)
	// Output:
	// true true
	// true onnx: tensor "t": stored in a typed field, not as raw bytes
	// true graph: initializer "W"
}
