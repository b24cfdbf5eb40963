package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cosetq/cosetq/lattice"
)

// Source is a weight W [N × K] whose rows are read as float32 on demand.
// Rows writes rows n0 … n1−1, [(n1−n0) × K] row-major, and is called from
// several goroutines at once.
type Source interface {
	Dims() (n, k int)
	Rows(dst []float32, n0, n1 int) error
}

// Options of [Quantize].
type Options struct {
	Codec *lattice.Codec
	// Encoder, if set, codes rows in the place of Codec, with the same results: a native one is faster.
	Encoder lattice.RowCoder
	// Groups, if set, codes groups in a metric, and Products adds products of matrices, in the place of this package's own
	// code, with the same results.
	Groups   lattice.MetricCoder
	Products Multiplier
	// Hessian, if set, selects LDLQ: errors are weighed by what they cost at
	// the output, and the error of one group is made up for by the others.
	Hessian *Hessian
	// Gradients, if set beside Hessian, is G = E[g gᵀ] [N × N] of the gradients g of what the outputs are used for: an error
	// of one row is then made up for by the others as well. Its Samples are the losses drawn, if each gave many gradients.
	Gradients *Hessian
	// Rotation, if set, turns the weight before it is coded, and the Hessian with it. With TryRotation that is done only
	// if some of the rows lose less by it, coded both ways. A weight that turning takes beyond float32 is coded as it is.
	Rotation    *Rotation
	TryRotation bool
	// Damping is λ: λ·mean(diag H) is added to the diagonal of the Hessian. 0
	// means that of the Hessian, or where it has none 0.01, and more the fewer samples H is from.
	Damping float64
	// Threads is the number of goroutines; 0 means one per CPU. The result
	// does not depend on it.
	Threads int
	// Progress, if set, is called with the number of rows just coded, from any goroutine.
	Progress func(rows int)
}

// Result is a coded weight and what it lost.
type Result struct {
	Matrix *Matrix
	// SumSquares is Σw² and SumSquaredError Σ(w−ŵ)², both of the stored form.
	SumSquares, SumSquaredError float64
	// Faded counts the rows that are not zero, and of which little or nothing is left, because the scales of a matrix reach only
	// so far below the largest.
	Faded int
	// Feedback is what the Hessian did; nil when there was none, and for rounding to nearest.
	Feedback *Feedback
	// Fallback says why a weight with a Hessian was rounded to nearest all the
	// same: a *HessianError, or nil.
	Fallback error
}

// Feedback is the outcome of LDLQ, in losses at the output of the layer
// relative to its energy, tr(E·H·Eᵀ)/tr(W·H·Wᵀ) with E = W − Ŵ and H as given,
// undamped.
type Feedback struct {
	// Nearest is the loss of rounding to nearest, Loss that of the result.
	Nearest, Loss float64
	// Damping is the λ that was used.
	Damping float64
	// Alone says why the rows do not make up for each other's errors although there were gradients; nil where they do.
	Alone error
	// Bias is (W − Ŵ)·E[x] [N]: added to the layer's output, it takes away the
	// mean of the error. Nil when the mean of the inputs is not known.
	Bias []float64
}

// SQNR returns the signal-to-quantization-noise ratio in dB, +Inf when nothing was lost.
func (r *Result) SQNR() float64 {
	if r.SumSquaredError == 0 { // of zeros too
		return math.Inf(1)
	}
	return 10 * math.Log10(r.SumSquares/r.SumSquaredError)
}

// NonFiniteError reports a weight that is NaN or infinite.
type NonFiniteError struct {
	Row, Column int
	Value       float32
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("weight [%d, %d] is %v", e.Row, e.Column, e.Value)
}

