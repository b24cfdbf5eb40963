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

// parameters names the initializers that are biases and parameters of normalisations behind a quantized weight or in front of
// one: float vectors that only such places read.
func parameters(m *onnx.Model) []string {
	vectors := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		if n, err := t.NumElements(); err == nil && n > 1 && (t.DataType == onnx.Float || t.DataType == onnx.Float16) &&
			slices.Max(t.Dims) == n {
			vectors[t.Name] = true
		}
	}
	used := map[string]bool{}
	for _, n := range m.Graph.Nodes {
		for i, in := range n.Inputs {
			if !vectors[in] {
				continue
			}
			if slices.Contains(parameterInputs[n.OpType], i) {
				used[in] = true
			} else {
				vectors[in] = false
			}
		}
		for _, in := range n.Captures() {
			vectors[in] = false
		}
	}
	var names []string
	for _, t := range m.Graph.Initializers {
		if vectors[t.Name] && used[t.Name] {
			names = append(names, t.Name)
		}
	}
	return names
}
