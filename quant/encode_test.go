package quant_test

import (
	"testing"
	"time"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
)

// coders calls do with the codec itself and with the encoder of the native library for every instruction set there is.
func coders[T testing.TB](t T, c *lattice.Codec, do func(name string, coder lattice.RowCoder)) {
	t.Helper()
	do("go", c)
	library := testenv.Ops(t)
	for _, isa := range cudaops.ISAs {
		t.Setenv(cudaops.EnvISA, isa)
		e, err := ort.OpenEncoder(library, c)
		if err != nil {
			t.Logf("%s: %v", isa, err)
			continue
		}
		do(isa, e)
	}
}

// BenchmarkEncode codes N(0,1) at the nominal step on one core.
func BenchmarkEncode(b *testing.B) {
	for bits := 4; bits >= 2; bits-- {
		c, err := lattice.Preset(bits)
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
				})
			}
			run("encode", func() error { return coder.EncodeRows(codes.Indices, codes.Gains, sse, work) })
			run("distortion", func() error { return coder.Distortions(sse, work) })
		})
	}
}
