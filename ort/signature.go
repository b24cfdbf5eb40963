package ort

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Signature describes the inputs and outputs of a model, in their declared order. Inputs that are also initializers,
// as models of IR version 3 list them, are left out of inputs: their stored values are used.
// Unlike ONNX Runtime it keeps symbolic dimension names, and it loads no weights. What the inputs of a key-value cache
// leave open is taken from the attention that reads it: the model builder of ONNX Runtime GenAI does not declare the width of a head.
func Signature(m *onnx.Model) (inputs, outputs []tensor.Spec, err error) {
	if inputs, outputs, err = Declared(m); err != nil {
		return nil, nil, err
	}
	for _, s := range inputs {
		if s.Type == tensor.Undefined {
			return nil, nil, fmt.Errorf("%w: input %q is a sequence, map or optional, or has no type; only tensors can be fed", ErrModel, s.Name)
		}
	}
	return inputs, outputs, nil
}

// Declared is Signature for models that need not run: inputs that are no tensors are among the others, with an undefined type.
func Declared(m *onnx.Model) (inputs, outputs []tensor.Spec, err error) {
	if m.Graph == nil {
		return nil, nil, fmt.Errorf("%w: it has no graph", ErrModel)
	}
	stored := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		stored[t.Name] = true
	}
	caches := attentionCaches(m.Graph)
	for _, v := range m.Graph.Inputs {
		if stored[v.Name] {
			continue
		}
		s := spec(v)
		if c, ok := caches[v.Name]; ok {
			c.complete(&s)
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

// attentionCache is what an attention operator of ONNX Runtime says of its caches, which are [batch, heads, tokens, width].
type attentionCache struct{ width, least int64 }

// complete fills in what the input of a cache leaves open. The width of integers depends on how they are packed.
func (c attentionCache) complete(s *tensor.Spec) {
	if !s.Type.Float() || len(s.Shape) != 4 {
		return
	}
	if tokens := &s.Shape[2]; !tokens.Fixed() {
		tokens.Least = c.least
	}
	if width := &s.Shape[3]; !width.Fixed() {
		*width = tensor.Dim{Size: c.width}
	}
}

// cacheInput says which input of such an operator is the cache of keys; that of values follows.
var cacheInput = map[string]int{"GroupQueryAttention": 3, "MultiHeadAttention": 6}

// attentionCaches has what the graph says of caches, by their names.
func attentionCaches(g *onnx.Graph) map[string]attentionCache {
	types := map[string]*onnx.ValueInfo{}
	for _, v := range g.ValueInfo {
		types[v.Name] = v
	}
	caches := map[string]attentionCache{}
	for _, n := range g.Nodes {
		heads, first := n.Int("num_heads", 0), cacheInput[n.OpType]
		if n.Domain != "com.microsoft" || first == 0 || heads < 1 || len(n.Inputs) < first+2 || len(n.Outputs) == 0 {
			continue
		}
		_, dims, _ := types[n.Outputs[0]].TensorType() // [batch, tokens, heads × width]
		if len(dims) != 3 || dims[2] < 1 || dims[2]%heads != 0 {
			continue
		}
		c := attentionCache{width: dims[2] / heads}
		if n.Int("sliding_window_cache", 0) != 0 {
			c.least = max(0, n.Int("local_window_size", 0))
		}
		caches[n.Inputs[first]], caches[n.Inputs[first+1]] = c, c
	}
	return caches
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
