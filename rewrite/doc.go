// Package rewrite finds the constant weights behind MatMul, Gemm and pointwise Conv in an ONNX model, puts coded weights in their place,
// and takes them out again.
//
// # The steps
//
// [FindSites] reports every MatMul, Gemm and pointwise Conv exactly once: a candidate with its [Weight], or skipped with a [Reason].
// A caller codes the weights (package quant) and hands them to [Apply], which replaces each node by one
// ai.coset::HNLQLinear, adds the model-local function of the same name, and removes what nothing uses any more.
// [ReadLinear] reads such a node back, [Export] turns a quantized model into plain ONNX again, and [ExportNBits] into
// com.microsoft::MatMulNBits, the int4 form that others use.
//
// # What counts as a weight
//
// An initializer, or a Constant node, seen through any chain of Identity, Cast, Transpose, Reshape, Squeeze, Unsqueeze,
// Flatten and DequantizeLinear. A Conv with one group whose kernel has one element, whatever its strides, is a product over the channels:
// its activations are transposed so that those come last, and its result is transposed back. The weight may stand on either side of a MatMul or Gemm, belong to an outer graph, and be shared
// by several nodes: nodes that use it in the same orientation and with the same alpha share one [Weight] and, within a graph,
// one set of codes. The same tensor used both as W and as Wᵀ is coded twice, because the codes run along the columns.
//
// Of a batch of matrices [SplitBatches] first makes a product for each; [JoinBatches] puts together again what was not coded, or is plain again.
//
// In a model-local function there are no weights, only parameters: [InlineLayers] first puts the bodies of those with layers in the place of their calls.
//
// A Weight is a view. Nothing is materialised before [Weight.Rows] asks for rows, and then only those.
//
// # Values, not names
//
// A name means something only inside its graph, so both directions work on an index of values: who produces one, in
// which graph, and who uses it, subgraphs included.
package rewrite
