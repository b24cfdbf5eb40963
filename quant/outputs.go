package quant

import (
	"errors"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
)

const (
	// stepRows is the least number of rows coded at once, and mostSteps how many times they are at most: rows of one step
	// do not make up for each other's errors, and are coded in parallel.
	stepRows  = 64
	mostSteps = 16
	// outputDamping, outputDampingPerRow and mostOutputDamping are to G what defaultDamping and its kin are to H. Gradients are
	// noisier: each is that of a class drawn, and where a sample has one class, all its rows are of one draw.
	outputDamping       = 0.5
	outputDampingPerRow = 1
	mostOutputDamping   = 3
)

// outputs is a damped G = E[g gᵀ] [N × N] of the gradients at the outputs of a layer, ready for feedback from row to row: an
// error E costs tr(G·E·H·Eᵀ), to second order and as far as gradients and inputs are independent (YAQA, arXiv 2505.22988). With
// G' = L·D·Lᵀ in blocks of the rows of one step, L block unit-lower, that is Σ_s tr(D_s·F_s·H·F_sᵀ), where
// F_s = E_s + Σ_{t>s} L_tsᵀ·E_t. Steps are coded last to first, so each knows what the later ones move it by.
type outputs struct {
	n, step int
	// order is the row at each position: rows of one step lie apart, since neighbours have most to do with each other.
	order []int
	l     []float32 // L, [N × N] by positions
	errs  []float32 // E of what is coded, [N × P] by positions
}

// errIndefinite says that a damped G has no factors.
var errIndefinite = errors.New("rows do not make up for each other: the second moments of the gradients are not positive definite, even damped")

// newOutputs factors G for weights of so many places; nil where it says nothing. A G that is no matrix of second moments is an
// error, and errIndefinite one that can be done without.
func newOutputs(g *Hessian, places int, products Multiplier, threads int) (*outputs, error) {
	n := g.K
	var trace float64
	for i := range n {
		trace += g.moment(i)
	}
	steps := min((n+stepRows-1)/stepRows, mostSteps)
	if steps < 2 || trace == 0 {
		return nil, nil
	}
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("gradients: %w", err)
	}
	damping := g.Damping
	if damping == 0 {
		damping = outputDamping
	}
	if g.Damping == 0 && g.Samples > 0 {
		damping = min(damping+outputDampingPerRow*float64(n)/float64(g.Samples), mostOutputDamping)
	}
	o := &outputs{n: n, step: (n + steps - 1) / steps, errs: make([]float32, n*places)}
	for s := range steps {
		for r := s; r < n; r += steps {
			o.order = append(o.order, r)
		}
	}
	a, moments := make([]float64, n*n), g.symmetric()
	for p, r := range o.order {
		for q, other := range o.order {
			a[p*n+q] = moments[r*n+other] * float64(n) / trace
		}
		a[p*n+p] += damping
	}
	switch ok, err := o.factorize(a, products, threads); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errIndefinite
	}
	o.l = narrow(a)
	return o, nil
}

// factorize replaces G' by L.
func (o *outputs) factorize(a []float64, products Multiplier, threads int) (ok bool, err error) {
	n := o.n
	if ok, err := cholesky(a, n, products, threads); !ok || err != nil {
		return ok, err
	}
	for first := 0; first < n; first += o.step {
		last := min(first+o.step, n)
		if last == n {
			break
		}
		c := make([]float64, (last-first)*(last-first)) // C_ss
		for i := first; i < last; i++ {
			copy(c[(i-first)*(last-first):(i-first+1)*(last-first)], a[i*n+first:])
		}
		blas64.Trsm(blas.Right, blas.NoTrans, 1,
			blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: last - first, Data: c, Stride: last - first},
			blas64.General{Rows: n - last, Cols: last - first, Data: a[last*n+first:], Stride: n})
	}
	return true, nil
}

// first returns the first position of the step of position p.
func (o *outputs) first(p int) int { return p / o.step * o.step }

// moved adds up what the errors of later steps move positions first … last−1 by, all of one step, into sum.
func (o *outputs) moved(sum blas32.General, products Multiplier, first, last int) error {
	clear(sum.Data[:sum.Rows*sum.Cols])
	later := min(o.first(first)+o.step, o.n)
	if later == o.n {
		return nil
	}
	t := matrix(make([]float32, (last-first)*(o.n-later)), last-first, o.n-later) // L_tsᵀ
	for i := range t.Rows {
		for j := range t.Cols {
			t.Data[i*t.Cols+j] = o.l[(later+j)*o.n+first+i]
		}
	}
	return products.Add(sum, t, part(matrix(o.errs, o.n, sum.Cols), later, o.n-later, 0, sum.Cols))
}

// reordered reads a weight into memory and gives its rows by positions.
func (o *outputs) reordered(src Source) (Source, error) {
	w, err := hold(src)
	return inOrder{w, o.order}, err
}

// inOrder is a weight whose rows come in an order.
type inOrder struct {
	held
	order []int
}

func (s inOrder) Rows(dst []float32, n0, n1 int) error {
	for p := n0; p < n1; p++ {
		copy(dst[(p-n0)*s.k:(p-n0+1)*s.k], s.v[s.order[p]*s.k:])
	}
	return nil
}

// byPosition puts what is known by rows in the order of the positions.
func byPosition[T any](o *outputs, v []T) []T {
	positions := make([]T, len(v))
	for p, r := range o.order {
		positions[p] = v[r]
	}
	return positions
}

// byRow puts what is known by positions in the order of the rows.
func byRow[T any](o *outputs, v []T) []T {
	if o == nil || v == nil {
		return v
	}
	rows := slices.Clone(v)
	for p, r := range o.order {
		rows[r] = v[p]
	}
	return rows
}

// row returns the row at a position.
func (o *outputs) row(p int) int {
	if o == nil {
		return p
	}
	return o.order[p]
}

// steps calls do for all positions, step by step from the last.
func (q *run) steps(o *outputs, do func(*rows) error) error {
	size := min(chunkRows, (o.step+q.threads()-1)/q.threads())
	for first := o.first(o.n - 1); first >= 0; first -= o.step {
		if err := q.chunksOf(first, min(first+o.step, o.n), size, do); err != nil {
			return err
		}
	}
	return nil
}

// shift moves what is to be coded by sign·c.moved, and with it the errors of a coding.
func (c *chunk) shift(out *coding, sign float32) {
	for i, v := range c.moved[:c.count*c.f.places] {
		c.w[i] += sign * v
		out.errs[i] += sign * v
	}
}
