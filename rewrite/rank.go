package rewrite

import "github.com/cosetq/cosetq/onnx"

// rank returns the number of axes of v, where the model declares it or a few simple operators imply it.
func (vs *values) rank(v *onnx.Value) (int, bool) { return vs.rankOf(v, 0) }

func (vs *values) rankOf(v *onnx.Value, depth int) (int, bool) {
	if v == nil || depth > maxChain {
		return 0, false
	}
	if r, known := vs.ranks[v]; known { // a value may be reached along many paths
		return r, r >= 0
	}
	r, ok := vs.inferRank(v, depth)
	if !ok {
		r = -1
	}
	vs.ranks[v] = r
	return r, ok
}

func (vs *values) inferRank(v *onnx.Value, depth int) (int, bool) {
	if v.Initializer != nil {
		return len(v.Initializer.Dims), true
	}
	if _, dims, ok := vs.infos[v].TensorType(); ok && dims != nil {
		return len(dims), true
	}
	n := v.Node
	if n == nil || !standard(n, n.OpType) {
		return 0, false
	}
	first := func() (int, bool) { return vs.rankOf(vs.input(n, 0), depth+1) }
	switch n.OpType {
	case "Gemm", "Flatten":
		return 2, true
	case "Constant":
		if t, err := constantTensor(n); err == nil {
			return len(t.Dims), true
		}
	case "Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Gelu", "Erf", "Sqrt", "Exp", "Log", "Neg", "Abs", "Clip", "Cast",
		"Identity", "Dropout", "Softmax", "LogSoftmax", "LayerNormalization", "BatchNormalization", "Slice",
		"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Concat", "Split", "Softplus", "Reciprocal", "Not":
		return first()
	case "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where":
		return vs.widest(n, depth)
	case "Transpose":
		if perm := n.Ints("perm"); perm != nil {
			return len(perm), true
		}
		return first()
	case "MatMul":
		a, aok := first()
		b, bok := vs.rankOf(vs.input(n, 1), depth+1)
		if aok && bok && a > 1 && b > 1 {
			return max(a, b), true
		}
	case "Reshape":
		if want, err := vs.ints(n, 1, "shape", depth); err == nil {
			return len(want), true
		}
	case "Expand":
		r, ok := first()
		if shape, err := vs.ints(n, 1, "shape", depth); ok && err == nil {
			return max(r, len(shape)), true
		}
	case "Unsqueeze", "Squeeze":
		axes, err := vs.ints(n, 1, "axes", depth)
		r, ok := first()
		if err != nil || !ok || axes == nil {
			return 0, false
		}
		if n.OpType == "Squeeze" {
			return r - len(axes), r >= len(axes)
		}
		return r + len(axes), true
	}
	return 0, false
}

// widest is the rank of operators that broadcast all their inputs.
func (vs *values) widest(n *onnx.Node, depth int) (int, bool) {
	rank := 0
	for i := range n.Inputs {
		r, ok := vs.rankOf(vs.input(n, i), depth+1)
		if !ok {
			return 0, false
		}
		rank = max(rank, r)
	}
	return rank, true
}
