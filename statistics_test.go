package cosetq

import (
	"math"
	"testing"

	"github.com/cosetq/cosetq/quant"
)

// What a mean puts into moments of rows that weigh is left out but for its hundredth: of rows that are all alike nearly all of it.
func TestCentreOfWeighedRows(t *testing.T) {
	const weight = 2
	x := []float64{1, -3, 0.5}
	h := &quant.Hessian{K: 3, Mean: x, Moments: make([]float64, 9)}
	for i, a := range x {
		for j, b := range x {
			h.Moments[i*3+j] = weight * a * b
		}
	}
	h.Moments[0]++ // what the first column has besides
	centre(h, weight)
	for i, a := range x {
		for j, b := range x {
			want := (1 - centred) * weight * a * b
			if i == 0 && j == 0 {
				want++
			}
			if got := h.Moments[i*3+j]; math.Abs(got-want) > 1e-12 {
				t.Errorf("[%d, %d] is %v, want %v", i, j, got, want)
			}
		}
	}
}

// Half of what an embedding weighs by is that of its product and half all columns alike, of the same trace.
func TestSpread(t *testing.T) {
	full := &quant.Hessian{K: 2, Moments: []float64{3, 1, 1, 5}}
	diagonal := &quant.Hessian{K: 2, Diagonal: []float64{3, 5}}
	spread(full)
	spread(diagonal)
	for i, want := range []float64{3.5, 0.5, 0.5, 4.5} {
		if got := full.Moments[i]; got != want {
			t.Errorf("moment %d is %v, want %v", i, got, want)
		}
	}
	if d := diagonal.Diagonal; d[0] != 3.5 || d[1] != 4.5 {
		t.Errorf("diagonal %v, want 3.5 and 4.5", d)
	}
}
