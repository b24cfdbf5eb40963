package quant

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// probes is how many rows of errors a damping is judged by: the spread of its loss is about √(2/(probes·K)), and much less between
// two dampings, which are judged by the same rows.
const probes = 16

// dampings is what [CrossDamping] chooses from.
var dampings = [...]float64{0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12}

// firstDamping is where the search begins. It goes up first: below a hump, where noise is inverted, what is lost may fall once more,
// to a least that codes worse than the one above.
const firstDamping = 5

// CrossDamping returns the λ, of mean diagonals, with which feedback learned from train loses least on test, the second moments
// of other samples. Feedback with H + λ·I = L·D·Lᵀ leaves errors E = Z·L⁻¹ of noise Z that is alike in all columns, and these
// cost tr(L⁻¹·H_test·L⁻ᵀ), which is measured with random signs for Z. It is 0 where train has no factors, or nothing is known beyond a diagonal.
func CrossDamping(train, test *Hessian, products Multiplier, threads int) (float64, error) {
	k := train.K
	if train.Moments == nil || test.Moments == nil || test.K != k {
		return 0, nil
	}
	order := make([]int, k) // loud columns are coded first, as in codingOrder
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(train.moment(a), train.moment(b)) })
	h, judge := train.arranged(order), test.arranged(order)
	if h == nil || judge == nil {
		return 0, nil
	}
	rng := rand.New(rand.NewPCG(uint64(k), probes))
	noise := make([]float64, probes*k)
	for i := range noise {
		noise[i] = float64(1 - 2*int(rng.Uint64()&1))
	}
	c, e, moved := make([]float64, k*k), square(probes, k), square(probes, k)
	loss := func(damping float64) (float64, error) {
		copy(c, h)
		for i := range k {
			c[i*k+i] += damping
		}
		if ok, err := cholesky(c, k, products, threads); !ok {
			return math.Inf(1), err
		}
		for i := range e.Data { // L = C·diag(C)⁻¹, so Z·L⁻¹ = Z·diag(C)·C⁻¹
			e.Data[i] = noise[i] * c[i%k*(k+1)]
		}
		blas64.Trsm(blas.Right, blas.NoTrans, 1, blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: k, Data: c, Stride: k}, e)
		clear(moved.Data)
		if err := products.AddDouble(moved, e, blas64.General{Rows: k, Cols: k, Stride: k, Data: judge}); err != nil {
			return 0, err
		}
		var sum float64
		for i, v := range e.Data {
			sum += v * moved.Data[i]
		}
		return sum, nil
	}
	best := firstDamping
	least, err := loss(dampings[best])
	for _, direction := range []int{1, -1} {
		for i := best + direction; err == nil && i >= 0 && i < len(dampings); i += direction {
			var l float64
			if l, err = loss(dampings[i]); err != nil || l >= least {
				break
			}
			least, best = l, i
		}
		if best != firstDamping {
			break
		}
	}
	if err != nil || math.IsInf(least, 1) || math.IsNaN(least) {
		return 0, err
	}
	return dampings[best], nil
}

func square(rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float64, rows*cols)}
}

// arranged returns the moments with rows and columns in an order, of mean diagonal 1; nil where all are zero.
func (h *Hessian) arranged(order []int) []float64 {
	var trace float64
	for i := range h.K {
		trace += h.moment(i)
	}
	if !(trace > 0) {
		return nil
	}
	out := make([]float64, h.K*h.K)
	scale := float64(h.K) / trace
	for i, r := range order {
		row := h.Moments[r*h.K : (r+1)*h.K]
		for j, c := range order {
			out[i*h.K+j] = scale * row[c]
		}
	}
	return out
}
