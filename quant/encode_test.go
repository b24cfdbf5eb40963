package quant_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
)

// coders calls do with the codec itself and with the encoder of the native library for every instruction set there is.
func coders[T testing.TB](t T, c *lattice.Codec, do func(name string, coder lattice.RowCoder)) {
	t.Helper()
	do("go", c)
	library := testenv.Ops(t)
	for _, isa := range cudaops.ISAs {
		t.Setenv(cudaops.EnvISA, isa)
		e, err := ort.OpenEncoder(library, c)
		switch {
		case err == nil:
			do(isa, e)
		case testenv.HasISA(isa):
			t.Fatal(err)
		default:
			t.Logf("%s: %v", isa, err)
		}
	}
}

// The GPU rounds with feedback as the Go code does: the same bytes, whatever the codec and the Hessian.
func TestGPURoundsWithFeedback(t *testing.T) {
	library := testenv.CUDA(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for _, codec := range []string{"d4:4,4:g3,4,5,6", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7", "d4:2,2,2", "d4:4,4:g1,2,3,5,9,14", "z1:16:g3,4,5,6", "z1:4"} {
		c, err := lattice.ParseCodec(codec)
		if err != nil {
			t.Fatal(err)
		}
		device, err := ort.OpenCUDAEncoder(library, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, shape := range [][2]int{{1, 8}, {70, 300}, {130, 520}} {
			src := dense{shape[0], shape[1], make([]float32, shape[0]*shape[1])}
			for i := range src.w {
				src.w[i] = float32(rng.NormFloat64() * math.Exp(rng.NormFloat64()))
				if i/src.k%50 == 7 {
					src.w[i] = 0
				}
			}
			for name, h := range map[string]*quant.Hessian{"full": ar1(shape[1], 0.9), "sampled": sampled(shape[1], 2*shape[1], 5)} {
				run := func(encoder lattice.RowCoder) *quant.Result {
					res, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Hessian: h, Threads: 2, Encoder: encoder})
					if err != nil {
						t.Fatal(err)
					}
					return res
				}
				if want, got := run(nil), run(device); !reflect.DeepEqual(want.Matrix, got.Matrix) || !reflect.DeepEqual(want.Feedback, got.Feedback) {
					t.Errorf("%s, %v, %s Hessian: the GPU codes otherwise: loss %v, want %v", codec, shape, name, got.Feedback, want.Feedback)
				}
			}
		}
	}
}

// The native library changes no byte, whatever the instruction set and the number of threads.
func TestEncoderChangesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 34))
	weights := map[string]func(row, col int) float64{
		"gaussian":     func(int, int) float64 { return rng.NormFloat64() },
		"heavy-tailed": func(int, int) float64 { return rng.NormFloat64() * math.Exp(2*rng.NormFloat64()) },
		"spikes":       func(_, col int) float64 { return rng.NormFloat64() * float64(1+10000*(col%50/49)) },
		"zero rows":    func(row, _ int) float64 { return rng.NormFloat64() * float64(row%3) },
		"zeros":        func(int, int) float64 { return 0 },
		"tiny":         func(row, _ int) float64 { return rng.NormFloat64() * math.Exp2(float64(-80-row%30)) },
		"too tiny":     func(int, int) float64 { return rng.NormFloat64() * math.Exp2(-140) },
		"huge":         func(row, _ int) float64 { return rng.NormFloat64() * math.Exp2(float64(100+row%24)) },
		"both":         func(row, _ int) float64 { return rng.NormFloat64() * math.Exp2(float64(row%120-60)) },
		"integers":     func(int, int) float64 { return float64(rng.IntN(9) - 4) },
	}
	codecs := []string{"d4:4,4:g3,4,5,6", "z1:16:g3,4,5,6", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7"}
	if testing.Short() {
		codecs = codecs[:2]
	}
	for _, name := range codecs {
		c, err := lattice.ParseCodec(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range [][2]int{{1, 1}, {20, 264}, {70, 129}, {300, 20}} { // 70 and 300 rows share scales
			for name, weight := range weights {
				src := dense{size[0], size[1], make([]float32, size[0]*size[1])}
				for i := range src.w {
					src.w[i] = float32(weight(i/src.k, i%src.k))
				}
				var want *quant.Result
				var failure error
				coders(t, c, func(isa string, coder lattice.RowCoder) {
					for threads := 1; threads <= 3; threads += 2 {
						got, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Encoder: coder, Threads: threads})
						if want == nil && failure == nil {
							want, failure = got, err
						}
						what := fmt.Sprintf("%v, %s, %v, %s, %d threads", c, name, size, isa, threads)
						if err != nil || failure != nil {
							if err == nil || failure == nil || err.Error() != failure.Error() {
								t.Errorf("%s: %v, want %v", what, err, failure)
							}
							continue
						}
						a, b := want.Matrix, got.Matrix
						if !bytes.Equal(a.Codes, b.Codes) || !bytes.Equal(a.Gains, b.Gains) || !reflect.DeepEqual(a, b) {
							t.Errorf("%s: other bytes than in Go", what)
						}
						if want.SumSquares != got.SumSquares || want.SumSquaredError != got.SumSquaredError {
							t.Errorf("%s: error %v of %v, want %v of %v", what, got.SumSquaredError, got.SumSquares, want.SumSquaredError, want.SumSquares)
						}
					}
				})
			}
		}
	}
}

