package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// fusedOps lists operators of other domains and tools that multiply by matrices they hold themselves. Their nodes are
// reported, so that a model which another tool has fused or quantized before does not look like one without weights.
var fusedOps = []string{
	"Attention", "DecoderAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DynamicQuantizeLSTM",
	"DynamicQuantizeMatMul", "EmbedLayerNormalization", "FusedGemm", "FusedMatMul", "FusedMatMulActivation",
	"GatherBlockQuantized", "GemmFastGelu", "GemmFloat8", "LongformerAttention", "MatMulBnb4", "MatMulFpQ4",
	"MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MoE", "PackedAttention", "QAttention",
	"QEmbedLayerNormalization", "QGemm", "QLinearMatMul", "QMoE", "QOrderedAttention", "QOrderedMatMul",
	"SkipLayerNormalization", "TransposeMatMul",
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
