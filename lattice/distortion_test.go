package lattice

import (
	"math"
	"math/rand/v2"
	"testing"
)

func gaussianVectors(seed uint64, n int) []float64 {
	rng := rand.New(rand.NewPCG(seed, 2))
	x := make([]float64, n)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	return x
}

// distortion codes vectors of N(0,1) and returns the mean squared error, the codes and the decoded vectors.
func distortion(tb testing.TB, q *Quantizer, x []float64) (mse float64, codes []Code, decoded []float64) {
	tb.Helper()
	decoded = make([]float64, len(x))
	codes, err := q.QuantizeBatch(decoded, x, 0)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range x {
		mse += (x[i] - decoded[i]) * (x[i] - decoded[i])
	}
	return mse / float64(len(x)), codes, decoded
}

// Facts 11 and 13: fixed-rate centred codes on N(0,1); and fact 14, no code beats 4^-R.
func TestFixedRateDistortion(t *testing.T) {
	skipMonteCarlo(t)
	for _, test := range []struct {
		lattice   Lattice
		q, levels int
		beta, mse float64
	}{
		{E8, 4, 1, 1.00, 0.0986},
		{E8, 4, 2, 0.324, 0.0092},
		{E8, 8, 1, 0.585, 0.0283},
		{E8, 16, 1, 0.313, 0.0082},
		{D4, 4, 1, 0.868, 0.1112},
		{D4, 4, 2, 0.287, 0.0107},
		{Z1, 16, 1, 0.331, 0.0116},
		{Z1, 4, 1, 1.0, 0.1186},
		{E8, 2, 2, 1.086, 0.1286},
		{D4, 2, 2, 0.93, 0.1405},
		{Z1, 2, 2, 1.0, 0.119},
	} {
		q := mustQuantizer(t, Config{Lattice: test.lattice, Radices: Uniform(test.q, test.levels), Beta: test.beta, DisableScaling: true})
		x := gaussianVectors(11, 320_000)
		mse, codes, _ := distortion(t, q, x)
		if math.Abs(mse/test.mse-1) > 0.03 {
			t.Errorf("%v (%d,%d): MSE %.5f, want %v within 3 %%", test.lattice, test.q, test.levels, mse, test.mse)
		}
		rate := q.Rate(codes)
		if want := float64(test.levels) * math.Log2(float64(test.q)); rate != want {
			t.Errorf("%v (%d,%d): rate %v, want %v", test.lattice, test.q, test.levels, rate, want)
		}
		if f := mse * math.Pow(4, rate); f < 1 {
			t.Errorf("%v (%d,%d): MSE·4^R = %v beats the rate-distortion bound", test.lattice, test.q, test.levels, f)
		}
	}
}

// Fact 13: without centring, half of a symmetric source overloads at q = 2.
func TestCentringMatters(t *testing.T) {
	skipMonteCarlo(t)
	for _, test := range []struct {
		lattice Lattice
		beta    float64
	}{{E8, 1.086}, {D4, 0.93}, {Z1, 1.0}} {
		config := Config{Lattice: test.lattice, Radices: Uniform(2, 2), Beta: test.beta, DisableScaling: true, Uncentred: true}
		if mse, _, _ := distortion(t, mustQuantizer(t, config), gaussianVectors(13, 80_000)); mse < 0.45 {
			t.Errorf("%v (2,2) uncentred: MSE %.4f, want about 0.5 or more", test.lattice, mse)
		}
	}
}

