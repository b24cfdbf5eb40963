package quant

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/lattice"
)

// moments are the second moments of n rows drawn from those of an AR(1) process.
func moments(k, n int, rho float64, seed uint64) *Hessian {
	rng := rand.New(rand.NewPCG(seed, 3))
	h := &Hessian{K: k, Samples: int64(n), Moments: make([]float64, k*k)}
	x := make([]float64, k)
	for range n {
		for i := range x {
			x[i] = rng.NormFloat64()
			if i > 0 {
				x[i] = rho*x[i-1] + math.Sqrt(1-rho*rho)*x[i]
			}
		}
		for i := range k {
			for j := range k {
				h.Moments[i*k+j] += x[i] * x[j] / float64(n)
			}
		}
	}
	return h
}

// leftAt is what feedback with a damping leaves of the loss of rounding to nearest, by the definition.
func leftAt(train, test *Hessian, damping float64) float64 {
	k := train.K
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	a, left := train.arranged(order), 0.0
	judge := test.arranged(order)
	for i := range k {
		a[i*k+i] += damping
	}
	if ok, _ := cholesky(a, k, multiplier{}, 1); !ok {
		return math.Inf(1)
	}
	for z := range k { // E = e_z·L⁻¹, column by column from the last
		e := make([]float64, k)
		for j := z; j >= 0; j-- {
			if j == z {
				e[j] = 1
			}
			for i := j + 1; i <= z; i++ {
				e[j] -= e[i] * a[i*k+j] / a[j*k+j]
			}
		}
		for i, v := range e {
			for j, w := range e {
				left += v * judge[i*k+j] * w / float64(k)
			}
		}
	}
	return left
}

// The damping chosen is about the best there is for the samples left out: little where the samples say much, much where they do not.
func TestCrossDamping(t *testing.T) {
	const k = 48
	truth := moments(k, 20000, 0.9, 1)
	last := 0.0
	for _, n := range []int{20000, 600, 60, 24} {
		train := moments(k, n, 0.9, 2)
		got, err := CrossDamping(train, truth, multiplier{}, 1)
		if err != nil || got < last {
			t.Errorf("%d samples: λ = %v, after %v with more of them; %v", n, got, last, err)
		}
		least := math.Inf(1)
		for damping := 0.001; damping < 5; damping *= 2 {
			least = min(least, leftAt(train, truth, damping))
		}
		if left := leftAt(train, truth, got); left > 1.02*least {
			t.Errorf("%d samples: λ = %v leaves %v, the best %v", n, got, left, least)
		}
		if again, _ := CrossDamping(train, truth, multiplier{}, 3); again != got {
			t.Errorf("%d samples: λ = %v on three threads, %v on one", n, again, got)
		}
		t.Logf("%d samples: λ = %v", n, got)
		last = got
	}
	if got, _ := CrossDamping(moments(k, 60, 0, 2), moments(k, 20000, 0, 1), multiplier{}, 1); got < 0.64 {
		t.Errorf("columns that have nothing to do with each other get λ = %v", got)
	}
	for _, unknown := range []*Hessian{{K: k, Diagonal: make([]float64, k)}, {K: k, Moments: make([]float64, k*k)}} {
		if got, err := CrossDamping(unknown, truth, multiplier{}, 1); got != 0 || err != nil {
			t.Errorf("got λ = %v, %v of nothing", got, err)
		}
	}
}

// The damping of a Hessian is used, even a large one, unless the options have one; without any there is a rule.
func TestDampingOfAHessian(t *testing.T) {
	c, err := lattice.ParseCodec("d4:4,4")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct{ option, known, want float64 }{{0, 0, 0.01 + 8*48./4800}, {0, 2.5, 2.5}, {0.2, 2.5, 0.2}} {
		h := moments(48, 4800, 0.9, 1)
		h.Damping = d.known
		res, err := Quantize(context.Background(), normal{64, 48}, Options{Codec: c, Hessian: h, Damping: d.option})
		if err != nil || res.Feedback == nil || math.Abs(res.Feedback.Damping-d.want) > 1e-12 {
			t.Fatalf("%+v: got %+v, %v", d, res.Feedback, err)
		}
	}
	g := moments(256, 4096, 0.9, 4)
	var first []float32
	for _, damping := range []float64{0.01, 2} {
		g.Damping = damping
		o, err := newOutputs(g, 48, multiplier{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && math.Abs(float64(o.l[256*255])) >= math.Abs(float64(first[256*255])) {
			t.Error("more damping feeds no less back")
		}
		first = o.l
	}
}
