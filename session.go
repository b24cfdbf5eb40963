package cosetq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// Loaded is a model that is ready to run.
type Loaded struct {
	Path            string
	Session         *ort.Session
	Inputs, Outputs []tensor.Spec // in declared order
}

// Load loads the model at path into ONNX Runtime. A model that cannot be read is a [BadModel], whatever ONNX Runtime says of it.
func Load(path string, o ort.SessionOptions) (*Loaded, error) {
	if err := checkThreads(o.Threads); err != nil {
		return nil, err
	}
	if err := checkAccuracy(o); err != nil {
		return nil, err
	}
	inputs, outputs, err := signature(path)
	if err != nil {
		return nil, err
	}
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return nil, err
	}
	s, err := rt.NewSession(path, o)
	if err != nil {
		if errors.Is(err, ort.ErrModel) {
			return nil, fail(BadModel, err, "`cosetq inspect %s` shows what is in it", path)
		}
		return nil, err
	}
	return &Loaded{Path: path, Session: s, Inputs: inputs, Outputs: outputs}, nil
}

// maxThreads is more than any machine has cores. So many threads that wait for each other bring a small one to a standstill.
const maxThreads = 1024

func checkThreads(n int) error {
	if n < 0 || n > maxThreads {
		return usage(fmt.Errorf("--threads %d is not between 0 and %d", n, maxThreads), "0 takes all cores")
	}
	return nil
}

func checkDevice(name string) error { return oneOf("device", cmp.Or(name, "cpu"), "cpu", CUDA) }

// checkAccuracy refuses a wrong environment variable of our kernels, for which ONNX Runtime would blame the model.
func checkAccuracy(o ort.SessionOptions) error {
	value := os.Getenv(cudaops.EnvAccuracy)
	if o.OpsLibrary == "" && o.Provider == "" || slices.Contains([]string{"", strconv.Itoa(cudaops.AccuracyDefault), strconv.Itoa(cudaops.AccuracyAccurate), strconv.Itoa(cudaops.AccuracyFast)}, value) {
		return nil
	}
	return usage(fmt.Errorf("environment variable %s is %q, want %d (default), %d (accurate) or %d (fast)", cudaops.EnvAccuracy, value,
		cudaops.AccuracyDefault, cudaops.AccuracyAccurate, cudaops.AccuracyFast), "set one of those, or unset it")
}

// withoutSpinning configures a session whose threads sleep while they wait. That is best where this program or another session
// needs the cores between its nodes or its runs: spinning takes up to half of their time.
func withoutSpinning() map[string]string {
	return map[string]string{"session.intra_op.allow_spinning": "0"}
}

// Close frees the model.
func (l *Loaded) Close() error { return l.Session.Close() }

// judged is the model as package eval takes it.
func (l *Loaded) judged() eval.Model {
	return eval.Model{Path: l.Path, Runner: l.Session, Inputs: l.Inputs, Outputs: l.Outputs}
}

// signature reads a model's inputs and outputs without loading it, and makes sure that its data are there.
func signature(path string) (inputs, outputs []tensor.Spec, err error) {
	m, err := OpenModel(path)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	if err := checkExternal(m); err != nil {
		return nil, nil, err
	}
	if inputs, outputs, err = ort.Signature(m); err != nil {
		return nil, nil, err
	}
	return inputs, outputs, nil
}

// loadAll loads several models with the same options.
func loadAll(ctx context.Context, paths []string, o ort.SessionOptions) ([]*Loaded, error) {
	var models []*Loaded
	for _, p := range paths {
		m, err := Load(p, o)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			closeAll(models)
			return nil, err
		}
		models = append(models, m)
	}
	return models, nil
}

func closeAll(models []*Loaded) {
	for _, m := range models {
		_ = m.Close()
	}
}
