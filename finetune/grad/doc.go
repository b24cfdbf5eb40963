// Package grad differentiates ONNX graphs: it walks the nodes of a model backwards and emits the gradient of a loss as more
// ONNX nodes, which any runtime can run. Nothing is computed in Go.
//
// The steps are
//
//	Check     says, before any work, which operators on the way have no rule
//	Trace     runs the model once and fixes the shape of every value
//	Graph     takes the loss, as nodes too
//	Backward  appends the gradients
//	Model     gives the graph that computes chosen values
//
// # Shapes are fixed
//
// A training batch has one shape, so a [Graph] is of that shape: what a rule must know, such as which axes were broadcast or
// where a Slice began, is known when the rule runs, and the emitted nodes are plain products, sums and reshapes. The shapes
// come from the runtime itself, by one run of the model with a Shape node behind every value, so nothing here has to know
// how operators compute their shapes.
//
// # Rules
//
// A rule is a function of one operator: given the gradient of its outputs, emit that of its inputs ([MatMul, Gemm, Softmax, …]).
// Operators that are compositions of others (fused normalisations, Gelu, rotary embeddings, attention) are written out before
// differentiation instead, and a product with a matrix becomes a Gemm on flattened rows, whose transposed forms the backward pass
// uses without moving data. Operators that are constant almost everywhere, such as Floor, comparisons and Shape, stop the
// gradient.
//
// Every rule is checked by central differences on random shapes.
package grad
