package quant

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
)

const (
	// maxRotation bounds B: the function body holds the Hadamard matrix of every rotated node while it loads.
	maxRotation = 256
	// minRotation is the least B that is worth the work: outliers shrink by √B.
	minRotation = 16
)

// Rotation is the random block Hadamard transform R = diag(s)·blockdiag(H/√B)
// [K × K], orthogonal: a row x of activations or of weights becomes x·R. It
// spreads what stands out in one column over B of them (QuIP#, arXiv
// 2402.04396). Since A·Wᵀ = (A·R)·(W·R)ᵀ, a weight can be coded under it when
// the activations are turned as well.
type Rotation struct {
	// Block is B, a power of two that divides K.
	Block int
	// Signs holds a bit per column, [⌈K/8⌉], the lowest first: s is −1 where it is set.
	Signs []byte
}

// NewRotation returns a rotation of k columns with signs drawn from the seed
// and the largest block up to 256, or nil if no power of two from 16 on divides k.
func NewRotation(k int, seed uint64) *Rotation {
	block := min(maxRotation, 1<<bits.TrailingZeros(uint(k)))
	if block < minRotation {
		return nil
	}
	r := &Rotation{Block: block, Signs: make([]byte, k/8)}
	rng := rand.New(rand.NewPCG(seed, uint64(k)))
	for i := range r.Signs {
		r.Signs[i] = byte(rng.Uint32())
	}
	return r
}

func (r *Rotation) validate(k int) error {
	if r.Block < 1 || r.Block > maxRotation || r.Block&(r.Block-1) != 0 || k%r.Block != 0 {
		return fmt.Errorf("quant: a rotation of blocks of %d, want a power of two up to %d that divides K = %d", r.Block, maxRotation, k)
	}
	if len(r.Signs) != (k+7)/8 {
		return fmt.Errorf("quant: %d bytes of signs for %d columns", len(r.Signs), k)
	}
	return nil
}

// sign flips the columns of a row [K] whose bit is set.
func sign[T float32 | float64](r *Rotation, x []T) {
	for i := range x {
		if r.Signs[i/8]>>(i%8)&1 != 0 {
			x[i] = -x[i]
		}
	}
}

// hadamard multiplies every block of a row [K] by H/√B.
func hadamard[T float32 | float64](r *Rotation, x []T) {
	for half := 1; half < r.Block; half *= 2 {
		for first := 0; first < len(x); first += 2 * half {
			low, high := x[first:first+half], x[first+half:first+2*half]
			for i, l := range low {
				low[i], high[i] = l+high[i], l-high[i]
			}
		}
	}
	scale := T(1 / math.Sqrt(float64(r.Block)))
	for i := range x {
		x[i] *= scale
	}
}

// apply turns a row [K]: x·R.
func apply[T float32 | float64](r *Rotation, x []T) {
	sign(r, x)
	hadamard(r, x)
}

// invert turns a row [K] back: x·Rᵀ.
func (r *Rotation) invert(x []float32) {
	hadamard(r, x)
	sign(r, x)
}

// turned is a weight under a rotation.
type turned struct {
	Source
	rotation *Rotation
}

// Rows writes rows of W·R.
func (t turned) Rows(dst []float32, n0, n1 int) error {
	if err := t.Source.Rows(dst, n0, n1); err != nil {
		return err
	}
	_, k := t.Dims()
	for r := range n1 - n0 {
		apply(t.rotation, dst[r*k:(r+1)*k])
	}
	return nil
}

