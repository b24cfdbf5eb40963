// Package conformance holds the tests that keep every way of running a quantized layer together: the decoder in Go, the
// function body in plain ONNX Runtime, and the kernels of every instruction set. All of them get the same cases
// (cases_test.go) and are compared with one reference: the decoded weight multiplied in float64.
//
// It has no code outside its tests.
package conformance
