// Package ort runs ONNX models in ONNX Runtime, with or without the native ops library.
//
// It is a thin layer over github.com/yalue/onnxruntime_go, whose types stay inside, and the only package of the module
// that needs cgo. Built without cgo (or for a system other than Linux) everything compiles and [Open] answers
// [ErrUnavailable]. It does not read, change or judge models, and it knows nothing of quantization; but [Encoder] codes
// weights with the native library, which needs no runtime.
//
// A process has one runtime: [Open] finds and loads the shared library once, sessions are made from it.
package ort

import (
	"errors"
	"fmt"
	"time"

	"github.com/cosetq/cosetq/tensor"
)

// ErrUnavailable says that ONNX Runtime or one of our native libraries cannot be used: this build has no cgo, the shared library
// was not found, or it is too old. The error that wraps it says which, and the remedy.
var ErrUnavailable = errors.New("ONNX Runtime is not available")

// libraryError is an [ErrUnavailable] for which one of our native libraries is to blame, not ONNX Runtime.
type libraryError struct{ err error }

func libraryFails(format string, args ...any) error {
	return &libraryError{fmt.Errorf(format, args...)}
}

func (e *libraryError) Error() string        { return e.err.Error() }
func (e *libraryError) Unwrap() error        { return e.err }
func (e *libraryError) Is(target error) bool { return target == ErrUnavailable }

// ErrBuild says that this program cannot run models wherever ONNX Runtime may be.
var ErrBuild = errors.New("this program was built without cgo support for it")

// ErrModel says that ONNX Runtime refused to load a model.
var ErrModel = errors.New("ONNX Runtime refused the model")

// ErrRun says that a model that loaded failed while it ran, for reasons of its own or of the sizes of its inputs.
var ErrRun = errors.New("ONNX Runtime failed to run the model")

// ErrOutput says that a model ran and gave something that is no tensor, or one of strings.
var ErrOutput = errors.New("a sequence, map, optional or tensor of strings; this program handles tensors of numbers only")

// ErrInput says that a value given to [Session.Run] does not fit the model.
var ErrInput = errors.New("input does not fit the model")

// MinVersion is the oldest ONNX Runtime that can be driven from Go: the binding asks for C API version 29.
// The native ops library itself works from 1.24 on.
const MinVersion = "1.29"

// SpinTime is longer than the threads of a session wait for another run before they sleep (40 to 65 ms were measured). They keep
// a processor busy meanwhile, which another session may need.
const SpinTime = 80 * time.Millisecond

// Options say which ONNX Runtime to load.
type Options struct {
	// Library is the path of the shared library. Empty: see [FindLibrary].
	Library string
}

// OptimizationLevel is how much ONNX Runtime may change a graph when it loads it.
type OptimizationLevel int

// The levels of ONNX Runtime. The zero value is All, its own default.
const (
	OptimizeAll OptimizationLevel = iota
	OptimizeDisabled
	OptimizeBasic
	OptimizeExtended
)

// String is the name that the command line uses.
func (l OptimizationLevel) String() string {
	return [...]string{"all", "disabled", "basic", "extended"}[l]
}

// SessionOptions say how to load a model. The zero value is ONNX Runtime's own defaults without the native ops library.
type SessionOptions struct {
	// Threads is the number of threads within one operator; 0 lets ONNX Runtime use every core.
	Threads int
	// Optimization is the graph optimization level.
	Optimization OptimizationLevel
	// OpsLibrary is the path of the native ops library. Empty: quantized nodes run as their portable function bodies.
	OpsLibrary string
	// Provider is the path of the GPU library, whose execution provider then runs the nodes that it has kernels for; the others
	// run on the CPU. Empty: all nodes run on the CPU.
	Provider string
	// ProfilePrefix, when not empty, makes ONNX Runtime write PREFIX_<time>.json when the session is closed.
	ProfilePrefix string
	// Config holds session configuration entries, such as "session.intra_op.allow_spinning": "0".
	Config map[string]string
}

// NodeRun says how one node of a loaded graph ran.
type NodeRun struct {
	Node     string        // node name after ONNX Runtime's graph optimizations
	Op       string        // operator type, such as MatMul or HNLQLinear
	Provider string        // execution provider, such as CPUExecutionProvider
	Calls    int           // how often it ran
	Time     time.Duration // in its kernel, all calls together; 0 for nodes that ran on the GPU, which is busy with all at once
	Reason   string        // why it was not run on the GPU, where that was asked for
}

// ProviderName is how ONNX Runtime calls the execution provider of the GPU library.
const ProviderName = "CosetExecutionProvider"

// Traffic counts the copies between host and GPU in the middle of graphs, not those of inputs and outputs.
type Traffic struct {
	Runs                     int64 // of graphs or parts of graphs
	Repeats                  int64 // those among them that launched a recorded run as a whole, which runs of the same shapes do after a few
	Uploads, UploadBytes     int64 // to the GPU
	Downloads, DownloadBytes int64 // to the host
}

// Attentions counts attentions by the kernels that they were started with; recorded runs that are repeated do not count again.
type Attentions struct {
	Rows   int64 // one row of the result at a time: on the host, and heads wider than 256
	Few    int64 // a few queries
	Tiles  int64 // many, by warps
	Groups int64 // many of float16, by the warp groups of Hopper
}

// Observation says what an ai.coset::Observe node has seen, apart from the moments themselves.
type Observation struct {
	Columns int   // K
	Rows    int64 // added up
	BadRows int64 // left out because of NaN or infinity
	Full    bool  // the moments are a matrix; otherwise its diagonal
	// Min and Max bound all numbers seen; 0 before the first row.
	Min, Max float64
	// Weight is the sum of the weights of the rows.
	Weight float64
}

// byName pairs names with values.
func byName(names []string, values []*tensor.Tensor) map[string]*tensor.Tensor {
	m := make(map[string]*tensor.Tensor, len(names))
	for i, n := range names {
		m[n] = values[i]
	}
	return m
}