// turned returns what is known of the inputs x·R: Rᵀ·H·R. A diagonal says too little for that; its mean is all that is left.
func (h *Hessian) turned(r *Rotation) *Hessian {
	t := &Hessian{K: h.K, Samples: h.Samples, Damping: h.Damping}
	if h.Mean != nil {
		t.Mean = append(t.Mean, h.Mean...)
		apply(r, t.Mean)
	}
	k := h.K
	if h.Moments == nil {
		t.Diagonal = make([]float64, k)
		for first := 0; first < k; first += r.Block {
			var sum float64
			for _, v := range h.Diagonal[first : first+r.Block] {
				sum += v
			}
			for i := range r.Block {
				t.Diagonal[first+i] = sum / float64(r.Block)
			}
		}
		return t
	}
	t.Moments = make([]float64, k*k)
	for i := range k {
		copy(t.Moments[i*k:(i+1)*k], h.Moments[i*k:(i+1)*k])
		apply(r, t.Moments[i*k:(i+1)*k])
	}
	const together = 8 // columns that lie in one line of a cache
	columns := make([]float64, together*k)
	for j := 0; j < k; j += together {
		width := min(together, k-j)
		for i := range k {
			for n, v := range t.Moments[i*k+j:][:width] {
				columns[n*k+i] = v
			}
		}
		for n := range width {
			apply(r, columns[n*k:(n+1)*k])
		}
		for i := range k {
			for n := range width {
				t.Moments[i*k+j+n] = columns[n*k+i]
			}
		}
	}
	return t
}

const (
	// trialRows is the number of rows that decide about a rotation.
	trialRows = chunkRows
	// worthRotating is how much of the loss may be left for a rotation to be worth its time at every run.
	worthRotating = 0.97
)

// trialPlan tells a rotation that pays from one that does not as well as defaultPlan, on twice the rows, in a quarter of the time.
var trialPlan = plan{candidates: 1, passes: 1, refit: true}

// Sample returns up to so many rows of a weight, spread evenly: enough to tell how well it can be coded.
func Sample(src Source, rows int) Source {
	n, _ := src.Dims()
	return someRows{src, min(n, rows)}
}

// someRows are count rows of a weight, spread evenly.
type someRows struct {
	Source
	count int
}

func (s someRows) Dims() (n, k int) {
	_, k = s.Source.Dims()
	return s.count, k
}

func (s someRows) Rows(dst []float32, n0, n1 int) error {
	n, k := s.Source.Dims()
	for r := n0; r < n1; r++ {
		at := r * n / s.count
		if err := s.Source.Rows(dst[(r-n0)*k:(r-n0+1)*k], at, at+1); err != nil {
			return err
		}
	}
	return nil
}

// better codes a weight with the rotation of opt or without, as some of its rows lose less.
func better(ctx context.Context, src Source, opt Options) (*Result, error) {
	some, err := hold(Sample(src, trialRows))
	if err != nil {
		return nil, err
	}
	trial := opt
	trial.Progress, trial.Gradients = nil, nil
	turned, err := lossOfTrial(newRun(ctx, some, trial)) // its factors are let go: those of both would take twice the memory
	if err != nil {
		return nil, err
	}
	trial.Rotation = nil
	q, err := newRun(ctx, some, trial)
	straight, err := lossOfTrial(q, err)
	if err != nil {
		return nil, err
	}
	if turned < worthRotating*straight {
		return code(newRun(ctx, src, opt))
	}
	q.src, q.plan, q.opt.Progress, q.opt.Gradients = src, defaultPlan, opt.Progress, opt.Gradients
	q.n, _ = src.Dims()
	return code(q, nil)
}

// lossOfTrial codes what newRun returned as trialPlan says and returns the share of the output of its layer that it lost, or where that
// is not known, and where all columns count alike, of the weight itself.
func lossOfTrial(q *run, err error) (float64, error) {
	if err != nil {
		return 0, err
	}
	q.plan = trialPlan
	r, err := code(q, nil)
	switch {
	case err != nil:
		return 0, err
	case r.Feedback != nil:
		return r.Feedback.Loss, nil
	}
	return r.SumSquaredError / r.SumSquares, nil
}

// held is a weight in memory: reading rows one by one may be slow.
type held struct {
	n, k int
	v    []float32
}

func hold(src Source) (held, error) {
	n, k := src.Dims()
	h := held{n, k, make([]float32, n*k)}
	return h, src.Rows(h.v, 0, n)
}

func (h held) Dims() (n, k int) { return h.n, h.k }

func (h held) Rows(dst []float32, n0, n1 int) error {
	copy(dst, h.v[n0*h.k:n1*h.k])
	return nil
}
