package eval

import (
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/tensor"
)

// Deviation sums up how far values are from their reference. The zero value has seen nothing.
type Deviation struct {
	ref2, got2, dot, err2, max float64
}

// Add takes the values of got in, against those of ref, which has the same shape.
func (d *Deviation) Add(ref, got *tensor.Tensor) error {
	if !slices.Equal(ref.Shape, got.Shape) {
		return fmt.Errorf("shape %s against %s", tensor.FormatShape(got.Shape), tensor.FormatShape(ref.Shape))
	}
	const stretch = 4096
	want, values := make([]float64, stretch), make([]float64, stretch)
	for from, n := int64(0), ref.Count(); from < n; from += stretch {
		to := min(from+stretch, n)
		if err := ref.Floats(want[:to-from], from, to); err != nil {
			return err
		}
		if err := got.Floats(values[:to-from], from, to); err != nil {
			return err
		}
		d.add(want[:to-from], values[:to-from])
	}
	return nil
}

func (d *Deviation) add(want, got []float64) {
	for i, w := range want {
		g := got[i]
		d.ref2 += w * w
		d.got2 += g * g
		d.dot += w * g
		d.err2 += (g - w) * (g - w)
		d.max = max(d.max, math.Abs(g-w))
	}
}

// SQNR is 10·log10(Σ reference² / Σ (value − reference)²), +Inf without any error.
func (d *Deviation) SQNR() Decibels {
	if d.err2 == 0 {
		return Decibels(math.Inf(1))
	}
	return Decibels(10 * math.Log10(d.ref2/d.err2))
}

// Cosine is that of the angle between all values and all of the reference: 1 without any error.
func (d *Deviation) Cosine() float64 {
	switch {
	case d.err2 == 0:
		return 1
	case d.ref2 > 0 && d.got2 > 0:
		return d.dot / math.Sqrt(d.ref2) / math.Sqrt(d.got2)
	}
	return 0
}

// MaxAbsErr is the largest |value − reference|.
func (d *Deviation) MaxAbsErr() float64 { return d.max }
