package eval

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// Agreement compares a model's outputs with those of the first model, the reference. It needs no labels.
//
// Top1 and KL look at the first float output, row by row along its last dimension (the logits of a sample or of a token);
// the others look at the values of every float output together, or of the one that Options.Output names.
type Agreement struct {
	Top1      float64  `json:"top1_agreement"` // share of rows with the largest value in the same place
	KL        float64  `json:"kl"`             // mean over rows of KL(softmax(reference) ‖ softmax(model)), in nats
	Cosine    float64  `json:"cosine"`         // of the angle between all values of both
	SQNR      Decibels `json:"sqnr_db"`        // 10·log10(Σ reference² / Σ (model − reference)²)
	MaxAbsErr float64  `json:"max_abs_err"`    // largest |model − reference|
}

// Number is one that need not be finite; it is null in JSON then, which cannot hold it.
type Number float64

// MarshalJSON writes a number, or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(n), 0) || math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// Decibels is a ratio in dB; infinity (no error at all) is null in JSON.
type Decibels float64

// MarshalJSON writes a number, or null.
func (d Decibels) MarshalJSON() ([]byte, error) { return Number(d).MarshalJSON() }

// sums are what the metrics are made of.
type sums struct {
	values     int64 // compared
	rows, same int
	kl         float64
	Deviation
}

type agreement struct {
	models    []Model
	output    string
	reference map[string]*tensor.Tensor // the first model's outputs of the batch at work
	sums      []sums
}

func newAgreement(models []Model, o Options) *agreement {
	return &agreement{models: models, output: o.Output, sums: make([]sums, len(models))}
}

func (a *agreement) add(model int, b *batch, outputs map[string]*tensor.Tensor) error {
	if model == 0 {
		a.reference = outputs
	}
	first, _, err := a.models[0].output(a.output, a.reference)
	if err != nil {
		return err
	}
	for _, spec := range a.models[0].Outputs {
		ref := a.reference[spec.Name]
		if ref == nil || !ref.Type.Float() || a.output != "" && spec.Name != a.output {
			continue
		}
		got := outputs[spec.Name]
		if got == nil {
			return unfit("%s: has no output %q, which %s has; agreement compares models with the same outputs",
				a.models[model].Path, spec.Name, a.models[0].Path)
		}
		if !slices.Equal(got.Shape, ref.Shape) {
			return unfit("%s: output %s has shape %s, and %s of %s; agreement compares models with the same outputs",
				a.models[model].Path, spec.Name, tensor.FormatShape(got.Shape), tensor.FormatShape(ref.Shape), a.models[0].Path)
		}
		if err := a.compare(model, b, spec.Name, ref, got, spec.Name == first); err != nil {
			return err
		}
	}
	return nil
}

func (a *agreement) compare(model int, b *batch, name string, ref, got *tensor.Tensor, logits bool) error {
	cols := int64(1)
	if n := len(ref.Shape); n > 0 {
		cols = ref.Shape[n-1]
	}
	if cols == 0 {
		return nil
	}
	// A padded batch counts only as far as it is real; an output without the batch in front counts whole.
	if len(ref.Shape) == 0 || ref.Shape[0] != int64(b.size) {
		b = &batch{Batch: &calib.Batch{First: b.First, Samples: b.Samples[:1]}, size: 1}
	}
	s := &a.sums[model]
	want := make([]float64, cols)
	return a.models[model].rows(b, name, got, cols, func(row int64, values []float64) error {
		if err := ref.Floats(want, row*cols, (row+1)*cols); err != nil {
			return fmt.Errorf("%s: output %s: %w", a.models[0].Path, name, err)
		}
		s.add(want, values)
		s.values += cols
		if logits {
			s.rows++
			s.kl += divergence(want, values)
			if tensor.ArgMax(want) == tensor.ArgMax(values) {
				s.same++
			}
		}
		return nil
	})
}

// divergence is KL(softmax(p) ‖ softmax(q)) in nats, never below zero.
func divergence(p, q []float64) float64 {
	zp, zq := logSumExp(p), logSumExp(q)
	sum := 0.0
	for i := range p {
		sum += math.Exp(p[i]-zp) * ((p[i] - zp) - (q[i] - zq))
	}
	return max(sum, 0)
}

func (a *agreement) metrics(model int) (any, error) {
	s := a.sums[model]
	if s.values == 0 {
		return nil, unfit("%s: its outputs hold no numbers on this data, so there is nothing to compare", a.models[model].Path)
	}
	m := Agreement{Top1: 1, Cosine: s.Cosine(), SQNR: s.SQNR(), MaxAbsErr: s.MaxAbsErr()}
	if s.rows > 0 {
		m.Top1, m.KL = float64(s.same)/float64(s.rows), s.kl/float64(s.rows)
	}
	return m, nil
}
