package ort_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

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

func openEncoder(tb testing.TB, c *lattice.Codec) *ort.Encoder {
	tb.Helper()
	e, err := ort.OpenEncoder(testenv.Ops(tb), c)
	if err != nil {
		tb.Fatal(err)
	}
	return e
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

// The library gives the codes and errors of the Go code on random codecs, shapes, scales and distributions.
func TestEncoderIsExact(t *testing.T) {
	library := testenv.Ops(t)
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom([]string{"d4:4", "d4:2", "d4:4,4", "d4:2,4", "d4:4,2", "d4:2,2", "d4:2,2,2", "d4:2,4,2", "d4:4,2,4", "d4:2,2,2,2"}).Draw(t, "codec")
		gains := rapid.SliceOfNDistinct(rapid.IntRange(1, lattice.MaxGain), 0, lattice.MaxGains, rapid.ID).Draw(t, "gains")
		slices.Sort(gains)
		for i, g := range gains {
			if len(gains) > 1 {
				codec += fmt.Sprint([]string{":g", ","}[min(i, 1)], g)
			}
		}
		c := parseCodec(t, codec)
		e, err := ort.OpenEncoder(library, c)
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
	})
}
