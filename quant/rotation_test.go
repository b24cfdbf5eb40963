package quant

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/lattice"
)

func TestRotationIsOrthogonal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for k, block := range map[int]int{16: 16, 48: 16, 192: 64, 768: 256, 4096: 256} {
		r := NewRotation(k, 7)
		if r == nil || r.Block != block || r.validate(k) != nil {
			t.Fatalf("K = %d: rotation %+v, want blocks of %d", k, r, block)
		}
		x := make([]float32, k)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		y := append([]float32{}, x...)
		apply(r, y)
		var before, after float64
		for i := range x {
			before += float64(x[i]) * float64(x[i])
			after += float64(y[i]) * float64(y[i])
		}
		if math.Abs(after/before-1) > 1e-5 {
			t.Errorf("K = %d: the energy went from %v to %v", k, before, after)
		}
		r.invert(y)
		for i := range x {
			if math.Abs(float64(y[i]-x[i])) > 1e-5 {
				t.Fatalf("K = %d: column %d is %v after both ways, was %v", k, i, y[i], x[i])
			}
		}
	}
	for _, k := range []int{1, 7, 8, 100} {
		if r := NewRotation(k, 7); r != nil {
			t.Errorf("K = %d: a rotation of blocks of %d", k, r.Block)
		}
	}
	if a, b := NewRotation(64, 1), NewRotation(64, 2); string(a.Signs) == string(b.Signs) {
		t.Error("the seed changes nothing")
	}
}

// TestRotatedOutliers codes rows with a few large weights: the rotation spreads them, and what is lost drops.
func TestRotatedOutliers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	const n, k = 64, 256
	w := held{n, k, make([]float32, n*k)}
	for i := range w.v {
		w.v[i] = float32(rng.NormFloat64())
	}
	for r := range n {
		for range 4 {
			w.v[r*k+rng.IntN(k)] *= 12
		}
	}
	codec, err := lattice.Preset(3)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Quantize(context.Background(), w, Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	turned, err := Quantize(context.Background(), w, Options{Codec: codec, Rotation: NewRotation(k, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if turned.SQNR() < plain.SQNR()+2 {
		t.Errorf("SQNR %.1f dB under a rotation, %.1f without", turned.SQNR(), plain.SQNR())
	}
	// What the matrix decodes to is the weight as it was, less the same error.
	got := make([]float32, n*k)
	if err := turned.Matrix.DecodeRows(got, 0, n); err != nil {
		t.Fatal(err)
	}
	var lost float64
	for i, v := range got {
		lost += float64(v-w.v[i]) * float64(v-w.v[i])
	}
	if math.Abs(lost/turned.SumSquaredError-1) > 1e-3 {
		t.Errorf("decoding loses %v, coding %v", lost, turned.SumSquaredError)
	}
}

// TestRotatedHessian measures a loss before and after both the error and H are turned.
func TestRotatedHessian(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	const k = 48
	h := &Hessian{K: k, Moments: make([]float64, k*k), Mean: make([]float64, k)}
	for range 3 * k {
		x := make([]float64, k)
		for i := range x {
			x[i] = rng.NormFloat64() * float64(i+1)
			h.Mean[i] += x[i]
		}
		for i := range x {
			for j := range x {
				h.Moments[i*k+j] += x[i] * x[j]
			}
		}
	}
	r := NewRotation(k, 9)
	turned := h.turned(r)
	if err := turned.Validate(); err != nil {
		t.Fatal(err)
	}
	e := make([]float64, k)
	for i := range e {
		e[i] = rng.NormFloat64()
	}
	loss := func(h *Hessian) (quadratic, mean float64) {
		for i := range e {
			mean += e[i] * h.Mean[i]
			for j := range e {
				quadratic += e[i] * e[j] * h.Moments[i*k+j]
			}
		}
		return quadratic, mean
	}
	q, m := loss(h)
	apply(r, e)
	q2, m2 := loss(turned)
	if math.Abs(q2/q-1) > 1e-9 || math.Abs(m2/m-1) > 1e-9 {
		t.Errorf("loss %v and mean %v, turned %v and %v", q, m, q2, m2)
	}
}

// Whether a rotation pays does not depend on the unit of the weights, also where only one of the two ways has feedback: a rotation
// leaves nothing of a diagonal to code by.
func TestTryRotationInAnyUnit(t *testing.T) {
	const n, k = 64, 256
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	h := &Hessian{K: k, Diagonal: make([]float64, k)}
	for i := range h.Diagonal {
		h.Diagonal[i] = 1 + float64(i%7)
	}
	turned := map[bool]bool{}
	for _, unit := range []float32{1e-3, 1, 100} {
		rng := rand.New(rand.NewPCG(1, 2))
		w := held{n, k, make([]float32, n*k)}
		for i := range w.v {
			w.v[i] = unit * float32(rng.NormFloat64())
		}
		res, err := Quantize(t.Context(), w, Options{Codec: codec, Hessian: h, Rotation: NewRotation(k, 1), TryRotation: true})
		if err != nil {
			t.Fatal(err)
		}
		turned[res.Matrix.Rotation != nil] = true
	}
	if len(turned) != 1 {
		t.Error("the unit decides about the rotation")
	}
}
