package rewrite

import (
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// counted is a weight of the numbers 0, 1, 2, ...
type counted struct{ n, k int }

func (c counted) Dims() (n, k int) { return c.n, c.k }

func (c counted) Rows(dst []float32, n0, n1 int) error {
	for i := range dst {
		dst[i] = float32(n0*c.k+i) - float32(c.n*c.k)/2
	}
	return nil
}

// Every stretch of columns of Wᵀ is that of the rows, whichever core decodes a tile, also where the last tile is short.
func TestTurn(t *testing.T) {
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []counted{{1, 16}, {77, 130}, {300, 64}} {
		coded, err := quant.Quantize(t.Context(), size, quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		m := coded.Matrix
		rows := make([]float32, m.N*m.K)
		if err := m.DecodeRows(rows, 0, m.N); err != nil {
			t.Fatal(err)
		}
		for _, stretch := range []int{1, 7, m.K} {
			dst := make([]float32, stretch*m.N)
			for k0 := 0; k0 < m.K; k0 += stretch {
				count := min(stretch, m.K-k0)
				if err := turn(dst, m, k0, count); err != nil {
					t.Fatal(err)
				}
				for i, got := range dst[:count*m.N] {
					if want := rows[i%m.N*m.K+k0+i/m.N]; got != want {
						t.Fatalf("%v, stretch %d: column %d, row %d is %v, want %v", size, stretch, k0+i/m.N, i%m.N, got, want)
					}
				}
			}
		}
	}
}
