package quant

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
)

type normal struct{ n, k int }

func (s normal) Dims() (n, k int) { return s.n, s.k }

func (s normal) Rows(dst []float32, n0, n1 int) error {
	for r := n0; r < n1; r++ {
		rng := rand.New(rand.NewPCG(1, uint64(r)))
		for j := range s.k {
			dst[(r-n0)*s.k+j] = float32(rng.NormFloat64() * float64(1+r%5))
		}
	}
	return nil
}

// Every part of the work lowers the loss or leaves it, with shared scales and with a scale for each row.
func TestEachPartPays(t *testing.T) {
	testenv.Numbers(t)
	codec, err := lattice.Preset(2)
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []normal{{96, 128}, {6, 2048}} {
		h := &Hessian{K: src.k, Moments: make([]float64, src.k*src.k)}
		for i := range h.Moments {
			h.Moments[i] = math.Pow(0.8, math.Abs(float64(i/src.k-i%src.k)))
		}
		f, err := newFactors(h, 4, 0, multiplier{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		q := &run{ctx: context.Background(), src: src, opt: Options{Codec: codec, Hessian: h}, n: src.n, k: src.k, groups: groupsOf(src.k)}
		last := math.Inf(1)
		for _, how := range []plan{{1, 0, false}, {1, 0, true}, {1, 2, true}, {3, 2, true}, {3, 3, true}} {
			q.plan = how
			res, err := q.ldlq(f)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d × %d %+v: %.4f of the loss of rounding to nearest", src.n, src.k, how, res.Feedback.Loss/res.Feedback.Nearest)
			if res.Feedback.Loss > last {
				t.Errorf("%d × %d: %+v has a loss of %v, less work %v", src.n, src.k, how, res.Feedback.Loss, last)
			}
			last = res.Feedback.Loss
		}
	}
}
