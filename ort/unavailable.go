//go:build !cgo || !linux

package ort

import (
	"context"
	"fmt"
	"runtime"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/tensor"
)

func unavailable() error {
	return fmt.Errorf("%w: %w (%s); build it on Linux with CGO_ENABLED=1 and a C compiler (`make build`)", ErrUnavailable, ErrBuild, runtime.GOOS)
}

// Runtime is a loaded ONNX Runtime; this build cannot make one.
type Runtime struct{}

// Open answers [ErrUnavailable].
func Open(Options) (*Runtime, error) { return nil, unavailable() }

// Version is empty.
func (*Runtime) Version() string { return "" }

// Library is empty.
func (*Runtime) Library() string { return "" }

// NewSession answers [ErrUnavailable].
func (*Runtime) NewSession(string, SessionOptions) (*Session, error) { return nil, unavailable() }

// NewSessionFromBytes answers [ErrUnavailable].
func (*Runtime) NewSessionFromBytes([]byte, string, SessionOptions) (*Session, error) {
	return nil, unavailable()
}

// Placement answers [ErrUnavailable].
func (*Runtime) Placement(context.Context, string, SessionOptions, map[string]*tensor.Tensor) ([]NodeRun, error) {
	return nil, unavailable()
}

// Session is a loaded model; this build cannot make one.
type Session struct{}

// Inputs is empty.
func (*Session) Inputs() []tensor.Spec { return nil }

// Outputs is empty.
func (*Session) Outputs() []tensor.Spec { return nil }

// Run answers [ErrUnavailable].
func (*Session) Run(context.Context, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	return nil, unavailable()
}

// RunInto answers [ErrUnavailable].
func (*Session) RunInto(context.Context, map[string]*tensor.Tensor, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	return nil, unavailable()
}

// Close does nothing.
func (*Session) Close() error { return nil }

// OpsLibrary is the native ops library; this build cannot load it.
type OpsLibrary struct{}

// OpenOps answers [ErrUnavailable].
func OpenOps(string) (*OpsLibrary, error) { return nil, unavailable() }

// Interface is empty.
func (*OpsLibrary) Interface() string { return "" }

// ISA is empty.
func (*OpsLibrary) ISA() string { return "" }

// KernelCalls is −1.
func (*OpsLibrary) KernelCalls(string) int64 { return -1 }

// Provider is the library of the execution provider; this build cannot load it.
type Provider struct{}

// OpenProvider answers [ErrUnavailable].
func OpenProvider(string) (*Provider, error) { return nil, unavailable() }

// Device answers [ErrUnavailable].
func (*Provider) Device() (string, error) { return "", unavailable() }

// Traffic is zero.
func (*Provider) Traffic() Traffic { return Traffic{} }

// Joined is 0.
func (*Provider) Joined() (patterns, elementwise int64) { return 0, 0 }

// Attentions is zero.
func (*Provider) Attentions() Attentions { return Attentions{} }

// Moves is 0.
func (*Provider) Moves() int64 { return 0 }

// WeightBytes is 0.
func (*Provider) WeightBytes() int64 { return 0 }

// FreeMemory is 0.
func (*Provider) FreeMemory() int64 { return 0 }

// Observations reads what Observe nodes gathered; this build cannot make one.
type Observations struct{}

// OpenObservations answers [ErrUnavailable].
func OpenObservations(string) (*Observations, error) { return nil, unavailable() }

// Tags is empty.
func (*Observations) Tags() ([]string, error) { return nil, unavailable() }

// Get answers [ErrUnavailable].
func (*Observations) Get(string) (Observation, error) { return Observation{}, unavailable() }

// Sums answers [ErrUnavailable].
func (*Observations) Sums(string, []float64) error { return unavailable() }

// Moments answers [ErrUnavailable].
func (*Observations) Moments(string, int, int, []float64) error { return unavailable() }

// Staging keeps back what Observe nodes see; this build cannot make one.
type Staging struct{}

// NewStaging answers [ErrUnavailable].
func (*Observations) NewStaging() (*Staging, error) { return nil, unavailable() }

// Run answers [ErrUnavailable].
func (*Staging) Run(func() error) error { return unavailable() }

// Commit answers [ErrUnavailable].
func (*Staging) Commit(int) error { return unavailable() }

// Close does nothing.
func (*Staging) Close() {}

// Reset does nothing.
func (*Observations) Reset(string) {}

// ResetAll does nothing.
func (*Observations) ResetAll() {}

// Encoder codes rows of weights with the native ops library; this build cannot make one.
type Encoder struct{}

// OpenEncoder answers [ErrUnavailable].
func OpenEncoder(string, *lattice.Codec) (*Encoder, error) { return nil, unavailable() }

// OpenCUDAEncoder answers [ErrUnavailable].
func OpenCUDAEncoder(string, *lattice.Codec) (*CUDAEncoder, error) { return nil, unavailable() }

// EncodeInMetric answers [ErrUnavailable].
func (*Encoder) EncodeInMetric(lattice.MetricGroups) error { return unavailable() }

// Products adds products of matrices with the native ops library; this build cannot make one.
type Products struct{}

// OpenProducts answers [ErrUnavailable].
func OpenProducts(string) (*Products, error) { return nil, unavailable() }

// Add answers [ErrUnavailable].
func (*Products) Add(_, _, _ blas32.General) error { return unavailable() }

// AddDouble answers [ErrUnavailable].
func (*Products) AddDouble(_, _, _ blas64.General) error { return unavailable() }

// CUDAEncoder is an Encoder on the GPU; this build cannot make one.
type CUDAEncoder struct{}

// Distortions answers [ErrUnavailable].
func (*CUDAEncoder) Distortions([]float64, lattice.RowBatch) error { return unavailable() }

// EncodeRows answers [ErrUnavailable].
func (*CUDAEncoder) EncodeRows([]uint16, []uint8, []float64, lattice.RowBatch) error {
	return unavailable()
}

// WithFeedback answers [ErrUnavailable].
func (*CUDAEncoder) WithFeedback(lattice.Feedback) (lattice.FeedbackCoder, error) {
	return nil, unavailable()
}

// Distortions answers [ErrUnavailable].
func (*Encoder) Distortions([]float64, lattice.RowBatch) error { return unavailable() }

// EncodeRows answers [ErrUnavailable].
func (*Encoder) EncodeRows([]uint16, []uint8, []float64, lattice.RowBatch) error {
	return unavailable()
}
