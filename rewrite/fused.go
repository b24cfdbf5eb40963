package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// fusedOps lists operators of other domains and tools that multiply by matrices they hold themselves. Their nodes are
// reported, so that a model which another tool has fused or quantized before does not look like one without weights.
var fusedOps = []string{
	"Attention", "DecoderAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DynamicQuantizeLSTM",
	"DynamicQuantizeMatMul", "EmbedLayerNormalization", "FusedMatMulActivation",
	"GatherBlockQuantized", "GemmFastGelu", "GemmFloat8", "LongformerAttention", "MatMulBnb4", "MatMulFpQ4",
	"MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MoE", "PackedAttention", "QAttention",
	"QEmbedLayerNormalization", "QGemm", "QLinearMatMul", "QMoE", "QOrderedAttention", "QOrderedMatMul",
	"SkipLayerNormalization",
}

// fusesLinear tells whether n is a MatMul or Gemm that ONNX Runtime's optimizer gave a factor, transpositions or a function of each
// element.
func fusesLinear(n *onnx.Node) bool {
	return n.Domain == microsoft && slices.Contains([]string{"FusedMatMul", "TransposeMatMul", "FusedGemm"}, n.OpType)
}

// functionParameters lists the functions that a FusedGemm applies to each element of its result, with their attributes.
var functionParameters = map[string][]string{
	"Elu": {"alpha"}, "HardSigmoid": {"alpha", "beta"}, "LeakyRelu": {"alpha"}, "Relu": nil, "Selu": {"alpha", "gamma"}, "Sigmoid": nil,
	"Softplus": nil, "Softsign": nil, "Tanh": nil, "ThresholdedRelu": {"alpha"},
}

// fusedFunction returns the standard operator that the FusedGemm n applies to its result.
func fusedFunction(n *onnx.Node) (*onnx.Node, error) {
	op := n.Str("activation", "")
	parameters, known := functionParameters[op]
	if !known {
		return nil, unsupported("%s %q applies %q to its result", n.OpType, n.Name, op)
	}
	f := onnx.NewNode(op, nil, nil)
	for _, name := range parameters {
		a := n.Attr("activation_" + name)
		if a == nil { // ONNX Runtime does not fall back on the operator's default
			return nil, unsupported("%s %q applies %s to its result and lacks activation_%s", n.OpType, n.Name, op, name)
		}
		f.SetAttr(onnx.FloatAttr(name, a.F))
	}
	return f, nil
}

// holdsWeights tells whether n is one of them: the Attention of ONNX itself holds nothing but, at most, a mask.
func holdsWeights(n *onnx.Node) bool {
	return slices.Contains(fusedOps, n.OpType) && !standard(n, "Attention")
}

// describeFused describes a node of fusedOps by its largest constant matrix; without one the node holds no weights and
// ok is false.
func (vs *values) describeFused(site *Site, n *onnx.Node) (ok bool) {
	for i := range n.Inputs {
		c, err := vs.constant(vs.input(n, i))
		if err != nil || len(c.dims) < 2 || c.size() <= site.Weights {
			continue
		}
		site.hold(c)
	}
	if site.root == nil {
		return false
	}
	switch site.DType {
	case onnx.Float, onnx.Float16, onnx.BFloat16, onnx.Double:
		site.skip(FusedOp, "%s holds its weight itself; export the model again without fusing", n.OpType)
	default:
		site.skip(AlreadyQuantized, "%s holds what another tool has quantized; start from the float model", n.OpType)
		if weights := n.Int("K", 0) * n.Int("N", 0); weights > 0 && weights <= 8*site.Weights { // several lie in a byte
			site.Weights = weights
		}
	}
	return true
}
