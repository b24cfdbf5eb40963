package ort_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
)

func parseCodec(tb interface{ Fatal(...any) }, s string) *lattice.Codec {
	c, err := lattice.ParseCodec(s)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// sameRows fails unless the encoder and the codec give the same codes and errors, to the bit.
func sameRows(tb interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, c *lattice.Codec, e lattice.RowCoder, b lattice.RowBatch) {
	groups := b.Len() * b.Width / lattice.GroupSize
	type result struct {
		indices   []uint16
		gains     []uint8
		sse, only []float64
		failure   error
	}
	run := func(coder lattice.RowCoder) (r result) {
		r.indices, r.gains = make([]uint16, groups*c.GroupIndices()), make([]uint8, groups)
		r.sse, r.only = make([]float64, b.Len()), make([]float64, b.Len())
		if err := coder.Distortions(r.only, b); err != nil {
			tb.Fatal(err)
		}
		r.failure = coder.EncodeRows(r.indices, r.gains, r.sse, b)
		return r
	}
	want, got := run(c), run(e)
	if !slices.Equal(want.only, got.only) {
		tb.Fatalf("%v: distortions %v, want %v", c, got.only, want.only)
	}
	if want.failure != nil {
		if got.failure == nil || got.failure.Error() != want.failure.Error() {
			tb.Fatalf("%v: fails with %v, want %v", c, got.failure, want.failure)
		}
		return
	}
	if got.failure != nil || !slices.Equal(want.sse, got.sse) || !slices.Equal(want.sse, got.only) {
		tb.Fatalf("%v: errors %v and %v (%v), want %v", c, got.sse, got.only, got.failure, want.sse)
	}
	for i, n := 0, c.GroupIndices(); i < groups; i++ {
		if a, b := want.indices[i*n:(i+1)*n], got.indices[i*n:(i+1)*n]; !slices.Equal(a, b) || want.gains[i] != got.gains[i] {
			tb.Fatalf("%v: group %d has gain %d, indices %v; want %d, %v", c, i, got.gains[i], b, want.gains[i], a)
		}
	}
}

// The encoder of the GPU gives the same bits as the Go code.
func TestCUDAEncoderIsExact(t *testing.T) {
	library := testenv.CUDA(t)
	if _, err := ort.OpenCUDAEncoder(library, parseCodec(t, "e8:2,2")); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("codec without kernels: %v, want an error that there is no encoder", err)
	}
	for _, codecs := range [][]string{encodersD4, encodersZ} {
		rapid.Check(t, func(t *rapid.T) {
			checkEncoder(t, codecs, func(c *lattice.Codec) (lattice.RowCoder, error) { return ort.OpenCUDAEncoder(library, c) })
		})
	}
}

// The library gives the codes and errors of the Go code on random codecs, shapes, scales and distributions.
func TestEncoderIsExact(t *testing.T) {
	library := testenv.Ops(t)
	for _, isa := range cudaops.ISAs {
		t.Run(isa, func(t *testing.T) {
			t.Setenv(cudaops.EnvISA, isa)
			if _, err := ort.OpenEncoder(library, parseCodec(t, "d4:4")); err != nil {
				if testenv.HasISA(isa) {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			for _, codecs := range [][]string{encodersD4, encodersZ} {
				rapid.Check(t, func(t *rapid.T) {
					checkEncoder(t, codecs, func(c *lattice.Codec) (lattice.RowCoder, error) { return ort.OpenEncoder(library, c) })
				})
			}
		})
	}
}

// The codecs that the encoders take, without their gains.
var (
	encodersD4 = []string{"d4:4", "d4:2", "d4:4,4", "d4:2,4", "d4:4,2", "d4:2,2", "d4:2,2,2", "d4:2,4,2", "d4:4,2,4", "d4:2,2,2,2"}
	encodersZ  = []string{"z1:16", "z1:8", "z1:4", "z1:2"}
)

func checkEncoder(t *rapid.T, codecs []string, open func(*lattice.Codec) (lattice.RowCoder, error)) {
	codec := rapid.SampledFrom(codecs).Draw(t, "codec")
	gains := rapid.SliceOfNDistinct(rapid.IntRange(1, lattice.MaxGain), 0, lattice.MaxGains, rapid.ID).Draw(t, "gains")
	slices.Sort(gains)
	for i, g := range gains {
		if len(gains) > 1 {
			codec += fmt.Sprint([]string{":g", ","}[min(i, 1)], g)
		}
	}
	c := parseCodec(t, codec)
	e, err := open(c)
	if err != nil {
		t.Fatal(err)
	}
	b := lattice.RowBatch{Width: lattice.GroupSize * rapid.IntRange(1, 70).Draw(t, "groups")}
	rows := rapid.IntRange(1, 6).Draw(t, "rows")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	tail := rapid.Float64Range(0, 3).Draw(t, "tail")
	for range rows * b.Width {
		x := rng.NormFloat64()
		b.Weights = append(b.Weights, float32(x*math.Exp(tail*rng.NormFloat64())))
	}
	for range rapid.IntRange(0, 9).Draw(t, "items") {
		b.At = append(b.At, int32(rng.IntN(rows)))
		b.Steps = append(b.Steps, float32(math.Exp2(rapid.Float64Range(-24, 6).Draw(t, "log step"))))
	}
	sameRows(t, c, e, b)
}

// Codecs without kernels are refused, the presets are not.
func TestEncoderCodecs(t *testing.T) {
	library := testenv.Ops(t)
	for _, codec := range []string{"e8:2,2", "z1:32", "z1:4,4", "z2:16", "d4:8", "d4:3,3", "d4:4,4,4", "d4:2,2,2,2,2"} {
		if _, err := ort.OpenEncoder(library, parseCodec(t, codec)); !errors.Is(err, ort.ErrUnavailable) {
			t.Errorf("%s: %v, want an error that there is no encoder", codec, err)
		}
	}
	for bits := 2; bits <= 4; bits++ {
		c, err := lattice.Preset(bits)
		if err == nil {
			_, err = ort.OpenEncoder(library, c)
		}
		if err != nil {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	if _, err := ort.OpenEncoder(t.TempDir(), parseCodec(t, "d4:4")); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("no library: %v", err)
	}
}
