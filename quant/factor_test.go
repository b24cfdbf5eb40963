package quant

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/cosetq/cosetq/lattice"
)

func general(a []float64, rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Data: a, Stride: cols}
}

func product(a, b blas64.General) blas64.General {
	c := general(make([]float64, a.Rows*b.Cols), a.Rows, b.Cols)
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, a, b, 0, c)
	return c
}

// For whatever errors E of the weight, what the codes lost is E·L, and Σ tr((E·L)_k·D_k·(E·L)_kᵀ) = tr(E·H·Eᵀ).
func TestLossIsThatOfTheConditionalErrors(t *testing.T) {
	const n, rows = 96, 5
	rng := rand.New(rand.NewPCG(1, 16))
	x := general(make([]float64, n*n), n, n)
	e := general(make([]float64, rows*n), rows, n)
	for i := range x.Data {
		x.Data[i] = rng.NormFloat64()
	}
	for i := range e.Data {
		e.Data[i] = rng.NormFloat64()
	}
	h := general(make([]float64, n*n), n, n)
	blas64.Gemm(blas.NoTrans, blas.Trans, 1, x, x, 0, h)
	var direct float64
	for i, v := range product(e, h).Data {
		direct += v * e.Data[i]
	}

	d, ok, err := factorize(h.Data, n, multiplier{}, 2)
	if !ok {
		t.Fatal("not positive definite", err)
	}
	for i := range n { // the blocks of the diagonal of L are identities
		for j := i / size * size; j < n; j++ {
			h.Data[i*n+j] = 0
		}
		h.Data[i*n+i] = 1
	}
	var sum float64
	coded := product(e, h)
	for r := range rows {
		for k := range d {
			v := coded.Data[r*n+k*size:][:size]
			for i := range v {
				for j := range v {
					sum += v[i] * d[k][i*size+j] * v[j]
				}
			}
		}
	}
	if math.Abs(sum-direct) > 1e-9*direct {
		t.Errorf("Σ tr(E_k·D_k·E_kᵀ) = %v, tr(E·H·Eᵀ) = %v", sum, direct)
	}
}

// The Cholesky factor of a metric measures errors, and its block factor undoes the correlation of the blocks.
func TestMetric(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	var x, m [size * size]float64
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	for i := range size {
		for j := range size {
			for l := range size {
				m[i*size+j] += x[i*size+l] * x[j*size+l]
			}
		}
	}
	for _, d := range []int{1, 2, 4, 8} {
		mt, ok := newMetric(&m, d)
		if !ok {
			t.Fatal("not positive definite")
		}
		var e [size]float32
		var want float64
		for i := range e {
			e[i] = float32(rng.NormFloat64())
		}
		for i := range e {
			for j := range e {
				want += float64(e[i]) * m[i*size+j] * float64(e[j])
			}
		}
		if got := float64(mt.of(&e)); math.Abs(got-want) > 1e-4*want {
			t.Errorf("d = %d: e·M·eᵀ = %v, want %v", d, got, want)
		}
		for i := range size {
			for j := range size {
				if v := mt[feed+i*size+j]; v != 0 && i/d <= j/d {
					t.Errorf("d = %d: feedback [%d, %d] = %v within a block or to a later one", d, i, j, v)
				}
			}
		}
	}
	var zero [size * size]float64
	if _, ok := newMetric(&zero, 4); ok {
		t.Error("a metric of zeros passes for positive definite")
	}
}

// A diagonal H feeds nothing back, in whichever form it is given.
func TestDiagonalFeedsNothingBack(t *testing.T) {
	h := &Hessian{K: 24, Moments: make([]float64, 24*24)}
	for j := range 24 {
		h.Moments[j*25] = float64(j + 1)
	}
	f, err := newFactors(h, 4, 0, multiplier{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range f.l {
		if v != 0 && i/f.places/size > i%f.places/size {
			t.Fatalf("L [%d, %d] = %v", i/f.places, i%f.places, v)
		}
	}
	for _, m := range f.conditional {
		if f := [size * size]float32(m[feed:]); f != [size * size]float32{} {
			t.Fatalf("feedback within a group: %v", f)
		}
	}
}

// Groups of loud inputs stand last, and so are coded first; of equally loud ones the order is kept.
func TestLoudGroupsAreCodedFirst(t *testing.T) {
	const groups = 5
	h := &Hessian{K: 8 * groups, Diagonal: make([]float64, 8*groups)}
	for c := range h.Diagonal {
		h.Diagonal[c] = []float64{3, 1, 2, 1, 0.5}[c%groups]
	}
	want := []int{4, 1, 3, 2, 0}
	if got := codingOrder(h, groups); !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// Of gains that lose alike the first is taken, and what the code stands for is what is said.
func TestGainsThatLoseAlike(t *testing.T) {
	all, err := lattice.ParseCodec("z1:3:g1,2")
	if err != nil {
		t.Fatal(err)
	}
	single, err := lattice.ParseCodec("z1:3")
	if err != nil {
		t.Fatal(err)
	}
	var unit [size * size]float64
	for i := range size {
		unit[i*size+i] = 1
	}
	m, _ := newMetric(&unit, 1)
	var c groupCoder
	if err := c.setStep(all, single, 1); err != nil {
		t.Fatal(err)
	}
	indices := make([]uint16, all.GroupIndices())
	var w, x, decoded [size]float32
	if gain, loss := c.code(indices, &w, &x, &m); gain != 0 || loss != 0 || w != x {
		t.Errorf("zeros: gain %d, loss %v, weights %v", gain, loss, w)
	}
	if c.all.DecodeGroup(&decoded, indices, 0); decoded != w {
		t.Errorf("the code stands for %v, said is %v", decoded, w)
	}
}