// Quantize codes a weight: by LDLQ if opt has a Hessian, else by rounding to
// nearest, both with a searched step per row. A Hessian that cannot be used,
// or says nothing because it is a multiple of the identity, leaves rounding to
// nearest; Result.Fallback then says why.
//
// It fails with a *NonFiniteError on NaN or infinite weights, and with ctx's
// error when that is cancelled.
func Quantize(ctx context.Context, src Source, opt Options) (*Result, error) {
	n, k := src.Dims()
	if n <= 0 || k <= 0 {
		return nil, fmt.Errorf("quant: a weight of %d × %d has nothing to code", n, k)
	}
	if opt.Codec == nil {
		return nil, errors.New("quant: no codec is given: lattice.Preset and lattice.ParseCodec make one")
	}
	if !(opt.Damping >= 0 && opt.Damping < math.Inf(1)) {
		return nil, fmt.Errorf("quant: a damping of %v, want a number that is not negative; 0 leaves it to the Hessian", opt.Damping)
	}
	h := opt.Hessian
	if h != nil && h.K != k {
		return nil, fmt.Errorf("quant: the Hessian is of %d columns, the weight of %d", h.K, k)
	}
	if g := opt.Gradients; g != nil && (g.K != n || len(g.Moments) != n*n) {
		return nil, fmt.Errorf("quant: the gradients are %d, with %d moments, the weight has %d rows", g.K, len(g.Moments), n)
	}
	if opt.Rotation == nil {
		return code(newRun(ctx, src, opt))
	}
	if err := opt.Rotation.validate(k); err != nil {
		return nil, err
	}
	do := func() (*Result, error) { return code(newRun(ctx, src, opt)) }
	if opt.TryRotation {
		do = func() (*Result, error) { return better(ctx, src, opt) }
	}
	res, err := do()
	if errors.As(err, new(*NonFiniteError)) { // of the turned weight, or of some of its rows: its place there says nothing
		opt.Rotation = nil
		return code(newRun(ctx, src, opt))
	}
	return res, err
}

// run is one run of Quantize.
type run struct {
	ctx          context.Context
	src          Source
	opt          Options
	n, k, groups int
	factors      *factors // of the Hessian; nil for rounding to nearest
	fallback     error    // why there are none in spite of a Hessian
	plan         plan     // of LDLQ
}

// newRun turns the weight and its Hessian, if that is asked for, and factors the Hessian.
func newRun(ctx context.Context, src Source, opt Options) (*run, error) {
	h := opt.Hessian
	if opt.Rotation != nil {
		src = turned{src, opt.Rotation}
		if h != nil {
			if err := h.Validate(); err == nil { // newFactors reports what is wrong
				h = h.turned(opt.Rotation)
				opt.Hessian = h
			}
		}
	}
	n, k := src.Dims()
	q := &run{ctx: ctx, src: src, opt: opt, n: n, k: k, groups: groupsOf(k), plan: defaultPlan}
	if h == nil {
		return q, nil
	}
	f, err := newFactors(h, opt.Codec.Lattice().Dim(), opt.Damping, opt.multiplier(), opt.Threads)
	var unusable *HessianError
	switch {
	case errors.As(err, &unusable):
		q.fallback = err
	case err != nil:
		return nil, err
	case !h.isotropic():
		q.factors = f
	}
	return q, nil
}

// code codes what newRun returned.
func code(q *run, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	if q.factors != nil {
		return q.ldlq(q.factors)
	}
	res, err := q.nearest()
	if err != nil {
		return nil, err
	}
	res.Fallback = q.fallback
	return res, nil
}

// multiplier returns what adds products.
func (o *Options) multiplier() Multiplier {
	if o.Products != nil {
		return o.Products
	}
	return multiplier{}
}

// coder returns what codes rows.
func (q *run) coder() lattice.RowCoder {
	if q.opt.Encoder != nil {
		return q.opt.Encoder
	}
	return q.opt.Codec
}

// rowSteps returns the step of least squared error and the energy Σw² of every row. It is the first to read the weight, and
// fails if that is not finite.
func (q *run) rowSteps() (steps []float32, energy []float64, err error) {
	steps, energy = make([]float32, q.n), make([]float64, q.n)
	err = q.chunks(func(t *rows) error {
		for r := t.first; r < t.last; r++ {
			if energy[r] = sumSquares(t.row(r)); energy[r]-energy[r] != 0 {
				return t.nonFinite(r)
			}
		}
		return q.searchSteps(steps[t.first:t.last], t.batch(nil), energy[t.first:t.last])
	})
	return steps, energy, err
}

// newMatrix returns the matrix without its codes and scales.
func (q *run) newMatrix(exponent int) *Matrix {
	return &Matrix{N: q.n, K: q.k, Codec: q.opt.Codec, Tile: tileFor(q.n), Groups: q.groups, Exponent: exponent, Rotation: q.opt.Rotation}
}

