package finetune

import "math"

// The decay of Adam's moments and its guard against division by zero, the latter relative to the unit of the gradient.
const (
	adamBeta1   = 0.9
	adamBeta2   = 0.99
	adamEpsilon = 1e-12
)

// adam is the state of the optimizer for one tensor.
type adam struct {
	m, v []float32
}

func newAdam(n int) adam { return adam{make([]float32, n), make([]float32, n)} }

// reset forgets the moments.
func (a *adam) reset() {
	clear(a.m)
	clear(a.v)
}

// update moves x[i] by −rate·m̂/(√v̂ + ε) for the gradient factor·g[i]; step counts from 1 after a reset.
func (a *adam) update(x, g []float32, from, to int, rate, factor float64, step int) {
	c1 := 1 - math.Pow(adamBeta1, float64(step))
	c2 := 1 - math.Pow(adamBeta2, float64(step))
	scale := float32(rate / c1)
	root := float32(1 / c2)
	f := float32(factor)
	m, v := a.m[from:to], a.v[from:to]
	x, g = x[from:to], g[from:to]
	for i := range x {
		d := f * g[i]
		m[i] += (1 - adamBeta1) * (d - m[i])
		v[i] += (1 - adamBeta2) * (d*d - v[i])
		x[i] -= scale * m[i] / (float32(math.Sqrt(float64(v[i]*root))) + adamEpsilon)
	}
}

// schedule is the learning rate relative to its peak at a point of the training, both in [0, 1]: a linear rise over the warm-up,
// then half a cosine down to zero.
func schedule(done, warmUp float64) float64 {
	if done < warmUp {
		return done / warmUp
	}
	return 0.5 * (1 + math.Cos(math.Pi*(done-warmUp)/(1-warmUp)))
}
