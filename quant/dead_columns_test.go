package quant_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// relativeErrors quantizes a weight [n × k] and returns the squared error of each row over its squares.
func relativeErrors(t *testing.T, n, k int, w []float32, o quant.Options) []float64 {
	t.Helper()
	res, err := quant.Quantize(t.Context(), dense{n, k, w}, o)
	if err != nil {
		t.Fatal(err)
	}
	decoded := make([]float32, n*k)
	if err := res.Matrix.DecodeRows(decoded, 0, n); err != nil {
		t.Fatal(err)
	}
	errs := make([]float64, n)
	for r := range errs {
		var lost, all float64
		for i := r * k; i < (r+1)*k; i++ {
			d := float64(decoded[i] - w[i])
			lost += d * d
			all += float64(w[i]) * float64(w[i])
		}
		errs[r] = lost / all
	}
	return errs
}

// Rows with their weights in columns that are dead, or nearly, keep them: their scale does not go by what their zeros became in the
// others.
func TestRefitOfRowsInDeadColumns(t *testing.T) {
	const n, k = 32, 512
	rng := rand.New(rand.NewPCG(1, 2))
	w := make([]float32, n*k)
	for i := range w {
		if i >= 4*k || i%k >= k/2 {
			w[i] = float32(rng.NormFloat64())
		}
	}
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	h := &quant.Hessian{K: k, Moments: make([]float64, k*k), Samples: 4 * k}
	x := make([]float64, k/2)
	for range 300 {
		shared := rng.NormFloat64()
		for c := range x {
			x[c] = rng.NormFloat64() + shared
		}
		for i, a := range x {
			for j, b := range x {
				h.Moments[i*k+j] += a * b
			}
		}
	}
	nearest := relativeErrors(t, n, k, w, quant.Options{Codec: codec})
	for _, moment := range []float64{0, 1e-6, 1e-4, 1e-3} {
		for c := k / 2; c < k; c++ {
			h.Moments[c*k+c] = 300 * moment
		}
		for r, e := range relativeErrors(t, n, k, w, quant.Options{Codec: codec, Hessian: h}) {
			if e > 2*nearest[r] {
				t.Errorf("moment %g: row %d lost %.3g, to nearest %.3g", moment, r, e, nearest[r])
			}
		}
	}
}

// Of a pruned matrix, which no code suits, the scales move a long way wherever that is the better for the weights too.
func TestRefitOfPrunedRows(t *testing.T) {
	const n, k = 64, 2048
	rng := rand.New(rand.NewPCG(1, 2))
	h := &quant.Hessian{K: k, Moments: make([]float64, k*k), Samples: 4 * k}
	for c := range k {
		if rng.IntN(2) == 0 {
			h.Moments[c*k+c] = 1 + rng.Float64()
		}
	}
	w := make([]float32, n*k)
	live := make([]bool, n) // whether any weight of the row is in a live column
	for r := range n {
		for range 3 {
			c := rng.IntN(k)
			w[r*k+c] = float32(rng.NormFloat64())
			live[r] = live[r] || h.Moments[c*k+c] > 0
		}
	}
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	nearest, fed := relativeErrors(t, n, k, w, quant.Options{Codec: codec}), relativeErrors(t, n, k, w, quant.Options{Codec: codec, Hessian: h})
	for r := range n {
		sums[fmt.Sprintf("to nearest, live %v", live[r])] += nearest[r]
		sums[fmt.Sprintf("live %v", live[r])] += fed[r]
	}
	if sums["live true"] > 0.8*sums["to nearest, live true"] || sums["live false"] > 1.1*sums["to nearest, live false"] {
		t.Errorf("%v", sums)
	}
}