// nearest rounds to nearest.
func (q *run) nearest() (*Result, error) {
	steps, energy, err := q.rowSteps()
	if err != nil {
		return nil, err
	}
	table := newScaleTable(steps, energy, q.k)
	m := q.newMatrix(table.exponent)
	p := newPacker(m)
	chosen := make([]uint16, q.n) // float16 scale of each row
	lost := make([]float64, q.n)
	if err := q.chunks(func(t *rows) error {
		if err := table.choose(chosen[t.first:t.last], q.coder(), t.batch(steps[t.first:t.last])); err != nil {
			return err
		}
		var exact [chunkRows]float32
		for i, h := range chosen[t.first:t.last] {
			exact[i] = table.step(h)
		}
		count := t.last - t.first
		indices, gains := t.indices[:count*q.groups*q.opt.Codec.GroupIndices()], t.gains[:count*q.groups]
		if err := q.coder().EncodeRows(indices, gains, lost[t.first:t.last], t.batch(exact[:count])); err != nil {
			return err
		}
		p.putRows(t.first, count, indices, gains)
		q.progress(t)
		return nil
	}); err != nil {
		return nil, err
	}
	res := &Result{Matrix: m, Faded: table.faded(chosen, steps, energy)}
	table.store(m, chosen)
	for r := range q.n {
		res.SumSquares += energy[r]
		res.SumSquaredError += lost[r]
	}
	return res, m.Validate()
}

func (q *run) progress(t *rows) {
	if q.opt.Progress != nil {
		q.opt.Progress(t.last - t.first)
	}
}

// rows is the scratch of one goroutine and the chunk of rows it is at.
type rows struct {
	q           *run
	first, last int
	raw         []float32 // [chunkRows × K] as read
	grouped     []float32 // [chunkRows × 8·G] in group order
	indices     []uint16  // [chunkRows][group][level][block]
	gains       []uint8   // [chunkRows][group]
	chunk       *chunk    // of LDLQ
	id          uint64    // of what grouped holds
}

// batches counts those of this process.
var batches atomic.Uint64

// chunks calls do for chunks of rows, on several goroutines, and returns the error of the first chunk that failed.
func (q *run) chunks(do func(*rows) error) error { return q.chunksOf(0, q.n, chunkRows, do) }

// chunksOf does so for rows first … last−1, in chunks of up to size rows.
func (q *run) chunksOf(first, last, size int, do func(*rows) error) error {
	count := (last - first + size - 1) / size
	threads := q.threads()
	errs := make([]error, count)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(threads, count) {
		wg.Go(func() {
			w := q.newRows()
			for i := int(next.Add(1)) - 1; i < count && !failed.Load(); i = int(next.Add(1)) - 1 {
				w.first, w.last = first+i*size, min(first+(i+1)*size, last)
				err := q.ctx.Err()
				if err == nil {
					err = q.src.Rows(w.raw[:(w.last-w.first)*q.k], w.first, w.last)
				}
				if err == nil {
					w.group()
					w.id = batches.Add(1)
				}
				if err == nil {
					err = do(w)
				}
				if err != nil {
					errs[i] = err
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// threads is the number of goroutines.
func (q *run) threads() int {
	if q.opt.Threads > 0 {
		return q.opt.Threads
	}
	return runtime.GOMAXPROCS(0)
}

func (q *run) newRows() *rows {
	count := min(chunkRows, q.n)
	return &rows{
		q: q, raw: make([]float32, count*q.k), grouped: make([]float32, count*q.groups*lattice.GroupSize),
		indices: make([]uint16, count*q.groups*q.opt.Codec.GroupIndices()), gains: make([]uint8, count*q.groups),
	}
}

// group puts the rows as read into group order, and leaves zeros in place of the columns past K.
func (t *rows) group() {
	for r := t.first; r < t.last; r++ {
		group(t.row(r), t.raw[(r-t.first)*t.q.k:][:t.q.k], t.q.groups)
	}
}

// nonFinite is the error of row r, whose energy is not finite: squares of float32 add up to less than what float64 holds.
func (t *rows) nonFinite(r int) error {
	for c, v := range t.raw[(r-t.first)*t.q.k:][:t.q.k] {
		if v-v != 0 {
			return &NonFiniteError{Row: r, Column: c, Value: v}
		}
	}
	return fmt.Errorf("quant: row %d has an energy that is not finite", r)
}

// row returns row r in group order.
func (t *rows) row(r int) []float32 {
	n := t.q.groups * lattice.GroupSize
	return t.grouped[(r-t.first)*n:][:n]
}

// batch returns the rows of the chunk as work for a coder.
func (t *rows) batch(steps []float32) lattice.RowBatch {
	n := t.q.groups * lattice.GroupSize
	return lattice.RowBatch{Weights: t.grouped[:(t.last-t.first)*n], Width: n, Steps: steps, ID: t.id}
}

func sumSquares(row []float32) float64 {
	var s float64
	for _, v := range row {
		s += float64(v) * float64(v)
	}
	return s
}
