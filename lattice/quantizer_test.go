package lattice

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func mustQuantizer(tb interface{ Fatal(...any) }, config Config) *Quantizer {
	q, err := NewQuantizer(config)
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

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

// Fact 9: quantizing is idempotent at fixed T.
func TestIdempotent(t *testing.T) {
	for _, config := range []Config{
		{Lattice: D4, Radices: Uniform(4, 2), Beta: 0.2, DisableScaling: true},
		{Lattice: E8, Radices: []int{2, 4}, Beta: 0.3, DisableScaling: true, Uncentred: true},
		{Lattice: E8, Radices: []int{12}, Beta: 0.3, DisableScaling: true},
		{Lattice: Z3, Radices: Uniform(5, 2), Beta: 0.1, DisableScaling: true, Dither: true, Seed: 7},
	} {
		q := mustQuantizer(t, config)
		rapid.Check(t, func(t *rapid.T) {
			x := drawVector(t, q.dim, 4)
			code, err := q.Encode(x)
			if err != nil {
				t.Fatal(err)
			}
			once := make([]float64, q.dim)
			if err := q.Decode(once, code); err != nil {
				t.Fatal(err)
			}
			again, err := q.Encode(once)
			if err != nil {
				t.Fatal(err)
			}
			if again.Overload || !cmp.Equal(again.Classes, code.Classes) {
				t.Fatalf("%v has code %v, what it decodes to %v", x, code, again)
			}
		})
	}
}

// Off overload the decoded vector is the nearest point, whatever the options.
func TestDecodeIsNearestPoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := Config{
			Lattice:                   rapid.SampledFrom(allLattices).Draw(t, "lattice"),
			Radices:                   rapid.SliceOfN(rapid.IntRange(2, 4), 1, 3).Draw(t, "radices"),
			Beta:                      rapid.Float64Range(0.05, 2).Draw(t, "beta"),
			Uncentred:                 rapid.Bool().Draw(t, "uncentred"),
			TieDither:                 rapid.Bool().Draw(t, "tie dither"),
			DisableScaling:            rapid.Bool().Draw(t, "no scaling"),
			DisableOverloadProtection: rapid.Bool().Draw(t, "no protection"),
		}
		q := mustQuantizer(t, config)
		x := drawVector(t, q.dim, 3)
		code, err := q.Encode(x)
		if err != nil {
			t.Fatal(err)
		}
		if code.Overload {
			return
		}
		y := make([]float64, q.dim)
		if err := q.Decode(y, code); err != nil {
			t.Fatal(err)
		}
		var e float64
		for j := range x {
			e += (x[j] - y[j]) * (x[j] - y[j])
		}
		r := config.Lattice.CoveringRadius() * config.Beta * math.Exp2(float64(code.T)/3)
		if e > r*r*(1+1e-6) {
			t.Fatalf("%v decodes to %v, %v away: more than the covering radius %v", x, y, math.Sqrt(e), r)
		}
	})
}

// Overload handling: scaling makes everything fit, clamping keeps T = 0, and without protection a code wraps.
func TestOverload(t *testing.T) {
	far := []float64{30, -20, 10, 5}
	size := math.Sqrt(30*30 + 20*20 + 10*10 + 5*5)
	miss := func(q *Quantizer) (Code, float64) {
		code, err := q.Encode(far)
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float64, 4)
		if err := q.Decode(y, code); err != nil {
			t.Fatal(err)
		}
		var e float64
		for j := range y {
			e += (far[j] - y[j]) * (far[j] - y[j])
		}
		return code, math.Sqrt(e)
	}
	base := Config{Lattice: D4, Radices: Uniform(4, 2)}
	code, e := miss(mustQuantizer(t, base))
	if code.Overload || code.T == 0 || e > math.Exp2(float64(code.T)/3) {
		t.Errorf("scaling: %+v misses by %v", code, e)
	}
	limited := base
	limited.MaxScalingIterations = 1
	if code, _ := miss(mustQuantizer(t, limited)); !code.Overload || code.T != 1 {
		t.Errorf("scaling once: %+v, want an overload at T = 1", code)
	}
	clamped := base
	clamped.DisableScaling = true
	if code, e := miss(mustQuantizer(t, clamped)); !code.Overload || code.T != 0 || e > size {
		t.Errorf("clamping: %+v misses by %v", code, e)
	}
	wrapped := base
	wrapped.DisableOverloadProtection = true
	if code, e := miss(mustQuantizer(t, wrapped)); !code.Overload || code.T != 0 || e < 10 {
		t.Errorf("wrapping: %+v misses by %v", code, e)
	}
}