// native returns options that code with the native library; ok is false where the machine lacks the instruction set asked for.
func native(t testing.TB, c *lattice.Codec) (o quant.Options, ok bool) {
	t.Helper()
	library := testenv.Ops(t)
	products, err := ort.OpenProducts(library)
	if err != nil {
		if isa := os.Getenv(cudaops.EnvISA); isa == "" || testenv.HasISA(isa) {
			t.Fatal(err)
		}
		return o, false
	}
	o = quant.Options{Codec: c, Products: products}
	if e, err := ort.OpenEncoder(library, c); err == nil {
		o.Encoder, o.Groups = e, e
	} else if c.Lattice() != lattice.E8 {
		t.Fatal(err)
	}
	return o, true
}

// The native library rounds with feedback as the Go code does: the same bytes and losses, whatever the codec, the Hessian, the
// instruction set and the number of threads.
func TestNativeFeedbackChangesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"d4:4,4:g3,4,5,6", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7", "d4:2,2,2", "d4:4,4:g1,2,3,5,9,14", "z1:16:g3,4,5,6", "e8:2:g2,3"} {
		c, err := lattice.ParseCodec(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, shape := range [][2]int{{1, 8}, {67, 140}} {
			src := dense{shape[0], shape[1], make([]float32, shape[0]*shape[1])}
			for i := range src.w {
				src.w[i] = float32(rng.NormFloat64() * math.Exp(rng.NormFloat64()))
				if i%src.k%50 == 7 || i/src.k == 2 {
					src.w[i] = 0
				}
			}
			diagonal := &quant.Hessian{K: src.k, Diagonal: make([]float64, src.k)}
			for j := range diagonal.Diagonal {
				diagonal.Diagonal[j] = math.Exp(rng.NormFloat64())
			}
			for kind, h := range map[string]*quant.Hessian{"full": ar1(src.k, 0.9), "sampled": sampled(src.k, 2*src.k, 5), "diagonal": diagonal} {
				run := func(o quant.Options, threads int) *quant.Result {
					o.Codec, o.Hessian, o.Threads = c, h, threads
					res, err := quant.Quantize(context.Background(), src, o)
					if err != nil {
						t.Fatal(err)
					}
					return res
				}
				want := run(quant.Options{}, 1)
				for _, isa := range cudaops.ISAs {
					t.Setenv(cudaops.EnvISA, isa)
					o, ok := native(t, c)
					if !ok {
						continue
					}
					for _, threads := range []int{1, 3} {
						got := run(o, threads)
						if !reflect.DeepEqual(want.Matrix, got.Matrix) || !reflect.DeepEqual(want.Feedback, got.Feedback) || want.SumSquaredError != got.SumSquaredError {
							t.Errorf("%s, %v, %s Hessian, %s, %d threads: loss %v, want %v", name, shape, kind, isa, threads, got.Feedback, want.Feedback)
						}
					}
				}
			}
		}
	}
}

// BenchmarkEncode codes N(0,1) at the nominal step on one core.
func BenchmarkEncode(b *testing.B) {
	for _, codec := range []string{"d4:4,4:g3,4,5,6", "d4:2,4:g3,4,5,7", "d4:4:g3,4,5,7", "z1:16:g3,4,5,6", "z1:4:g3,4,5,7"} {
		c, err := lattice.ParseCodec(codec)
		if err != nil {
			b.Fatal(err)
		}
		src := gaussian(4, 4096, 11)
		work := lattice.RowBatch{Weights: src.w, Width: src.k, Steps: make([]float32, src.n)}
		for i := range work.Steps {
			work.Steps[i] = c.NominalStep()
		}
		codes, err := c.NewCodes(src.n, src.k)
		if err != nil {
			b.Fatal(err)
		}
		sse := make([]float64, src.n)
		coders(b, c, func(name string, coder lattice.RowCoder) {
			run := func(what string, do func() error) {
				b.Run(c.String()+"/"+name+"/"+what, func(b *testing.B) {
					least := time.Hour // the shortest run is the one that had the core for itself
					for b.Loop() {
						start := time.Now()
						if err := do(); err != nil {
							b.Fatal(err)
						}
						least = min(least, time.Since(start))
					}
					b.ReportMetric(float64(len(src.w))/least.Seconds()/1e9, "Gweights/s")
					lost := 0.0
					for _, x := range sse {
						lost += x
					}
					b.ReportMetric(lost/float64(len(src.w)), "squared-error")
				})
			}
			run("encode", func() error { return coder.EncodeRows(codes.Indices, codes.Gains, sse, work) })
			run("distortion", func() error { return coder.Distortions(sse, work) })
		})
	}
}
