package quant

import (
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/cosetq/cosetq/lattice"
)

const (
	size = lattice.GroupSize
	// defaultDamping is λ: λ·mean(diag H) is added to the diagonal, as in GPTQ and QuIP#. It stands for the noise of
	// H, which comes from a finite sample.
	defaultDamping = 0.01
	// maxDamping bounds λ when the factorization fails and λ is raised tenfold.
	maxDamping = 1
)

// factors is a damped Hessian in the order in which groups are coded, ready
// for feedback: H' = L·D·Lᵀ with 8×8 blocks, L block unit-lower. Places
// p = 8·position + j run over the P = 8·G places of a row; positions are coded
// last to first.
type factors struct {
	places int
	// order is the group at each position.
	order []int
	// h is H' and l is L, both [P × P] row-major; nil for a diagonal H.
	h, l []float32
	// conditional is the metric D_k of each position: what an error costs once
	// all positions coded later make the best of it. own is H'_kk: what it
	// costs when the others stay as they are.
	conditional, own []metric
	// solve is the inverse of each H'_kk, [G][8 × 8].
	solve [][size * size]float32
	// excess is H'_pp − H_pp, [P]: damping, and all of it where the column is
	// dead or does not exist. The loss in H is that in H' less Σ excess·error².
	excess []float64
	// damping is the λ that was needed.
	damping float64
}

// newFactors checks a Hessian and factors it for groups coded in blocks of d places.
// It fails with a *HessianError if that is not possible at any damping up to
// maxDamping.
func newFactors(h *Hessian, d int, damping float64) (*factors, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if damping == 0 {
		damping = defaultDamping
	}
	groups := groupsOf(h.K)
	f := &factors{places: groups * size}
	f.order = codingOrder(h, groups)
	column := make([]int, f.places) // −1 for dead columns and those past K
	var trace float64
	live := 0
	for p := range column {
		c := p%size*groups + f.order[p/size]
		if c >= h.K || h.at(c, c) == 0 {
			column[p] = -1
			continue
		}
		column[p] = c
		trace += h.at(c, c)
		live++
	}
	mean := trace / float64(live)
	for ; damping <= maxDamping; damping *= 10 {
		f.damping = damping
		var ok bool
		if h.Moments == nil {
			ok = f.diagonal(h, column, mean)
		} else {
			ok = f.full(h, column, mean, d)
		}
		if ok {
			return f, nil
		}
	}
	return nil, badHessian("not positive definite, even with %v of its mean diagonal added", maxDamping)
}

// codingOrder returns the group at each position.
func codingOrder(h *Hessian, groups int) []int {
	order := make([]int, groups)
	energy := make([]float64, groups)
	for g := range order {
		order[g] = g
		for c := g; c < h.K; c += groups {
			energy[g] += h.at(c, c)
		}
	}
	if orderMode == 1 {
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case energy[a] < energy[b]:
				return -1
			case energy[a] > energy[b]:
				return 1
			}
			return 0
		})
	}
	return order
}

var orderMode = 1

// damped returns H'_pp.
func (f *factors) damped(h *Hessian, column []int, mean float64, p int) float64 {
	if column[p] < 0 {
		return mean
	}
	return h.at(column[p], column[p]) + f.damping*mean
}

func (f *factors) diagonal(h *Hessian, column []int, mean float64) bool {
	f.excess = make([]float64, f.places)
	f.own = make([]metric, len(f.order))
	for k := range f.own {
		var m [size * size]float64
		for j := range size {
			p := k*size + j
			m[j*size+j] = f.damped(h, column, mean, p)
			f.excess[p] = m[j*size+j]
			if c := column[p]; c >= 0 {
				f.excess[p] -= h.at(c, c)
			}
		}
		f.own[k], _ = newMetric(&m, size)
	}
	f.conditional = f.own
	return true
}

func (f *factors) full(h *Hessian, column []int, mean float64, d int) bool {
	n := f.places
	a := make([]float64, n*n) // H', then its Cholesky factor C, then L
	f.h = make([]float32, n*n)
	f.excess = make([]float64, n)
	for p := range n {
		if column[p] >= 0 {
			for q, c := range column {
				if c >= 0 {
					a[p*n+q] = h.at(column[p], c)
				}
			}
		}
		v := f.damped(h, column, mean, p)
		f.excess[p] = v - a[p*n+p]
		a[p*n+p] = v
	}
	for i, v := range a {
		f.h[i] = float32(v)
	}
	f.own = make([]metric, len(f.order))
	f.solve = make([][size * size]float32, len(f.order))
	for k := range f.own {
		m := block(a, n, k)
		var ok bool
		if f.own[k], ok = newMetric(&m, d); !ok {
			return false
		}
		f.solve[k] = inverse(&m)
	}
	if _, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Lower, N: n, Data: a, Stride: n}); !ok {
		return false
	}
	f.conditional = make([]metric, len(f.order))
	for k := range f.conditional {
		c := block(a, n, k) // C_kk, lower
		var m [size * size]float64
		for i := range size {
			for j := range size {
				for l := range min(i, j) + 1 {
					m[i*size+j] += c[i*size+l] * c[j*size+l]
				}
			}
		}
		var ok bool
		if f.conditional[k], ok = newMetric(&m, d); !ok {
			return false
		}
		if rest := n - (k+1)*size; rest > 0 { // L_{>k,k} = C_{>k,k}·C_kk⁻¹
			blas64.Trsm(blas.Right, blas.NoTrans, 1,
				blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: size, Data: c[:], Stride: size},
				blas64.General{Rows: rest, Cols: size, Data: a[(k+1)*size*n+k*size:], Stride: n})
		}
	}
	f.l = make([]float32, n*n)
	for i, v := range a {
		if p, q := i/n, i%n; p/size > q/size {
			f.l[i] = float32(v)
		}
	}
	return true
}

// inOrder returns a vector [K] with an entry for every place, nil for nil.
func (f *factors) inOrder(v []float64) []float64 {
	if v == nil {
		return nil
	}
	out := make([]float64, f.places)
	for p := range out {
		if c := p%size*len(f.order) + f.order[p/size]; c < len(v) {
			out[p] = v[c]
		}
	}
	return out
}

// block returns the k-th 8×8 block of the diagonal of a [n × n].
func block(a []float64, n, k int) (m [size * size]float64) {
	for i := range size {
		copy(m[i*size:(i+1)*size], a[(k*size+i)*n+k*size:])
	}
	return m
}

// inverse returns the inverse of a positive definite 8×8 matrix.
func inverse(m *[size * size]float64) (inv [size * size]float32) {
	c := *m
	t, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Upper, N: size, Data: c[:], Stride: size})
	if !ok {
		return inv
	}
	lapack64.Potri(t)
	for i := range size {
		for j := range size {
			inv[i*size+j] = float32(c[min(i, j)*size+max(i, j)])
		}
	}
	return inv
}
