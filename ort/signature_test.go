package ort_test

import (
	"errors"
	"fmt"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
)

// A model that cannot be fed can still be told of.
func ExampleDeclared() {
	m := onnx.NewModel(8, 17, "detector")
	m.Graph.Inputs = []*onnx.ValueInfo{
		onnx.NewValueInfo("image", onnx.Float, "batch", 3, 224),
		{Name: "boxes", Type: &onnx.Type{Sequence: &onnx.SequenceType{ElemType: &onnx.Type{Tensor: &onnx.TensorType{ElemType: onnx.Float}}}}},
	}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("scores", onnx.Float, "batch")}
	inputs, outputs, err := ort.Declared(m)
	fmt.Println(inputs, outputs, err)
	_, _, err = ort.Signature(m)
	fmt.Println(errors.Is(err, ort.ErrModel), err)
	// Output:
	// [image float32[batch,3,224] boxes undefined] [scores float32[batch]] <nil>
	// true ONNX Runtime refused the model: input "boxes" is a sequence, map or optional, or has no type; only tensors can be fed
}