// The dither makes the error uniform on the cell and independent of the source: here, of a constant one.
func TestDither(t *testing.T) {
	q := mustQuantizer(t, Config{Lattice: D4, Radices: Uniform(4, 2), Beta: 0.5, Dither: true, Seed: 3})
	x := make([]float64, 4*20_000)
	for i := range x {
		x[i] = 0.123
	}
	mse, _, decoded := distortion(t, q, x)
	if want := D4.SecondMoment() * 0.25; math.Abs(mse/want-1) > 0.02 {
		t.Errorf("dithered MSE of a constant %v, want %v", mse, want)
	}
	var mean float64
	for _, y := range decoded {
		mean += y
	}
	if mean /= float64(len(decoded)); math.Abs(mean-0.123) > 0.003 {
		t.Errorf("dithered mean of a constant 0.123 is %v", mean)
	}
}

// Successive refinement: each level left out costs about q² in distortion (theory 1.9).
func TestSuccessiveRefinement(t *testing.T) {
	for _, test := range []struct {
		lattice            Lattice
		beta, full, coarse float64
	}{{E8, 0.324, 0.0075, 0.127}, {D4, 0.287, 0.0089, 0.150}} {
		q := mustQuantizer(t, Config{Lattice: test.lattice, Radices: Uniform(4, 2), Beta: test.beta, DisableScaling: true})
		x := gaussianVectors(9, 160_000)
		codes, err := q.EncodeBatch(x, 0)
		if err != nil {
			t.Fatal(err)
		}
		var full, coarse float64
		n := 0
		y := make([]float64, q.dim)
		for i, code := range codes {
			if code.Overload {
				continue
			}
			n += q.dim
			for from, sum := range []*float64{&full, &coarse} {
				if err := q.DecodeCoarse(y, code, from); err != nil {
					t.Fatal(err)
				}
				for j := range y {
					e := x[i*q.dim+j] - y[j]
					*sum += e * e
				}
			}
		}
		full, coarse = full/float64(n), coarse/float64(n)
		if math.Abs(full/test.full-1) > 0.04 || math.Abs(coarse/test.coarse-1) > 0.04 {
			t.Errorf("%v: MSE %.5f from both levels and %.4f from the coarse one, want %v and %v", test.lattice, full, coarse, test.full, test.coarse)
		}
		// With every level left out the mean of the code remains: 0.
		if err := q.DecodeCoarse(y, codes[0], 2); err != nil || math.Abs(y[0]) > 1e-12 {
			t.Errorf("%v: nothing decodes to %v, %v", test.lattice, y, err)
		}
	}
}

