package onnx

// tinyModel is y = x·W + b with an If around the sum.
func tinyModel() *Model {
	m := NewModel(8, 17, "tiny")
	m.ProducerName = "onnx_test"
	branch := func(name string) *Graph {
		return &Graph{
			Name:    name,
			Nodes:   []*Node{NewNode("Add", []string{"xw", "b"}, []string{name + "_y"})},
			Outputs: []*ValueInfo{NewValueInfo(name+"_y", Float, "N", 2)},
		}
	}
	m.Graph.Inputs = []*ValueInfo{NewValueInfo("x", Float, "N", 3), NewValueInfo("cond", Bool)}
	m.Graph.Outputs = []*ValueInfo{NewValueInfo("y", Float, "N", 2)}
	m.Graph.Initializers = []*Tensor{
		NewTensor("W", []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6}),
		NewTensor("b", []int64{2}, []float32{.5, -.5}),
	}
	m.Graph.Nodes = []*Node{
		NewNode("MatMul", []string{"x", "W"}, []string{"xw"}),
		NewNode("If", []string{"cond"}, []string{"y"}, GraphAttr("then_branch", branch("then")), GraphAttr("else_branch", branch("else"))),
	}
	m.Graph.Nodes[0].Name = "mm"
	m.Graph.Nodes[1].Name = "choice"
	return m
}

// everyFieldModel sets every field of every message once.
func everyFieldModel() *Model {
	m := new(Model)
	fillAll(m, map[string]int{})
	return m
}

// fillAll sets all fields; kinds that contain themselves are entered twice.
func fillAll(m Message, depth map[string]int) {
	for _, f := range m.fields(nil) {
		if f.oneof > 0 && f.name != "tensor_type" && f.name != "dim_param" && depth["oneof "+f.name] > 0 {
			continue
		}
		switch p := f.p.(type) {
		case *string:
			*p = f.name
		case *[]string:
			*p = []string{f.name, ""}
		case *[]byte:
			*p = []byte{1, 2, 3, 4}
		case *[][]byte:
			*p = [][]byte{{1}, {}}
		case *int64:
			if f.has == nil {
				*p = -1
			}
		case *int32:
			*p = 1
		case *float32:
			*p = 1.5
		case *[]int64:
			*p = []int64{1, 1}
		case *[]float32:
			*p = []float32{1, 2}
		case *Packed[float32]:
			*p = Pack[float32](1, 2)
		case *Packed[float64]:
			*p = Pack[float64](1, 2)
		case *Packed[int32]:
			*p = Pack[int32](1, -2)
		case *Packed[int64]:
			*p = Pack[int64](1, -2)
		case *Packed[uint64]:
			*p = Pack[uint64](1, 2)
		case messageField:
			if f.oneof > 0 && f.name != "tensor_type" {
				continue // one member is enough; types_test has the others
			}
			if depth[f.name] > 0 {
				continue
			}
			depth[f.name]++
			fillAll(p.add(), depth)
			depth[f.name]--
		}
	}
}
