package quant

import (
	"cmp"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/cosetq/cosetq/lattice"
)

const (
	size = lattice.GroupSize
	// defaultDamping is λ where H is exact: λ·mean(diag H) is added to the diagonal, as in GPTQ and QuIP#. An H from a
	// sample of n rows has noise of about K/n of its mean diagonal per direction if the rows are independent. Those of
	// one image or text are not: dampingPerColumn counts each for an eighth.
	defaultDamping   = 0.01
	dampingPerColumn = 8
	// mostDamping bounds what few samples add up to.
	mostDamping = 0.5
	// maxDamping bounds λ when the factorization fails and λ is raised tenfold.
	maxDamping = 1
)

// factors is a damped Hessian in the order in which groups are coded, ready
// for feedback: H' = L·D·Lᵀ with 8×8 blocks, L block unit-lower. Places
// p = 8·position + j run over the P = 8·G places of a row; positions are coded
// last to first. H is scaled to a mean diagonal of 1.
type factors struct {
	places int
	// order is the group at each position, column the column at each place, −1
	// for dead columns and those past K.
	order, column []int
	// h is H' and l is L, both [P × P] row-major; nil for a diagonal H.
	h, l []float32
	// conditional is the metric D_k of each position: what an error costs once
	// all positions coded later make the best of it. own is H'_kk: what it
	// costs when the others stay as they are.
	conditional, own []metric
	// solve is the inverse of each H'_kk, [G][8 × 8]; nil for a diagonal H.
	solve [][size * size]float32
	// excess is H'_pp − H_pp, [P]: damping, and all of H'_pp where the column is
	// dead or does not exist. The loss in H is that in H' less Σ excess·error².
	excess []float64
	// damping is the λ that was needed.
	damping float64
}

// feedback describes the factors to another device.
func (f *factors) feedback() lattice.Feedback {
	b := lattice.Feedback{Groups: f.places / size, Lower: f.l}
	for _, m := range f.conditional {
		b.Metrics = append(b.Metrics, m[:]...)
	}
	return b
}

// newFactors checks a Hessian and factors it for groups coded in blocks of d
// places. It fails with a *HessianError if that is not possible at any damping
// up to maxDamping.
//
// A dead column, whose input was zero throughout, keeps its weights: they are
// rounded to nearest, for the day its input is not zero.
func newFactors(h *Hessian, d int, damping float64, by Multiplier, threads int) (*factors, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if damping == 0 {
		damping = h.Damping
	}
	if damping == 0 {
		damping = defaultDamping
		if h.Samples > 0 {
			damping = min(damping+dampingPerColumn*float64(h.K)/float64(h.Samples), mostDamping)
		}
	}
	groups := groupsOf(h.K)
	f := &factors{places: groups * size, order: codingOrder(h, groups), damping: damping}
	f.column = make([]int, f.places)
	f.excess = make([]float64, f.places)
	var trace float64
	live := 0
	for p := range f.column {
		c := p%size*groups + f.order[p/size]
		if c >= h.K || h.moment(c) == 0 {
			f.column[p] = -1
			continue
		}
		f.column[p] = c
		trace += h.moment(c)
		live++
	}
	scale := float64(live) / trace
	for most := max(f.damping, maxDamping); f.damping <= most; f.damping *= 10 {
		if h.Moments == nil {
			f.diagonal(h, scale)
			return f, nil
		}
		if ok, err := f.full(h, scale, d, by, threads); ok || err != nil {
			return f, err
		}
	}
	return nil, badHessian("not positive definite, even with %v of its mean diagonal added", maxDamping)
}

// codingOrder returns the group at each position: those of the loudest columns
// come last and are coded first, while all others can still make up for their
// errors. The file does not hold this order, so it is free.
func codingOrder(h *Hessian, groups int) []int {
	order := make([]int, groups)
	energy := make([]float64, groups)
	for g := range order {
		order[g] = g
		for c := g; c < h.K; c += groups {
			energy[g] += h.moment(c)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(energy[a], energy[b]) })
	return order
}

// damped returns H'_pp and notes its excess.
func (f *factors) damped(h *Hessian, scale float64, p int) float64 {
	if f.column[p] < 0 {
		f.excess[p] = 1
		return 1
	}
	f.excess[p] = f.damping
	return scale*h.moment(f.column[p]) + f.damping
}

func (f *factors) diagonal(h *Hessian, scale float64) {
	f.own = make([]metric, len(f.order))
	for k := range f.own {
		var m [size * size]float64
		for j := range size {
			m[j*size+j] = f.damped(h, scale, k*size+j)
		}
		f.own[k], _ = newMetric(&m, size)
	}
	f.conditional = f.own
}

func (f *factors) full(h *Hessian, scale float64, d int, by Multiplier, threads int) (ok bool, err error) {
	n := f.places
	a, moments := make([]float64, n*n), h.symmetric()
	for p, c := range f.column {
		if c >= 0 {
			for q, other := range f.column {
				if other >= 0 {
					a[p*n+q] = scale * moments[c*h.K+other]
				}
			}
		}
		a[p*n+p] = f.damped(h, scale, p)
	}
	f.h = narrow(a)
	f.own = make([]metric, len(f.order))
	f.solve = make([][size * size]float32, len(f.order))
	for k := range f.own {
		m := block(a, n, k)
		if f.own[k], ok = newMetric(&m, d); !ok {
			return false, nil
		}
		f.solve[k] = inverse(&m)
	}
	blocks, ok, err := factorize(a, n, by, threads)
	if !ok {
		return false, err
	}
	f.conditional = make([]metric, len(f.order))
	for k := range f.conditional {
		if f.conditional[k], ok = newMetric(&blocks[k], d); !ok {
			return false, nil
		}
	}
	f.l = narrow(a)
	return true, nil
}

// factorize replaces the positive definite a [n × n] by L and returns the
// blocks of D, a = L·D·Lᵀ, L block unit-lower with 8×8 blocks. What it leaves
// in the diagonal blocks and above them is of no use.
func factorize(a []float64, n int, by Multiplier, threads int) (d [][size * size]float64, ok bool, err error) {
	if ok, err := cholesky(a, n, by, threads); !ok {
		return nil, false, err
	}
	d = make([][size * size]float64, n/size)
	for k := range d {
		c := block(a, n, k) // C_kk, lower
		for i := range size {
			for j := range size {
				for l := range min(i, j) + 1 {
					d[k][i*size+j] += c[i*size+l] * c[j*size+l]
				}
			}
		}
		if rest := n - (k+1)*size; rest > 0 { // L_{>k,k} = C_{>k,k}·C_kk⁻¹
			blas64.Trsm(blas.Right, blas.NoTrans, 1,
				blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: size, Data: c[:], Stride: size},
				blas64.General{Rows: rest, Cols: size, Data: a[(k+1)*size*n+k*size:], Stride: n})
		}
	}
	return d, true, nil
}

func narrow(a []float64) []float32 {
	out := make([]float32, len(a))
	for i, v := range a {
		out[i] = float32(v)
	}
	return out
}

// inOrder returns a vector [K] with an entry for every place, 0 where the column is dead; nil for nil.
func (f *factors) inOrder(v []float64) []float64 {
	if v == nil {
		return nil
	}
	out := make([]float64, f.places)
	for p, c := range f.column {
		if c >= 0 {
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