// Fact 12: the paper's geometric scaling.
func TestGeometricScaling(t *testing.T) {
	skipMonteCarlo(t)
	q := mustQuantizer(t, Config{Lattice: D4, Radices: Uniform(4, 2), Beta: 0.194, Uncentred: true, TieDither: true})
	mse, codes, _ := distortion(t, q, gaussianVectors(12, 400_000))
	scaled := 0
	for _, code := range codes {
		if code.T > 0 {
			scaled++
		}
		if code.Overload {
			t.Fatalf("a vector was clamped at T = %d", code.T)
		}
	}
	share := float64(scaled) / float64(len(codes))
	rate := q.Rate(codes)
	entropy := 4 * (rate - 4)
	if math.Abs(mse/0.0053-1) > 0.03 || math.Abs(entropy-1.2) > 0.05 || math.Abs(rate-4.30) > 0.015 || math.Abs(share-0.27) > 0.015 {
		t.Errorf("MSE %.5f, H(T) %.3f, rate %.3f, P(T>0) %.3f: want 0.0053, 1.2, 4.30, 0.27", mse, entropy, rate, share)
	}
	if f := mse * math.Pow(4, rate); f < 1 {
		t.Errorf("MSE·4^R = %v beats the rate-distortion bound", f)
	}
}

// Gains in the general code: best of K scales, as in NestQuant (theory 3.4, E8 (4,1) and (16,1) with K = 4).
func TestQuantizerGains(t *testing.T) {
	skipMonteCarlo(t)
	for _, test := range []struct {
		q         int
		beta, mse float64
	}{{4, 0.735, 0.0705}, {16, 0.200, 0.00425}} {
		config := Config{Lattice: E8, Radices: []int{test.q}, Beta: test.beta, Gains: []float64{1, 1.22, 1.22 * 1.22, 1.22 * 1.22 * 1.22}, DisableScaling: true}
		q := mustQuantizer(t, config)
		mse, codes, _ := distortion(t, q, gaussianVectors(14, 160_000))
		if mse > 1.02*test.mse || mse*math.Pow(4, q.Rate(codes)) < 1 {
			t.Errorf("E8 q=%d with 4 gains: MSE %.5f, want at most %v", test.q, mse, test.mse)
		}
		if rate := q.Rate(codes); rate != math.Log2(float64(test.q))+0.25 {
			t.Errorf("E8 q=%d with 4 gains: rate %v", test.q, rate)
		}
	}
}

func gaussianCDF(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }
func gaussianPDF(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) }

// scalarDistortion is the exact MSE on N(0,1) of a scalar code with the given ascending levels, and the centroids of its cells.
func scalarDistortion(levels []float64) (mse float64, centroids []float64) {
	mse = 1
	low := math.Inf(-1)
	for i, y := range levels {
		high := math.Inf(1)
		if i+1 < len(levels) {
			high = (y + levels[i+1]) / 2
		}
		p, first := gaussianCDF(high)-gaussianCDF(low), gaussianPDF(low)-gaussianPDF(high)
		mse += y*y*p - 2*y*first
		centroids = append(centroids, first/p)
		low = high
	}
	return mse, centroids
}

// Fact 15: scalar references, and z1 codes are exactly the uniform quantizer.
func TestScalarReferences(t *testing.T) {
	skipMonteCarlo(t)
	for _, test := range []struct {
		levels                   int
		lloydMax, uniform, space float64
	}{{4, 0.117482, 0.118846, 0.9957}, {8, 0.034548, 0.037440, 0.5860}, {16, 0.009501, 0.011543, 0.3352}} {
		points := make([]float64, test.levels)
		for i := range points {
			points[i] = (float64(i) - float64(test.levels-1)/2) * test.space
		}
		mse, centroids := scalarDistortion(points)
		if math.Abs(mse-test.uniform) > 2e-6 {
			t.Errorf("uniform, %d levels: MSE %.6f, want %.6f", test.levels, mse, test.uniform)
		}
		q := mustQuantizer(t, Config{Lattice: Z1, Radices: []int{test.levels}, Beta: test.space, DisableScaling: true})
		if got, _, _ := distortion(t, q, gaussianVectors(15, 400_000)); math.Abs(got/mse-1) > 0.02 {
			t.Errorf("z1:%d: MSE %.6f, want that of the uniform quantizer, %.6f", test.levels, got, mse)
		}
		for range 2000 {
			mse, centroids = scalarDistortion(centroids)
		}
		if math.Abs(mse-test.lloydMax) > 2e-6 {
			t.Errorf("Lloyd-Max, %d levels: MSE %.6f, want %.6f", test.levels, mse, test.lloydMax)
		}
	}
}
