// Package cosetq is the whole pipeline as an API: what the command line does, for Go programs. It makes ONNX models 4 to 8
// times smaller by replacing the constant weights of MatMul and Gemm with nested-lattice codes.
//
// [Inspect] tells what is in a model, [Plan] how large the result would be, [Calibrate] learns from data, [Quantize] writes
// the new model, [Export] turns it back into plain ONNX. Each takes paths and an options struct whose zero value is useful,
// and returns the report that the command line prints with --json. Long ones take a context and report their [Progress].
//
// Errors say what to do: see [Error] and [Classify]. What the steps are made of is in the packages below this one.
package cosetq
