package lattice

import (
	"fmt"
	"math"
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
	skipMonteCarlo(t)
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
	skipMonteCarlo(t)
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
	// Whoever has threads of his own codes the vectors by their numbers, which choose the dither.
	if code, err := q.EncodeAt(7, x[8*7:8*8]); err != nil || !cmp.Equal(code, want[7]) {
		t.Errorf("vector 7 alone: %v, %v, want %v", code, err, want[7])
	}
	if code, err := q.EncodeAt(8, x[8*7:8*8]); err != nil || cmp.Equal(code.Classes, want[7].Classes) {
		t.Errorf("vector 7 under another number: the same classes, %v", err)
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
		{Config{Lattice: Z1, Radices: []int{1 << 32}}, "multiply to more"}, // which would be 0 in 32 bits
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
