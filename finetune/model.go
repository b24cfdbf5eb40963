package finetune

import (
	"errors"
	"slices"

	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// Weight is a quantized weight W [N × K] of a model.
type Weight struct {
	Input  string        // name of the graph input that takes the values
	Matrix *quant.Matrix // the codes to start from
	Coder  lattice.RowCoder
	Frozen bool // keeps its codes
}

// Model is a quantized model in the form to be trained: the values of its coded weights are inputs of the graph.
type Model struct {
	Graph   *onnx.Model
	Weights []Weight
	// Load loads models for the runtime.
	Load grad.Loader
}

// inputs names the graph inputs of the weights that are trained.
func (m *Model) inputs() []string {
	var names []string
	for _, w := range m.Weights {
		if !w.Frozen {
			names = append(names, w.Input)
		}
	}
	return names
}

// Check says, before any work, why a model cannot be trained: no weight, or an operator behind one without a gradient.
func (m *Model) Check() error {
	if len(m.inputs()) == 0 {
		return errors.New("finetune: no weight to train")
	}
	return grad.Check(m.Graph, m.inputs())
}

// parameterInputs says at which inputs an operator takes biases and the parameters of normalisations.
var parameterInputs = map[string][]int{
	"Add": {0, 1}, "Sub": {0, 1}, "Mul": {0, 1}, "Div": {0, 1}, "Gemm": {2}, "Conv": {2},
	"LayerNormalization": {1, 2}, "RMSNormalization": {1}, "SimplifiedLayerNormalization": {1},
	"BatchNormalization": {1, 2}, "InstanceNormalization": {1, 2}, "GroupNormalization": {1, 2},
	"SkipLayerNormalization": {2, 3, 4}, "SkipSimplifiedLayerNormalization": {2, 3}, "BiasGelu": {1}, "FastGelu": {1}, "PRelu": {1},
}

// weightInputs says at which inputs an operator takes weights, which may have stayed float.
var weightInputs = map[string][]int{"Gemm": {0, 1}, "MatMul": {0, 1}, "Conv": {1}}

// parameters names the float initializers that are trained along: biases and parameters of normalisations, and the weights of
// products that are not quantized. Nothing else may read them. What only positions or other constants are multiplied by, such
// as the frequencies of a rotary embedding, is none.
func parameters(m *onnx.Model) []string {
	size := map[string]int64{}
	vector := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		if n, err := t.NumElements(); err == nil && n > 1 && (t.DataType == onnx.Float || t.DataType == onnx.Float16) {
			size[t.Name] = n
			vector[t.Name] = slices.Max(t.Dims) == n
		}
	}
	data := map[string]bool{} // values that depend on floating-point inputs, embeddings or weights that are inputs
	for _, in := range m.Graph.Inputs {
		if dt, _, ok := in.TensorType(); ok && dt.IsFloat() && size[in.Name] == 0 {
			data[in.Name] = true
		}
	}
	used, spoiled := map[string]bool{}, map[string]bool{}
	for _, n := range m.Graph.Nodes {
		depends := slices.ContainsFunc(n.Inputs, func(in string) bool { return data[in] }) ||
			n.OpType == "Gather" && len(n.Inputs) > 0 && size[n.Inputs[0]] > 0 // an embedding
		for _, out := range n.Outputs {
			data[out] = depends
		}
		for i, in := range n.Inputs {
			switch {
			case size[in] == 0:
			case depends && vector[in] && slices.Contains(parameterInputs[n.OpType], i), depends && slices.Contains(weightInputs[n.OpType], i):
				used[in] = true
			default:
				spoiled[in] = true
			}
		}
		for _, in := range n.Captures() {
			spoiled[in] = true
		}
	}
	var names []string
	for _, t := range m.Graph.Initializers {
		if used[t.Name] && !spoiled[t.Name] {
			names = append(names, t.Name)
		}
	}
	return names
}
