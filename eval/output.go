package eval

import (
	"fmt"
	"math"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// NonFiniteError says that a model answered NaN or infinity.
type NonFiniteError struct {
	Model  string  // its path
	Output string  // name of the output
	Sample int     // number of the sample
	Value  float64 // NaN, +Inf or −Inf
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("%s: output %s of sample %d holds %v; no metric means anything then. If the float model is finite on the same sample, the quantized weights or the kernel are at fault",
		e.Model, e.Output, e.Sample, e.Value)
}

// FitError says that a task cannot judge what a model gives: another task or other models are asked for.
type FitError struct{ Msg string }

func (e *FitError) Error() string { return e.Msg }

func unfit(format string, args ...any) error { return &FitError{fmt.Sprintf(format, args...)} }

// output finds the output to judge among what a run gave.
func (m *Model) output(want string, outputs map[string]*tensor.Tensor) (string, *tensor.Tensor, error) {
	var names []string
	for _, s := range m.Outputs {
		names = append(names, s.Name)
		t := outputs[s.Name]
		if t != nil && (s.Name == want || want == "" && t.Type.Float()) {
			return s.Name, t, nil
		}
	}
	if want != "" {
		return "", nil, unfit("%s: no output %q; its outputs are %s", m.Path, want, strings.Join(names, ", "))
	}
	return "", nil, unfit("%s: none of its outputs (%s) holds floating-point numbers to judge", m.Path, strings.Join(names, ", "))
}

// rows calls f with every row of cols values, as far as the batch has real samples, and checks that they are finite.
// The values are valid during the call only.
func (m *Model) rows(b *batch, name string, t *tensor.Tensor, cols int64, f func(row int64, values []float64) error) error {
	total := t.Count() / int64(b.size) * int64(len(b.Samples))
	values := make([]float64, cols)
	for from := int64(0); from+cols <= total; from += cols {
		if err := t.Floats(values, from, from+cols); err != nil {
			return fmt.Errorf("%s: output %s: %w", m.Path, name, err)
		}
		for _, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				sample := b.First + int(from/(t.Count()/int64(b.size)))
				return &NonFiniteError{Model: m.Path, Output: name, Sample: sample, Value: v}
			}
		}
		if err := f(from/cols, values); err != nil {
			return err
		}
	}
	return nil
}

// logSumExp is log Σ exp(v), without overflow.
func logSumExp(values []float64) float64 {
	top := values[tensor.ArgMax(values)]
	sum := 0.0
	for _, v := range values {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}
