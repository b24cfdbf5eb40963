package quant

import (
	"context"
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
}

// SQNR returns the signal-to-quantization-noise ratio in dB, +Inf when nothing was lost.
func (r *Result) SQNR() float64 { return 10 * math.Log10(r.SumSquares/r.SumSquaredError) }

// NonFiniteError reports a weight that is NaN or infinite.
type NonFiniteError struct {
	Row, Column int
	Value       float32
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("weight [%d, %d] is %v", e.Row, e.Column, e.Value)
}

// Quantize rounds a weight to nearest codewords, with a searched step per row.
// It fails with a *NonFiniteError on NaN or infinite weights, and with ctx's
// error when that is cancelled.
func Quantize(ctx context.Context, src Source, opt Options) (*Result, error) {
	n, k := src.Dims()
	if n <= 0 || k <= 0 {
		return nil, fmt.Errorf("quant: a weight of %d × %d has nothing to code", n, k)
	}
	q := &rtn{ctx: ctx, src: src, opt: opt, n: n, k: k, groups: groupsOf(k), tile: tileFor(n)}
	steps := make([]float32, n)
	energy := make([]float64, n)
	if err := q.tiles(func(t *tileWork) error {
		for r := t.first; r < t.last; r++ {
			row, err := t.row(r)
			if err != nil {
				return err
			}
			energy[r] = sumSquares(row)
			steps[r] = q.searchStep(row, energy[r])
		}
		return nil
	}); err != nil {
		return nil, err
	}

	m := &Matrix{N: n, K: k, Codec: opt.Codec, Tile: q.tile, Groups: q.groups}
	table := newScaleTable(steps, energy, k)
	m.Exponent = table.exponent
	p := newPacker(m)
	chosen := make([]uint16, n) // float16 scale of each row
	lost := make([]float64, n)
	if err := q.tiles(func(t *tileWork) error {
		for r := t.first; r < t.last; r++ {
			row, err := t.row(r)
			if err != nil {
				return err
			}
			scale, err := table.choose(opt.Codec, row, steps[r])
			if err != nil {
				return err
			}
			chosen[r] = scale
			if lost[r], err = opt.Codec.EncodeRow(t.indices, t.gains, row, table.step(scale)); err != nil {
				return err
			}
			p.putRow(r, t.indices, t.gains)
		}
		if opt.Progress != nil {
			opt.Progress(t.last - t.first)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	table.store(m, chosen)
	res := &Result{Matrix: m}
	for r := range n {
		res.SumSquares += energy[r]
		res.SumSquaredError += lost[r]
	}
	return res, m.Validate()
}

// rtn is one run of Quantize.
type rtn struct {
	ctx          context.Context
	src          Source
	opt          Options
	n, k, groups int
	tile         int
}

// tileWork is the scratch of one goroutine and the tile it is at.
type tileWork struct {
	q           *rtn
	first, last int
	raw         []float32 // [tile × K] as read
	grouped     []float32 // one row in group order, [8·G]
	indices     []uint16
	gains       []uint8
}

// tiles calls do for every tile of rows, on several goroutines, and returns the error of the first tile that failed.
func (q *rtn) tiles(do func(*tileWork) error) error {
	count := (q.n + q.tile - 1) / q.tile
	threads := q.opt.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, count)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(threads, count) {
		wg.Go(func() {
			w := &tileWork{
				q: q, raw: make([]float32, q.tile*q.k), grouped: make([]float32, q.groups*lattice.GroupSize),
				indices: make([]uint16, q.groups*q.opt.Codec.GroupIndices()), gains: make([]uint8, q.groups),
			}
			for i := int(next.Add(1)) - 1; i < count && !failed.Load(); i = int(next.Add(1)) - 1 {
				w.first, w.last = i*q.tile, min((i+1)*q.tile, q.n)
				err := q.ctx.Err()
				if err == nil {
					err = q.src.Rows(w.raw[:(w.last-w.first)*q.k], w.first, w.last)
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

// row returns row r in group order, zeros in place of the columns past K. It is valid until the next call.
func (t *tileWork) row(r int) ([]float32, error) {
	raw := t.raw[(r-t.first)*t.q.k:][:t.q.k]
	g := t.q.groups
	for c, v := range raw {
		if v-v != 0 {
			return nil, &NonFiniteError{Row: r, Column: c, Value: v}
		}
		t.grouped[c%g*lattice.GroupSize+c/g] = v
	}
	return t.grouped, nil
}

func sumSquares(row []float32) float64 {
	var s float64
	for _, v := range row {
		s += float64(v) * float64(v)
	}
	return s
}
