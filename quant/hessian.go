package quant

import (
	"fmt"
	"math"
)

// Hessian is what calibration knows about the inputs x [K] of a layer: their
// second moments, which say what an error of the weight costs at the output,
//
//	E‖(W − Ŵ)·x‖² = tr((W − Ŵ)·H·(W − Ŵ)ᵀ),    H = E[x xᵀ].
//
// Only the direction of H matters, not its scale: a sum over samples does as
// well as a mean.
type Hessian struct {
	// K is the number of columns of the weight.
	K int
	// Moments is H [K × K], row-major and symmetric; nil where only the
	// diagonal is known.
	Moments []float64
	// Diagonal is E[x_j²] [K], read when Moments is nil. It cannot feed errors
	// back, but weights the choice of steps and gains.
	Diagonal []float64
	// Mean is E[x] [K], for the bias correction; nil when unknown.
	Mean []float64
	// Samples is the number of x that were averaged; 0 for an exact H.
	Samples int64
	// Damping is the λ that other samples ask for, see [CrossDamping]; 0 where that is not known.
	Damping float64
}

// HessianError says why a Hessian cannot guide the rounding.
type HessianError struct{ Reason string }

func (e *HessianError) Error() string { return "quant: Hessian: " + e.Reason }

func badHessian(format string, args ...any) error {
	return &HessianError{Reason: fmt.Sprintf(format, args...)}
}

// symmetryTolerance is how far H_ij and H_ji may differ, relative to √(H_ii·H_jj): sums of many products in another order
// differ by far less.
const symmetryTolerance = 1e-6

// Validate checks that the parts have the right sizes, are finite, and can be second moments. It returns a *HessianError.
func (h *Hessian) Validate() error {
	if h.K <= 0 {
		return badHessian("of %d columns", h.K)
	}
	diag := h.Diagonal
	if h.Moments != nil {
		diag = make([]float64, h.K)
		if len(h.Moments) != h.K*h.K {
			return badHessian("%d moments, want %d × %d", len(h.Moments), h.K, h.K)
		}
		for j := range diag {
			diag[j] = h.Moments[j*h.K+j]
		}
	}
	if len(diag) != h.K {
		return badHessian("a diagonal of %d, want %d", len(diag), h.K)
	}
	if !(h.Damping >= 0 && h.Damping < math.Inf(1)) {
		return badHessian("a damping of %v, want a number that is not negative", h.Damping)
	}
	if h.Mean != nil && len(h.Mean) != h.K {
		return badHessian("a mean of %d, want %d", len(h.Mean), h.K)
	}
	var trace float64
	for j, v := range diag {
		if v < 0 {
			return badHessian("the second moment of column %d is negative (%v)", j, v)
		}
		trace += v
	}
	for _, s := range [][]float64{diag, h.Moments, h.Mean} {
		for i, v := range s {
			if v-v != 0 {
				return badHessian("entry %d is %v", i, v)
			}
		}
	}
	if trace == 0 {
		return badHessian("every input was zero during calibration")
	}
	if h.Moments == nil {
		return nil
	}
	roots := make([]float64, h.K)
	for j, v := range diag {
		roots[j] = math.Sqrt(v + math.SmallestNonzeroFloat32) // statistics are stored in float32: so little may have become 0
	}
	for i := range h.K {
		for j := range i {
			a, b := h.Moments[i*h.K+j], h.Moments[j*h.K+i]
			limit := roots[i] * roots[j]
			if math.Abs(a-b) > symmetryTolerance*limit {
				return badHessian("not symmetric: [%d, %d] is %v, [%d, %d] is %v", i, j, a, j, i, b)
			}
			if math.Abs(a) > limit*(1+symmetryTolerance) {
				return badHessian("[%d, %d] is %v, more than second moments of %v and %v allow", i, j, a, diag[i], diag[j])
			}
		}
	}
	return nil
}

// isotropic reports whether H is a multiple of the identity, which says nothing that rounding to nearest does not know.
func (h *Hessian) isotropic() bool {
	if h.Moments == nil {
		for _, v := range h.Diagonal {
			if v != h.Diagonal[0] {
				return false
			}
		}
		return true
	}
	for i, v := range h.Moments {
		row, col := i/h.K, i%h.K
		if row == col && v != h.Moments[0] || row != col && v != 0 {
			return false
		}
	}
	return true
}

// symmetric returns H, of H_ij and H_ji the mean; 0 for what is not known.
func (h *Hessian) symmetric() []float64 {
	const tile = 64 // rows and columns that a cache holds
	k := h.K
	s := make([]float64, k*k)
	if h.Moments == nil {
		for i, v := range h.Diagonal {
			s[i*k+i] = v
		}
		return s
	}
	for top := 0; top < k; top += tile {
		for left := 0; left < k; left += tile {
			for i := top; i < min(top+tile, k); i++ {
				for j := left; j < min(left+tile, k); j++ {
					s[i*k+j] = (h.Moments[i*k+j] + h.Moments[j*k+i]) / 2
				}
			}
		}
	}
	return s
}

// moment returns H_ii.
func (h *Hessian) moment(i int) float64 {
	if h.Moments != nil {
		return h.Moments[i*h.K+i]
	}
	return h.Diagonal[i]
}
