package quant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

func preset(t testing.TB, bits int) *lattice.Codec {
	t.Helper()
	c, err := lattice.Preset(bits)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hessian returns the second moments with entries at(i, j).
func hessian(k int, at func(i, j int) float64) *quant.Hessian {
	h := &quant.Hessian{K: k, Moments: make([]float64, k*k)}
	for i := range h.Moments {
		h.Moments[i] = at(i/k, i%k)
	}
	return h
}

// ar1 is the Hessian of inputs of which each resembles its neighbour.
func ar1(k int, rho float64) *quant.Hessian {
	return hessian(k, func(i, j int) float64 { return math.Pow(rho, math.Abs(float64(i-j))) })
}

// sampled returns the second moments and the mean of correlated inputs that the given number of samples shows.
func sampled(k, samples int, seed uint64) *quant.Hessian {
	rng := rand.New(rand.NewPCG(seed, 8))
	h := &quant.Hessian{K: k, Moments: make([]float64, k*k), Mean: make([]float64, k), Samples: int64(samples)}
	loud := make([]float64, k)
	for j := range loud {
		loud[j] = math.Exp(rng.NormFloat64())
	}
	for range samples {
		x := make([]float64, k)
		common := rng.NormFloat64()
		for j := range x {
			x[j] = loud[j] * (0.3 + common + rng.NormFloat64())
			h.Mean[j] += x[j] / float64(samples)
		}
		for i, v := range x {
			for j, w := range x {
				h.Moments[i*k+j] += v * w / float64(samples)
			}
		}
	}
	return h
}

func ldlq(t testing.TB, src quant.Source, c *lattice.Codec, h *quant.Hessian, threads int) *quant.Result {
	t.Helper()
	res, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Hessian: h, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// errorsOf returns W − Ŵ [N × K].
func errorsOf(t testing.TB, src dense, m *quant.Matrix) []float64 {
	t.Helper()
	back := make([]float32, len(src.w))
	if err := m.DecodeRows(back, 0, src.n); err != nil {
		t.Fatal(err)
	}
	e := make([]float64, len(back))
	for i := range e {
		e[i] = float64(src.w[i]) - float64(back[i])
	}
	return e
}

// quadratic is tr(E·H·Eᵀ).
func quadratic(h *quant.Hessian, e []float64) (sum float64) {
	for r := 0; r < len(e); r += h.K {
		row := e[r : r+h.K]
		for i, v := range row {
			var s float64
			for j, w := range row {
				s += h.Moments[i*h.K+j] * w
			}
			sum += v * s
		}
	}
	return sum
}

func widen(w []float32) []float64 {
	out := make([]float64, len(w))
	for i, v := range w {
		out[i] = float64(v)
	}
	return out
}

func sameMatrix(a, b *quant.Matrix) bool {
	return bytes.Equal(a.Codes, b.Codes) && bytes.Equal(a.Gains, b.Gains) && bytes.Equal(a.ScaleIndex, b.ScaleIndex) &&
		slices.Equal(a.Scales, b.Scales) && a.Exponent == b.Exponent
}

func TestIdentityHessianIsRoundingToNearest(t *testing.T) {
	src := gaussian(70, 96, 1)
	for _, scale := range []float64{1, 0.125} {
		h := hessian(96, func(i, j int) float64 {
			if i == j {
				return scale
			}
			return 0
		})
		res := ldlq(t, src, preset(t, 4), h, 0)
		if !sameMatrix(res.Matrix, quantize(t, src, preset(t, 4), 0).Matrix) {
			t.Errorf("H = %v·I gives other bytes than no H", scale)
		}
		if res.Fallback != nil {
			t.Errorf("fallback: %v", res.Fallback)
		}
	}
}

// The bar of the default geometry is 0.26; eight neighbouring columns to a group would give 0.64 (docs/format.md).
func TestAR1(t *testing.T) {
	const n, k = 128, 256
	src := gaussian(n, k, 3)
	for _, c := range []struct {
		rho  float64
		bits int
		most float64
	}{
		{0.9, 2, 0.22}, {0.9, 3, 0.22}, {0.9, 4, 0.22}, {0.6, 2, 0.64}, {0.6, 3, 0.64}, {0.6, 4, 0.65},
	} {
		f := ldlq(t, src, preset(t, c.bits), ar1(k, c.rho), 0).Feedback
		t.Logf("rho %.1f, %d bits: %.4f of the loss of rounding to nearest (%.5f of the output's energy)",
			c.rho, c.bits, f.Loss/f.Nearest, f.Loss)
		if f.Loss > c.most*f.Nearest {
			t.Errorf("rho %.1f, %d bits: loss ratio %.4f, want at most %v", c.rho, c.bits, f.Loss/f.Nearest, c.most)
		}
	}
}

// What is reported is what the decoded weight loses with H as given, for odd sizes, dead columns, scales of either kind
// and every lattice.
func TestReportedLossIsThatOfTheDecodedWeight(t *testing.T) {
	for _, c := range []struct {
		codec string
		n, k  int
	}{
		{"d4:4,4:g2,3,4,6", 64, 128}, {"d4:4:g3,4,5,7", 130, 100}, {"d4:3,3", 5, 17}, {"e8:2,2:g2,3", 33, 40},
		{"z2:4,4:g2,3,5", 20, 64}, {"z1:16", 3, 30}, {"d4:4,4:g3,4,5,6", 8, 1}, {"d4:4,4:g3,4,5,6", 4, 1700},
	} {
		src := gaussian(c.n, c.k, 5)
		h := sampled(c.k, 50, 4)
		for _, dead := range []int{3, c.k - 2} {
			if dead < 0 || dead >= c.k || c.k < 8 {
				continue
			}
			for j := range c.k {
				h.Moments[dead*c.k+j], h.Moments[j*c.k+dead] = 0, 0
			}
			h.Mean[dead] = 0
		}
		res := ldlq(t, src, codec(t, c.codec), h, 2)
		f := res.Feedback
		if f == nil {
			if c.k > 1 { // a single column is a multiple of the identity
				t.Errorf("%v: no feedback: %v", c, res.Fallback)
			}
			continue
		}
		e := errorsOf(t, src, res.Matrix)
		want := quadratic(h, e) / quadratic(h, widen(src.w))
		if math.Abs(f.Loss-want) > 1e-3*want {
			t.Errorf("%v: reported loss %v, decoded %v", c, f.Loss, want)
		}
		if f.Loss > f.Nearest {
			t.Errorf("%v: loss %v, rounding to nearest %v", c, f.Loss, f.Nearest)
		}
		var sse float64
		for _, v := range e {
			sse += v * v
		}
		if sse > res.SumSquaredError*1.001 || c.k%8 == 0 && sse < res.SumSquaredError*0.999 {
			t.Errorf("%v: squared error %v, decoded %v", c, res.SumSquaredError, sse)
		}
		for r := range c.n {
			var bias float64
			for j, m := range h.Mean {
				bias += e[r*c.k+j] * m
			}
			if math.Abs(bias-f.Bias[r]) > 1e-4 {
				t.Errorf("%v: bias of row %d is %v, want %v", c, r, f.Bias[r], bias)
			}
		}
	}
}

// A dead column keeps its weights.
func TestDeadColumns(t *testing.T) {
	const n, k = 40, 64
	src := gaussian(n, k, 6)
	h := ar1(k, 0.8)
	for j := range k {
		h.Moments[9*k+j], h.Moments[j*k+9] = 0, 0
	}
	e := errorsOf(t, src, ldlq(t, src, preset(t, 4), h, 0).Matrix)
	var lost float64
	for r := range n {
		lost += e[r*k+9] * e[r*k+9] / n
	}
	if lost > 0.03 {
		t.Errorf("a dead column loses %v of its energy", lost)
	}
}

func TestHessianThatCannotBeUsed(t *testing.T) {
	const k = 16
	src := gaussian(20, k, 1)
	plain := quantize(t, src, preset(t, 4), 0)
	unit := func(i, j int) float64 {
		if i == j {
			return 1
		}
		return 0.5
	}
	for name, h := range map[string]*quant.Hessian{
		"nothing seen":  hessian(k, func(i, j int) float64 { return 0 }),
		"not finite":    hessian(k, func(i, j int) float64 { return unit(i, j) / float64(min(i, j)) }),
		"NaN":           hessian(k, func(i, j int) float64 { return math.NaN() }),
		"negative":      hessian(k, func(i, j int) float64 { return -unit(i, j) }),
		"asymmetric":    hessian(k, func(i, j int) float64 { return unit(i, j) + 0.01*float64(i-j) }),
		"impossible":    hessian(k, func(i, j int) float64 { return 1.5 - unit(i, j) }),
		"indefinite":    hessian(k, func(i, j int) float64 { return 3*unit(i, j) - 2 }), // 1, and −0.5 beside the diagonal
		"short moments": {K: k, Moments: make([]float64, k)},
		"no moments":    {K: k},
		"short mean":    {K: k, Diagonal: slices.Repeat([]float64{1}, k), Mean: make([]float64, 2)},
	} {
		res := ldlq(t, src, preset(t, 4), h, 0)
		var why *quant.HessianError
		if !errors.As(res.Fallback, &why) || why.Reason == "" {
			t.Errorf("%s: fallback %v, want a *HessianError", name, res.Fallback)
		} else {
			t.Logf("%s: %v", name, why)
		}
		if !sameMatrix(res.Matrix, plain.Matrix) || res.Feedback != nil {
			t.Errorf("%s: not rounded to nearest", name)
		}
	}
	_, err := quant.Quantize(context.Background(), src, quant.Options{Codec: preset(t, 4), Hessian: ar1(k+1, 0.5)})
	if err == nil {
		t.Error("a Hessian of another size is taken")
	}
}

// One sample makes H singular; damping makes it usable.
func TestRankOneHessian(t *testing.T) {
	src := gaussian(30, 72, 2)
	res := ldlq(t, src, preset(t, 2), sampled(72, 1, 1), 0)
	if res.Fallback != nil {
		t.Fatal(res.Fallback)
	}
	if f := res.Feedback; f.Loss > 0.05*f.Nearest {
		t.Errorf("loss %v of one direction, rounding to nearest %v", f.Loss, f.Nearest)
	}
}

// Statistics are stored in float32, which has room for the product of a large and a tiny input, and not for the square of the tiny one.
func TestHessianOfTinyInputs(t *testing.T) {
	const k = 72
	h := sampled(k, 200, 2)
	for j := range k {
		h.Moments[3*k+j] *= 1e-36
		h.Moments[j*k+3] *= 1e-36
	}
	h.Moments[3*k+3] = 0
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
}

func TestThreadsDoNotMatterToFeedback(t *testing.T) {
	src := gaussian(300, 200, 5)
	h := sampled(200, 400, 2)
	a, b := ldlq(t, src, preset(t, 4), h, 1), ldlq(t, src, preset(t, 4), h, 7)
	if !sameMatrix(a.Matrix, b.Matrix) || a.Feedback.Loss != b.Feedback.Loss || !slices.Equal(a.Feedback.Bias, b.Feedback.Bias) {
		t.Error("1 and 7 threads gave different results")
	}
}

// The unit of the weights and of H does not matter, as long as the steps stay above 2^-100 (smaller rows decode to zeros).
func TestUnitsDoNotMatter(t *testing.T) {
	const k = 64
	src, h := gaussian(20, k, 5), sampled(k, 200, 2)
	want := ldlq(t, src, preset(t, 4), h, 0)
	for _, e := range []int{-90, -40, 40, 110} {
		scaled, moments := dense{src.n, k, slices.Clone(src.w)}, hessian(k, func(i, j int) float64 {
			return math.Ldexp(h.Moments[i*k+j], -2*e)
		})
		moments.Samples = h.Samples
		for i := range scaled.w {
			scaled.w[i] = float32(math.Ldexp(float64(scaled.w[i]), e))
		}
		got := ldlq(t, scaled, preset(t, 4), moments, 0)
		if !bytes.Equal(got.Matrix.Codes, want.Matrix.Codes) || got.Matrix.Exponent != want.Matrix.Exponent+e {
			t.Errorf("weights times 2^%d: other codes", e)
		}
		if s := math.Ldexp(want.SumSquaredError, 2*e); math.Abs(got.SumSquaredError-s) > 1e-9*s {
			t.Errorf("weights times 2^%d: squared error %v, want %v", e, got.SumSquaredError, s)
		}
	}
}

// With its diagonal alone, H weighs the columns.
func TestDiagonalHessian(t *testing.T) {
	const k = 96
	src := gaussian(80, k, 4)
	full := hessian(k, func(i, j int) float64 {
		if i == j {
			return math.Exp(4 * math.Sin(float64(i)))
		}
		return 0
	})
	h := &quant.Hessian{K: k, Diagonal: make([]float64, k)}
	for j := range k {
		h.Diagonal[j] = full.Moments[j*k+j]
	}
	for _, bits := range []int{2, 4} {
		f := ldlq(t, src, preset(t, bits), h, 0)
		if f.Fallback != nil {
			t.Fatal(f.Fallback)
		}
		want := quadratic(full, errorsOf(t, src, f.Matrix)) / quadratic(full, widen(src.w))
		if math.Abs(f.Feedback.Loss-want) > 1e-3*want {
			t.Errorf("reported loss %v, decoded %v", f.Feedback.Loss, want)
		}
		t.Logf("%d bits: %.3f of the loss of rounding to nearest", bits, f.Feedback.Loss/f.Feedback.Nearest)
		if f.Feedback.Loss > 0.97*f.Feedback.Nearest {
			t.Errorf("%d bits: loss %v, rounding to nearest %v", bits, f.Feedback.Loss, f.Feedback.Nearest)
		}
	}
}

// Rows together never lose. A row alone may, since it is coded greedily, group by group, and refined for a damped H in which the columns that fill
// the last group count as well: of one row with seven columns and one sample 1.8 times the loss has been seen. In whole groups few rows do not
// lose more than a quarter in both, H and what is damped; two rows of three groups have been seen to lose a tenth.
func TestFeedbackNeverLosesToNearest(t *testing.T) {
	testenv.Numbers(t)
	rapid.Check(t, func(rt *rapid.T) {
		n, k := rapid.IntRange(1, 40).Draw(rt, "n"), rapid.IntRange(2, 60).Draw(rt, "k")
		few := n < 16
		if few {
			k = (k + 7) / 8 * 8
		}
		h := sampled(k, rapid.IntRange(1, 100).Draw(rt, "samples"), rapid.Uint64().Draw(rt, "seed"))
		src := gaussian(n, k, rapid.Uint64().Draw(rt, "weights"))
		name := rapid.SampledFrom([]string{"d4:4,4:g3,4,5,6", "d4:4:g3,4,5,7", "e8:2", "z1:4"}).Draw(rt, "codec")
		res := ldlq(t, src, codec(t, name), h, 1)
		if res.Fallback != nil {
			rt.Fatal(res.Fallback)
		}
		e, nearest := errorsOf(t, src, res.Matrix), errorsOf(t, src, quantize(t, src, codec(t, name), 1).Matrix)
		a, b := quadratic(h, e), quadratic(h, nearest)
		if !few {
			if a > b {
				rt.Errorf("loss %v, rounding to nearest %v", a, b)
			}
			return
		}
		var damping float64
		for i := range k {
			damping += res.Feedback.Damping * h.Moments[i*(k+1)] / float64(k)
		}
		damped, dampedNearest := a, b
		for i := range e {
			damped += damping * e[i] * e[i]
			dampedNearest += damping * nearest[i] * nearest[i]
		}
		if a > 1.25*b && damped > 1.25*dampedNearest {
			rt.Errorf("loss %v, damped %v, rounding to nearest %v and %v", a, damped, b, dampedNearest)
		}
	})
}

func BenchmarkLDLQ(b *testing.B) {
	for _, size := range [][2]int{{512, 512}, {1408, 512}, {512, 1408}} {
		src, h, c := gaussian(size[0], size[1], 2), ar1(size[1], 0.9), preset(b, 4)
		for _, name := range []string{"go", "native"} {
			b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], name), func(b *testing.B) {
				o := quant.Options{Codec: c}
				if name == "native" {
					o, _ = native(b, c)
				}
				o.Hessian, o.Threads = h, 1
				for b.Loop() {
					if _, err := quant.Quantize(context.Background(), src, o); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*size[0]*size[1])/b.Elapsed().Seconds()/1e6, "Mweights/s")
			})
		}
	}
}
