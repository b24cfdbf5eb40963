package quant_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// dense is a weight held in memory.
type dense struct {
	n, k int
	w    []float32
}

func (d dense) Dims() (n, k int) { return d.n, d.k }
func (d dense) Rows(dst []float32, n0, n1 int) error {
	copy(dst, d.w[n0*d.k:n1*d.k])
	return nil
}

func gaussian(n, k int, seed uint64) dense {
	r := rand.New(rand.NewPCG(seed, 1))
	d := dense{n, k, make([]float32, n*k)}
	for i := range d.w {
		d.w[i] = float32(r.NormFloat64())
	}
	return d
}

func codec(t testing.TB, s string) *lattice.Codec {
	t.Helper()
	c, err := lattice.ParseCodec(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func quantize(t testing.TB, src quant.Source, c *lattice.Codec, threads int) *quant.Result {
	t.Helper()
	res, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The presets on N(0,1), every stored bit counted, the codebook too.
func TestPresetsOnGaussian(t *testing.T) {
	testenv.Numbers(t)
	const n, k = 64, 16384 // 2^20 weights
	src := gaussian(n, k, 7)
	for _, c := range []struct {
		bits      int
		mse, rate float64
	}{{4, 0.0056, 4.26}, {3, 0.0215, 3.26}, {2, 0.079, 2.26}} {
		preset, err := lattice.Preset(c.bits)
		if err != nil {
			t.Fatal(err)
		}
		res := quantize(t, src, preset, 0)
		mse := res.SumSquaredError / res.SumSquares
		rate := 8 * float64(res.Matrix.Bytes()+int64(len(quant.LayoutOf(preset).Codebook))) / (n * k)
		t.Logf("%v: MSE %.5f at %.4f bits per weight, MSE·4^R = %.2f", preset, mse, rate, mse*math.Pow(4, rate))
		if mse > c.mse || rate > c.rate {
			t.Errorf("%v: MSE %.5f at %.4f bits, want at most %.4f at %.2f", preset, mse, rate, c.mse, c.rate)
		}
		if mse*math.Pow(4, rate) < 1 {
			t.Errorf("%v: MSE %.5f at %.4f bits beats the rate-distortion bound: something is not counted", preset, mse, rate)
		}
	}
}

// What is stored decodes to what the encoder said it would lose, for odd sizes and every kind of layout.
func TestDecodeMatchesReportedError(t *testing.T) {
	for _, name := range []string{
		"d4:4,4:g2,3,4,6", "d4:2,4:g3,4,5,7", "d4:4", "d4:3,3:g1,2", "e8:2,2:g2,3", "e8:3", "z2:4,4:g2,3,5", "z1:16",
		"d4:8:g3,4,5,7", "d4:2,8:g1,2,3,4,5",
	} {
		c := codec(t, name)
		for _, size := range [][2]int{{1, 1}, {3, 17}, {65, 40}, {200, 100}, {130, 2000}} {
			src := gaussian(size[0], size[1], 3)
			res := quantize(t, src, c, 2)
			back := make([]float32, len(src.w))
			if err := res.Matrix.DecodeRows(back, 0, src.n); err != nil {
				t.Fatal(err)
			}
			var sse float64
			for i, w := range src.w {
				sse += float64(w-back[i]) * float64(w-back[i])
			}
			// The reported error also holds what the padding columns lost.
			if sse > res.SumSquaredError*1.001+1e-6 || (size[1]%8 == 0 && sse < res.SumSquaredError*0.999) {
				t.Errorf("%s %v: decoded error %v, reported %v", name, size, sse, res.SumSquaredError)
			}
		}
	}
}

// What is said of the size before a matrix is coded comes true.
func TestPlaceholderHasTheSizeOfTheCode(t *testing.T) {
	testenv.Numbers(t)
	for _, name := range []string{"d4:4:g3,4,5,7", "d4:2,4:g3,4,5,7", "d4:4,4:g3,4,5,6", "e8:2,2", "d4:8"} {
		for _, dims := range [][2]int{{300, 192}, {10, 64}, {7, 100}, {129, 1024}} {
			n, k := dims[0], dims[1]
			c := codec(t, name)
			m := quantize(t, gaussian(n, k, 1), c, 0).Matrix
			p := quant.Placeholder(c, n, k, nil)
			if err := p.Validate(); err != nil {
				t.Errorf("%s, %d × %d: %v", name, n, k, err)
			}
			if len(p.Codes) != len(m.Codes) || len(p.Gains) != len(m.Gains) || p.Bytes() != m.Bytes() || p.Bytes() != quant.PlannedBytes(c, n, k) {
				t.Errorf("%s, %d × %d: %d bytes, the code takes %d", name, n, k, p.Bytes(), m.Bytes())
			}
		}
	}
}

// The bytes do not depend on the number of threads.
func TestThreadsDoNotMatter(t *testing.T) {
	src := gaussian(300, 192, 5)
	c := codec(t, "d4:4,4:g2,3,4,6")
	a, b := quantize(t, src, c, 1).Matrix, quantize(t, src, c, 7).Matrix
	if !bytes.Equal(a.Codes, b.Codes) || !bytes.Equal(a.Gains, b.Gains) || !bytes.Equal(a.ScaleIndex, b.ScaleIndex) || a.Exponent != b.Exponent {
		t.Error("1 and 7 threads gave different bytes")
	}
}

func TestRowsOfZerosAndTinyRows(t *testing.T) {
	src := gaussian(100, 64, 9)
	for i := range src.w {
		switch r := i / 64; {
		case r%3 == 0:
			src.w[i] = 0
		case r%3 == 1:
			src.w[i] *= 1e-4
		}
	}
	res := quantize(t, src, codec(t, "d4:4,4:g2,3,4,6"), 0)
	back := make([]float32, len(src.w))
	if err := res.Matrix.DecodeRows(back, 0, src.n); err != nil {
		t.Fatal(err)
	}
	for r := range src.n {
		var e, s float64
		for j := r * 64; j < (r+1)*64; j++ {
			e += float64(src.w[j]-back[j]) * float64(src.w[j]-back[j])
			s += float64(src.w[j]) * float64(src.w[j])
		}
		if e > 0.02*s {
			t.Errorf("row %d: relative error %v", r, e/s)
		}
	}
	if b := quantize(t, dense{8, 8, make([]float32, 64)}, codec(t, "e8:2,2"), 0); b.SumSquaredError != 0 {
		t.Errorf("a matrix of zeros loses %v", b.SumSquaredError)
	} else if !math.IsInf(b.SQNR(), 1) {
		t.Errorf("nothing is lost of a matrix of zeros, and its SQNR is %v", b.SQNR())
	}
}

// Rows that shared scales are enough for have one each, however far apart they lie and wherever the rows of zeros are.
func TestFewRowsHaveScalesOfTheirOwn(t *testing.T) {
	const n, k = 64, 128
	for live := 1; live <= 15; live++ {
		src := gaussian(n, k, 3)
		for i := range src.w {
			if r := i / k * 7 % n; r < live {
				src.w[i] *= float32(math.Pow(3, float64(r)))
			} else {
				src.w[i] = 0
			}
		}
		m := quantize(t, src, codec(t, "d4:4,4:g3,4,5,6"), 0).Matrix
		back := make([]float32, n*k)
		if err := m.DecodeRows(back, 0, n); err != nil {
			t.Fatal(err)
		}
		for r := range n {
			var e, s float64
			for j := r * k; j < (r+1)*k; j++ {
				e += float64(src.w[j]-back[j]) * float64(src.w[j]-back[j])
				s += float64(src.w[j]) * float64(src.w[j])
			}
			if e > 0.008*s {
				t.Errorf("%d rows that are not zero: relative error %v of row %d", live, e/s, r)
			}
		}
	}
}

// Weights near the end of float32's range neither fail nor become NaN.
func TestRowsThatVanish(t *testing.T) {
	src := gaussian(70, 64, 4)
	for i := range src.w {
		src.w[i] *= []float32{1e-38, 1e-44, 1e-30, 1e30}[i/64%4]
	}
	for _, k := range []int{64, 63} {
		m := quantize(t, dense{src.n, k, src.w[:src.n*k]}, codec(t, "d4:4,4:g3,4,5,6"), 0).Matrix
		back := make([]float32, src.n*k)
		if err := m.DecodeRows(back, 0, src.n); err != nil {
			t.Fatal(err)
		}
		for i, v := range back {
			if v-v != 0 {
				t.Fatalf("weight %d decodes to %v", i, v)
			}
		}
	}
}

func TestNonFiniteWeightIsNamed(t *testing.T) {
	src := gaussian(140, 32, 1)
	src.w[133*32+21] = float32(math.Inf(1))
	for _, opt := range []quant.Options{{}, {Rotation: quant.NewRotation(32, 1)}, {Rotation: quant.NewRotation(32, 1), TryRotation: true}} {
		opt.Codec = codec(t, "d4:4")
		_, err := quant.Quantize(context.Background(), src, opt)
		var bad *quant.NonFiniteError
		if !errors.As(err, &bad) || bad.Row != 133 || bad.Column != 21 || !math.IsInf(float64(bad.Value), 1) {
			t.Errorf("rotation %v: error = %v, want one that names [133, 21]", opt.Rotation, err)
		}
	}
}

// A weight that float32 holds, and would not when it is turned, is coded as it is.
func TestRotationOutOfRange(t *testing.T) {
	src := gaussian(140, 32, 1)
	for i := range src.w {
		src.w[i] = float32(math.Copysign(2e38, float64(src.w[i])))
	}
	for _, try := range []bool{false, true} {
		res, err := quant.Quantize(context.Background(), src, quant.Options{Codec: codec(t, "d4:4,4"), Rotation: quant.NewRotation(32, 1), TryRotation: try})
		if err != nil || res.Matrix.Rotation != nil {
			t.Errorf("try %v: %+v, %v", try, res, err)
		}
	}
}

func TestNoCodec(t *testing.T) {
	if _, err := quant.Quantize(context.Background(), gaussian(8, 16, 1), quant.Options{}); err == nil {
		t.Error("no codec is taken")
	}
}

func TestDampingThatIsNone(t *testing.T) {
	h := &quant.Hessian{K: 16, Moments: make([]float64, 256)}
	for i := range 16 {
		h.Moments[17*i] = float64(1 + i)
	}
	for _, damping := range []float64{-1, -1e-3, math.NaN(), math.Inf(1)} {
		opt := quant.Options{Codec: codec(t, "d4:4"), Hessian: h, Damping: damping}
		if _, err := quant.Quantize(context.Background(), gaussian(8, 16, 1), opt); err == nil {
			t.Errorf("a damping of %v is taken", damping)
		}
		known := *h
		known.Damping = damping
		var unusable *quant.HessianError
		res, err := quant.Quantize(context.Background(), gaussian(8, 16, 1), quant.Options{Codec: codec(t, "d4:4"), Hessian: &known})
		if err != nil || !errors.As(res.Fallback, &unusable) {
			t.Errorf("a Hessian with a damping of %v: %+v, %v", damping, res, err)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := quant.Quantize(ctx, gaussian(64, 64, 1), quant.Options{Codec: codec(t, "d4:4")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

func BenchmarkQuantize(b *testing.B) {
	src := gaussian(512, 512, 2)
	c, err := lattice.Preset(4)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		quantize(b, src, c, 1)
	}
	b.ReportMetric(float64(b.N)*512*512/b.Elapsed().Seconds()/1e6, "Mweights/s")
}

// Scales reach 2^31 below the largest, in the end without much precision: rows below that are counted.
func TestFadedRows(t *testing.T) {
	testenv.Numbers(t)
	const n = 160
	for _, k := range []int{64, 1600} { // with shared scales, and with one per row
		for _, c := range []struct {
			factor float32 // of every fourth row
			faded  int
		}{{1, 0}, {0.5, 0}, {1e-3, 0}, {1e-8, 0}, {1e-11, n / 4}, {1e-33, n / 4}, {0, 0}} {
			src := gaussian(n, k, 9)
			for r := 0; r < n; r += 4 {
				for i := range k {
					src.w[r*k+i] *= c.factor
				}
			}
			options := quant.Options{Codec: codec(t, "d4:4,4:g3,4,5,6")}
			for _, hessian := range []*quant.Hessian{nil, ar1(64, 0.9)} {
				if hessian != nil && hessian.K != k {
					continue
				}
				options.Hessian = hessian
				res, err := quant.Quantize(t.Context(), src, options)
				if err != nil {
					t.Fatal(err)
				}
				if res.Faded != c.faded {
					t.Errorf("K = %d, factor %v, with moments %v: %d rows, want %d", k, c.factor, hessian != nil, res.Faded, c.faded)
				}
			}
		}
	}
}

// Shared scales lean to where the energy is: a few loud rows among many quiet ones lose 1.2 dB to what they would by themselves, and 3.9
// where all rows count alike.
func TestSharedScalesSuitLoudRows(t *testing.T) {
	const n, k, loud = 320, 64, 12
	src := gaussian(n, k, 6)
	alone := dense{loud, k, nil}
	for r := range n {
		row := src.w[r*k : (r+1)*k]
		scale := math.Exp(3 * math.Sin(float64(7*r))) // quiet ones, far apart
		if r%27 == 0 {
			scale = 1000 * math.Exp(0.6*math.Sin(float64(r)))
		}
		for j := range row {
			row[j] *= float32(scale)
		}
		if r%27 == 0 {
			alone.w = append(alone.w, row...)
		}
	}
	c := codec(t, "d4:4,4:g3,4,5,6")
	shared, own := quantize(t, src, c, 0), quantize(t, alone, c, 0)
	if shared.SQNR() < own.SQNR()-2 {
		t.Errorf("%.2f dB with shared scales, %.2f dB with scales of their own", shared.SQNR(), own.SQNR())
	}
}
