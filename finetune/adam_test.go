package finetune

import (
	"math"
	"testing"
)

// Adam finds the minimum of a badly scaled quadratic, and its first step is as long as the rate whatever the gradient's size.
func TestAdam(t *testing.T) {
	scale := []float64{1e-6, 1, 1e4}
	x := []float32{1, -1, 2}
	g := make([]float32, 3)
	a := newAdam(3)
	gradient := func(factor float64) {
		for i := range x {
			g[i] = float32(scale[i] * float64(x[i]) / factor)
		}
	}
	gradient(0.5)
	before := append([]float32(nil), x...)
	a.update(x, g, 0, 3, 0.01, 0.5, 1)
	for i := range x {
		if d := math.Abs(float64(before[i] - x[i])); math.Abs(d-0.01) > 1e-4 {
			t.Errorf("first step %v of number %d, want 0.01", d, i)
		}
	}
	const steps = 1000
	for step := 2; step <= steps; step++ {
		gradient(0.5)
		a.update(x, g, 0, 3, 0.02*schedule(float64(step)/steps, 0.1), 0.5, step)
	}
	for i, v := range x {
		if math.Abs(float64(v)) > 1e-3 {
			t.Errorf("number %d ends at %v, want 0", i, v)
		}
	}
}

func TestRate(t *testing.T) {
	if schedule(0.05, 0.1) != 0.5 || schedule(0.1, 0.1) != 1 || schedule(1, 0.1) > 1e-9 || schedule(0.55, 0.1) < 0.49 || schedule(0.55, 0.1) > 0.51 {
		t.Errorf("rates %v %v %v %v", schedule(0.05, 0.1), schedule(0.1, 0.1), schedule(1, 0.1), schedule(0.55, 0.1))
	}
}
