package quant_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// twoSided codes with the second moments of inputs and of gradients.
func twoSided(t testing.TB, src quant.Source, c *lattice.Codec, h, g *quant.Hessian, threads int) *quant.Result {
	t.Helper()
	res, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Hessian: h, Gradients: g, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// bilinear is tr(G·E·H·Eᵀ).
func bilinear(g, h *quant.Hessian, e []float64) (sum float64) {
	he := make([]float64, len(e)) // E·H
	for r := range g.K {
		for i := range h.K {
			for j, v := range e[r*h.K : (r+1)*h.K] {
				he[r*h.K+i] += v * h.Moments[j*h.K+i]
			}
		}
	}
	for r := range g.K {
		for s := range g.K {
			var dot float64
			for i, v := range e[r*h.K : (r+1)*h.K] {
				dot += v * he[s*h.K+i]
			}
			sum += g.Moments[r*g.K+s] * dot
		}
	}
	return sum
}

// fewDirections are second moments of which all but a tenth lies in a few directions.
func fewDirections(n, directions int, seed uint64) *quant.Hessian {
	rng := rand.New(rand.NewPCG(seed, 3))
	g := hessian(n, func(i, j int) float64 {
		if i == j {
			return 0.1
		}
		return 0
	})
	for range directions {
		v := make([]float64, n)
		for i := range v {
			v[i] = rng.NormFloat64()
		}
		for i := range v {
			for j := range v {
				g.Moments[i*n+j] += 0.9 / float64(directions) * v[i] * v[j]
			}
		}
	}
	return g
}

// Rows make up for each other's errors where gradients tell how, and lose little in what the inputs alone say.
func TestRowsMakeUpForEachOther(t *testing.T) {
	const n, k = 256, 64
	src, h := gaussian(n, k, 6), ar1(k, 0.8)
	for name, g := range map[string]*quant.Hessian{"neighbours": ar1(n, 0.9), "few directions": fewDirections(n, 16, 5)} {
		for _, bits := range []int{2, 4} {
			alone := bilinear(g, h, errorsOf(t, src, ldlq(t, src, preset(t, bits), h, 0).Matrix))
			res := twoSided(t, src, preset(t, bits), h, g, 0)
			together := bilinear(g, h, errorsOf(t, src, res.Matrix))
			t.Logf("%s, %d bits: %.3f of the loss", name, bits, together/alone)
			if together > 0.7*alone {
				t.Errorf("%s, %d bits: loss %v, without gradients %v", name, bits, together, alone)
			}
		}
	}
}

// Gradients that are alike in all directions change no byte, nor do those of rows too few to be told apart.
func TestGradientsThatSayNothing(t *testing.T) {
	identity := func(n int) *quant.Hessian {
		return hessian(n, func(i, j int) float64 {
			if i == j {
				return 3
			}
			return 0
		})
	}
	h := ar1(40, 0.7)
	for _, c := range []struct {
		n int
		g *quant.Hessian
	}{{200, identity(200)}, {40, ar1(40, 0.9)}, {200, hessian(200, func(i, j int) float64 { return 0 })}} {
		src := gaussian(c.n, 40, 8)
		if !sameMatrix(twoSided(t, src, preset(t, 3), h, c.g, 0).Matrix, ldlq(t, src, preset(t, 3), h, 0).Matrix) {
			t.Errorf("%d rows: other bytes than without gradients", c.n)
		}
	}
}

// What is reported is what each row of the decoded weight loses, whatever order the rows were coded in, and the number of
// threads does not matter.
func TestReportOfTwoSides(t *testing.T) {
	const n, k = 300, 48
	src, h, g := gaussian(n, k, 9), sampled(k, 60, 4), sampled(n, 900, 5)
	res := twoSided(t, src, preset(t, 3), h, g, 1)
	if !sameMatrix(res.Matrix, twoSided(t, src, preset(t, 3), h, g, 5).Matrix) {
		t.Error("five threads give other bytes than one")
	}
	e := errorsOf(t, src, res.Matrix)
	if want := quadratic(h, e) / quadratic(h, widen(src.w)); math.Abs(res.Feedback.Loss-want) > 1e-3*want {
		t.Errorf("reported loss %v, decoded %v", res.Feedback.Loss, want)
	}
	for r := range n {
		var bias float64
		for j, m := range h.Mean {
			bias += e[r*k+j] * m
		}
		if math.Abs(bias-res.Feedback.Bias[r]) > 1e-4 {
			t.Errorf("bias of row %d is %v, want %v", r, res.Feedback.Bias[r], bias)
		}
	}
}

// Second moments that no gradients have, and damping does not mend: the rows are coded each by itself, and the result says so.
func TestIndefiniteGradients(t *testing.T) {
	const n, k = 128, 16
	src, h := gaussian(n, k, 2), ar1(k, 0.5)
	g := hessian(n, func(i, j int) float64 {
		if i == j {
			return 1
		}
		return -1
	})
	res := twoSided(t, src, preset(t, 4), h, g, 0)
	if res.Feedback.Alone == nil || !sameMatrix(res.Matrix, ldlq(t, src, preset(t, 4), h, 0).Matrix) {
		t.Errorf("reported %v, and other bytes than without gradients", res.Feedback.Alone)
	}
	if res := twoSided(t, src, preset(t, 4), h, ar1(n, 0.5), 0); res.Feedback.Alone != nil {
		t.Error(res.Feedback.Alone)
	}
}

func TestGradientsThatCannotBeUsed(t *testing.T) {
	src := gaussian(200, 16, 2)
	broken := ar1(200, 0.5)
	broken.Moments[7] = math.NaN()
	for name, g := range map[string]*quant.Hessian{"NaN": broken, "another size": ar1(199, 0.5)} {
		if _, err := quant.Quantize(context.Background(), src, quant.Options{Codec: preset(t, 4), Hessian: ar1(16, 0.5), Gradients: g}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Only the direction of G matters: gradients of a mean over many tokens are as small as can be.
func TestUnitsOfGradientsDoNotMatter(t *testing.T) {
	const n, k = 256, 64
	src, h, g := gaussian(n, k, 6), ar1(k, 0.8), ar1(n, 0.9)
	res := twoSided(t, src, preset(t, 3), h, g, 0)
	small := &quant.Hessian{K: n, Moments: slices.Clone(g.Moments)}
	for i := range small.Moments {
		small.Moments[i] *= 0x1p-40
	}
	if !sameMatrix(res.Matrix, twoSided(t, src, preset(t, 3), h, small, 0).Matrix) {
		t.Error("gradients 2^40 times smaller give other codes")
	}
}
