package quant

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/lattice"
)

// TestRecoder codes weights of many shapes, and holds the recoder against the matrix it started from: the same codes decode
// to the same numbers, coding what they decode to changes nothing, and packing gives what was unpacked.
func TestRecoder(t *testing.T) {
	for _, c := range []struct {
		codec    string
		n, k     int
		rotation bool
	}{
		{"d4:4:g3,4,5,7", 70, 96, false}, {"d4:4,4:g3,4,5,6", 5, 50, false}, {"e8:2,2:g2,3,5", 40, 64, true}, {"z1:16", 9, 24, false},
		{"d4:16", 3, 33, false}, {"d4:2,4:g3,4,5,7", 100, 2000, true}, {"d4:4", 300, 64, false},
	} {
		codec, err := lattice.ParseCodec(c.codec)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, uint64(c.n)))
		w := held{c.n, c.k, make([]float32, c.n*c.k)}
		for i := range w.v[c.k:] { // the first row is zeros
			w.v[c.k+i] = float32(rng.NormFloat64())
		}
		o := Options{Codec: codec}
		if c.rotation {
			o.Rotation = NewRotation(c.k, 3)
		}
		res, err := Quantize(context.Background(), w, o)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRecoder(res.Matrix, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, c.codec, r.Matrix(), res.Matrix)
		want, got := make([]float32, len(w.v)), make([]float32, len(w.v))
		if err := res.Matrix.DecodeRows(want, 0, c.n); err != nil {
			t.Fatal(err)
		}
		r.Values(got, 0, c.n)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the values differ from those of the matrix", c.codec)
		}
		s := r.NewScratch(c.n)
		half := c.n / 2
		for _, part := range [][2]int{{half, c.n}, {0, half}} {
			if err := r.Encode(got[part[0]*c.k:part[1]*c.k], w.v[part[0]*c.k:part[1]*c.k], part[0], part[1], s); err != nil {
				t.Fatal(err)
			}
		}
		same(t, c.codec+" coded anew", r.Matrix(), res.Matrix)
		if r.Entry(1) >= r.Scales() {
			t.Fatalf("row 1 uses scale %d of %d", r.Entry(1), r.Scales())
		}
		before := r.Scale(r.Entry(1))
		if after := r.SetScale(r.Entry(1), 1.1*before); after < 1.099*before || after > 1.101*before {
			t.Errorf("%s: scale %v became %v", c.codec, before, after)
		}
		if got := r.Matrix().Scale(1); got != r.Scale(r.Entry(1)) {
			t.Errorf("%s: the matrix has scale %v", c.codec, got)
		}
		// Beyond what float16 holds, a scale is the last one it does, and not what it was before.
		least, most := r.SetScale(r.Entry(1), 0), r.SetScale(r.Entry(1), float32(math.Inf(1)))
		if least <= 0 || math.IsInf(float64(most), 0) || most < 1e9*least || r.SetScale(r.Entry(1), 0) != least {
			t.Errorf("%s: a scale can be %v to %v, and 0 makes it %v", c.codec, least, most, r.Scale(r.Entry(1)))
		}
		if zero := r.Entry(0); r.Scale(zero) == 0 && r.SetScale(zero, 1) != 0 {
			t.Errorf("%s: a scale of zero moved", c.codec)
		}
	}
}

func same(t *testing.T, what string, a, b *Matrix) {
	t.Helper()
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Codes, b.Codes) || !slices.Equal(a.Gains, b.Gains) || !slices.Equal(a.Scales, b.Scales) || !slices.Equal(a.ScaleIndex, b.ScaleIndex) {
		t.Errorf("%s: the packed bytes differ", what)
	}
}
