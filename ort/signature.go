package ort

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Signature describes the inputs and outputs of a model, in their declared order. Inputs that are also initializers,
// as models of IR version 3 list them, are left out of inputs: their stored values are used.
// Unlike ONNX Runtime it keeps symbolic dimension names, and it loads no weights.
func Signature(m *onnx.Model) (inputs, outputs []tensor.Spec, err error) {
	if m.Graph == nil {
		return nil, nil, fmt.Errorf("%w: it has no graph", ErrModel)
	}
	stored := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		stored[t.Name] = true
	}
	for _, v := range m.Graph.Inputs {
		if stored[v.Name] {
			continue
		}
		s := spec(v)
		if s.Type == tensor.Undefined {
			return nil, nil, fmt.Errorf("%w: input %q is a sequence, map or optional, or has no type; only tensors can be fed", ErrModel, v.Name)
		}
		inputs = append(inputs, s)
	}
	for _, v := range m.Graph.Outputs {
		outputs = append(outputs, spec(v))
	}
	if len(outputs) == 0 {
		return nil, nil, fmt.Errorf("%w: it has no outputs", ErrModel)
	}
	return inputs, outputs, nil
}

// spec leaves the type undefined when the value is no tensor; an output may yet turn out to be one.
func spec(v *onnx.ValueInfo) tensor.Spec {
	s := tensor.Spec{Name: v.Name}
	if v.Type == nil || v.Type.Tensor == nil {
		return s
	}
	s.Type = tensor.Type(v.Type.Tensor.ElemType)
	if v.Type.Tensor.Shape == nil {
		return s
	}
	s.Ranked = true
	for _, d := range v.Type.Tensor.Shape.Dims {
		n, known := d.Known()
		if !known || n < 0 {
			s.Shape = append(s.Shape, tensor.Dim{Size: -1, Name: d.Param})
			continue
		}
		s.Shape = append(s.Shape, tensor.Dim{Size: n})
	}
	return s
}

// describe reads the signature of the model file at path.
func describe(path string) (inputs, outputs []tensor.Spec, err error) {
	m, err := onnx.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	return Signature(m)
}