func TestBatchIsDeterministic(t *testing.T) {
	q := mustQuantizer(t, Config{Lattice: E8, Radices: []int{2, 4}, Beta: 0.3, Dither: true, Seed: 5})
	x := gaussianVectors(10, 8*1000)
	want, err := q.EncodeBatch(x, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{0, 2, 7} {
		if codes, err := q.EncodeBatch(x, threads); err != nil || !cmp.Equal(codes, want) {
			t.Errorf("%d threads give other codes, %v", threads, err)
		}
	}
	y := make([]float64, 8)
	if err := q.Quantize(y, x[:8]); err != nil {
		t.Fatal(err)
	}
	z := make([]float64, 8)
	if err := q.Decode(z, want[0]); err != nil || !cmp.Equal(y, z) {
		t.Errorf("Quantize gives %v, the batch %v, %v", y, z, err)
	}
}

func TestQuantizerErrors(t *testing.T) {
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{Radices: []int{4}}, "no lattice"},
		{Config{Lattice: D4}, "no radices"},
		{Config{Lattice: D4, Radices: []int{4, 1}}, "too small"},
		{Config{Lattice: E8, Radices: []int{17}}, "too large"},
		{Config{Lattice: Z1, Radices: []int{1 << 20, 1 << 20}}, "multiply to more"},
		{Config{Lattice: D4, Radices: []int{4}, Beta: -1}, "beta"},
		{Config{Lattice: D4, Radices: []int{4}, Beta: math.NaN()}, "beta"},
		{Config{Lattice: D4, Radices: []int{4}, Alpha: math.Inf(1)}, "alpha"},
		{Config{Lattice: D4, Radices: []int{4}, MaxScalingIterations: -1}, "iterations"},
		{Config{Lattice: D4, Radices: []int{4}, Gains: []float64{1, 2}}, "DisableScaling"},
		{Config{Lattice: D4, Radices: []int{4}, Gains: []float64{0, 2}, DisableScaling: true}, "gain 0"},
	} {
		if _, err := NewQuantizer(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("NewQuantizer(%+v): error %v, want one with %q", test.config, err, test.want)
		}
	}
	q := mustQuantizer(t, Config{Lattice: D4, Radices: []int{4}, DisableOverloadProtection: true})
	for _, x := range [][]float64{{1, 2, 3}, {1, 2, 3, math.NaN()}, {1, 2, 3, math.Inf(-1)}, {1e300, 0, 0, 0}} {
		if _, err := q.Encode(x); err == nil {
			t.Errorf("Encode(%v): want an error", x)
		}
	}
	good, err := q.Encode([]float64{1, 0, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Code){
		func(c *Code) { c.Classes = nil },
		func(c *Code) { c.Classes = []uint32{256} },
		func(c *Code) { c.T = -1 },
		func(c *Code) { c.T = 11 },
		func(c *Code) { c.Gain = 1 },
	} {
		bad := good
		change(&bad)
		if err := q.Decode(make([]float64, 4), bad); err == nil {
			t.Errorf("Decode(%+v): want an error", bad)
		}
	}
	if err := q.Decode(make([]float64, 3), good); err == nil {
		t.Error("Decode into a short vector: want an error")
	}
	if _, err := q.EncodeBatch(make([]float64, 6), 0); err == nil {
		t.Error("EncodeBatch of 6 numbers: want an error")
	}
	if err := q.DecodeBatch(make([]float64, 6), []Code{good}, 0); err == nil {
		t.Error("DecodeBatch into 6 numbers: want an error")
	}
}

// A finite vector of any size is coded when overload protection is on.
func TestHugeVector(t *testing.T) {
	for _, config := range []Config{{Lattice: D4, Radices: []int{4}}, {Lattice: E8, Radices: []int{2}, DisableScaling: true, Dither: true}} {
		q := mustQuantizer(t, config)
		x := make([]float64, q.dim)
		x[0], x[1] = 1e300, -1e299
		code, err := q.Encode(x)
		if err != nil || !code.Overload {
			t.Errorf("%v: code %+v, %v", config.Lattice, code, err)
		}
	}
}

func ExampleQuantizer() {
	q, err := NewQuantizer(Config{Lattice: E8, Radices: Uniform(4, 2), Beta: 0.3})
	if err != nil {
		fmt.Println(err)
		return
	}
	code, err := q.Encode([]float64{0.7, -1.3, 0.2, 0.9, -0.4, 1.8, 0.1, -0.6})
	if err != nil {
		fmt.Println(err)
		return
	}
	x := make([]float64, 8)
	if err := q.Decode(x, code); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d levels, T = %d: %.2f\n", len(code.Classes), code.T, x)
	if err := q.DecodeCoarse(x, code, 1); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("coarse level alone: %.2f\n", x)
	// Output:
	// 2 levels, T = 0: [0.63 -1.33 0.28 0.87 -0.47 1.93 0.03 -0.63]
	// coarse level alone: [0.50 -1.31 0.22 0.94 0.34 2.02 0.02 -0.74]
}
