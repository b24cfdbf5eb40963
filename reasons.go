package cosetq

import (
	"maps"
	"slices"

	"github.com/cosetq/cosetq/rewrite"
)

// reasonNonFinite is the reason of a layer whose weight cannot be coded because of NaN or infinity in it.
const reasonNonFinite = "non-finite"

// Reasons of weights that no product takes.
const (
	reasonConvolution = "conv"
	reasonEmbedding   = "embedding"
	reasonOther       = "no-product"
)

// otherReason is why the weights of an operator stay as they are.
func otherReason(op string) string {
	switch op {
	case "Conv", "ConvTranspose":
		return reasonConvolution
	case "Gather":
		return reasonEmbedding
	}
	return reasonOther
}

// reasonTexts says in words what a reason code means.
var reasonTexts = map[string]string{
	string(rewrite.DynamicB):         "no constant side",
	string(rewrite.Unfolded):         "computed from constants; save the model with constants folded, and quantize that",
	string(rewrite.Replaceable):      "the weight is listed among the graph inputs, where a caller may replace it",
	string(rewrite.Rank):             "the constant is no matrix, nor a batch of them that is taken apart",
	string(rewrite.TooSmall):         "too small to gain from coding",
	string(rewrite.Excluded):         "excluded by a pattern",
	string(rewrite.FusedOp):          "fused operator of another tool; export the model without fusions",
	string(rewrite.AlreadyQuantized): "quantized by another tool; start from the float model",
	string(rewrite.DType):            "neither float32 nor float16",
	string(rewrite.SharedWithFloat):  "needed in float too, by another node or as an output; --embedding takes embeddings",
	string(rewrite.UnsupportedAttr):  "a form that is not rewritten",
	reasonConvolution:                "convolutions stay float, but for 1×1 ones",
	reasonEmbedding:                  "a table of rows; --embedding takes it",
	reasonOther:                      "not multiplied as a matrix",
	reasonNonFinite:                  "the weight holds NaN or infinity",
}

// ReasonText says in words what a reason code of a skipped layer means.
func ReasonText(code string) string { return reasonTexts[code] }

// Reasons lists the reason codes.
func Reasons() []string { return slices.Sorted(maps.Keys(reasonTexts)) }
