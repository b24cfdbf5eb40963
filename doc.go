// Package cosetq makes ONNX models 4 to 8 times smaller: it replaces the constant weights of MatMul, Gemm and 1×1 Conv by nested-lattice
// codes. It is what the command line does, for Go programs.
//
// # The steps
//
//   - [Inspect] lists the MatMul, Gemm and 1×1 Conv nodes of a model, says of each whether it can be quantized, and predicts the size.
//     [Plan] does so for options of your choice. Both read no weights, unless Plan has a target to meet.
//   - [Calibrate] runs the float model over data and keeps what [Quantize] needs to know of it; [MergeStatistics] joins the files
//     of several runs. This step is optional: without data, weights are rounded to nearest.
//   - [Quantize] writes the new model. The file runs in any ONNX Runtime, with our native library in its own kernels.
//     Name the bits, or let it meet a target: bits per weight, bytes, or the loss that is allowed.
//   - [Finetune] trains a quantized model on data until it does again what the float model does.
//   - [Evaluate] measures accuracy, perplexity or agreement; [Bench] measures time; [Compare] says which layer lost what.
//   - [Export] turns a quantized model into plain ONNX; [ExportOps] writes the native library for programs in other languages.
//
// The smallest program is
//
//	report, err := cosetq.Quantize(ctx, "model.onnx", cosetq.QuantizeOptions{})
//
// # What they have in common
//
// Each step takes paths and an options struct whose zero value is useful, and returns the report that the command line prints
// with --json. Steps that take long have a context, which ends them and leaves nothing broken behind, and report their
// [Progress]. Nothing is overwritten unless the options say so, and models are never changed in place.
//
// Several steps may run at the same time in one program; of those that calibrate, one does so while the others wait.
//
// The same input, options and version give the same bytes, for any number of threads, with the native library or without.
//
// Errors say what, where, why and what to do next: [Classify] gives the kind and the hint of any of them.
//
// [Inspect], [Plan] and [Quantize] without data, and [Export] are plain Go. The others need ONNX Runtime, which package ort finds
// and loads, and a build with cgo; without, they fail with an error of the kind [Unavailable].
//
// # What is below
//
// Programs that need more than files in and files out use the packages that the steps are made of: onnx reads and writes
// models, lattice and quant code one weight, calib reads data, rewrite finds and replaces nodes, ort runs models, eval judges
// and bench times anything that runs.
package cosetq
