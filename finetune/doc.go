// Package finetune trains quantized models: it wins back, with data, what rounding lost.
//
// The weights that the file will hold are codes, and codes do not move by small steps. So every quantized weight has a latent
// one in float32 beside it. Each step codes the latent weights with the project's own encoder, runs the model on what the codes
// decode to, and moves the latent weights by the gradient found there (the straight-through estimator). What is trained is
// therefore exactly what is shipped. Row scales, biases and the parameters of normalisations are trained along.
//
// The gradient comes from package grad as an ONNX graph that the caller's runtime runs; latent weights, optimizer and codes
// are kept here. A step is
//
//	codes, values ← encode(latent, scales)
//	loss, dL/dvalues ← runtime(batch, values, target)
//	latent ← Adam(latent, dL/dvalues); scales and parameters likewise
//
// Targets are the outputs of the float model (distillation) or labels. A part of the data is held out: its loss decides which
// codes are kept.
//
// [Train] trains the whole model against its outputs. [TrainBlocks] trains one block after the other against the outputs of
// the same block of the float model, with the memory of one block.
//
// The same options, data and number of threads give the same codes, to the bit, when the length is given in steps.
//
// Symbols: u latent weight, w its value Ŵ, s row scale, g gradient; m and v the moments of Adam (arXiv 1412.6980).
package finetune
