package quant

import (
	"errors"
	"math"
	"slices"

	"github.com/cosetq/cosetq/lattice"
)

const (
	// feedbackStep is where the steps of LDLQ are looked for, relative to the step of least squared error: feedback
	// widens the spread of what is coded.
	feedbackStep = 1.01
	// candidateRatio is the distance of two candidates where the scale of a row is free.
	candidateRatio = 1.05
)

// plan says how much work LDLQ puts into a weight.
type plan struct {
	// candidates is the number of steps tried for each row.
	candidates int
	// passes is the number of refinement passes.
	passes int
	// refit moves the scales to their closed-form optimum in the end.
	refit bool
}

// defaultPlan is a balance on the layers of a 24M language model at 4 bits (loss on other data than the Hessian's): a
// third pass takes 0.5 % off the loss and a tenth more time; fifth steps and fourth passes together 1 % for half as much
// again; no pass at all would lose 5 %.
var defaultPlan = plan{candidates: 3, passes: 3, refit: true}

// ldlq codes the weight with feedback.
func (q *run) ldlq(f *factors) (*Result, error) {
	steps, energy, err := q.rowSteps()
	if err != nil {
		return nil, err
	}
	single, err := lattice.NewCodec(q.opt.Codec.Lattice(), q.opt.Codec.Radices(), nil)
	if err != nil {
		return nil, err
	}
	// Everything below is in units of 2^exponent, so that no loss leaves the range of float32.
	exponent := exponentFor(steps)
	unit := math.Ldexp(1, exponent)
	for r, s := range steps {
		steps[r] = float32(float64(s) / unit)
	}
	table := newScaleTable(steps, energy, q.k)
	m := q.newMatrix(exponent)
	p := newPacker(m)
	var out *outputs
	var alone error
	if q.opt.Gradients != nil {
		out, err = newOutputs(q.opt.Gradients, f.places, q.opt.multiplier(), q.opt.Threads)
		if errors.Is(err, errIndefinite) {
			alone, err = err, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if out != nil {
		if q.src, err = out.reordered(q.src); err != nil {
			return nil, err
		}
		steps, energy = byPosition(out, steps), byPosition(out, energy)
	}
	mean := f.inOrder(q.opt.Hessian.Mean)
	lost := make([]outcome, q.n)
	var device lattice.FeedbackCoder
	if d, ok := q.opt.Encoder.(lattice.FeedbackDevice); ok {
		if device, err = d.WithFeedback(f.feedback()); err != nil {
			return nil, err
		}
	}
	code := func(t *rows) error {
		if t.chunk == nil {
			t.chunk = q.newChunk(f, single)
			t.chunk.device = device
			if out != nil {
				t.chunk.moved = make([]float32, chunkRows*f.places)
			}
		}
		c := t.chunk
		c.count = t.last - t.first
		for r := t.first; r < t.last; r++ {
			c.setRow(r-t.first, t.row(r), unit)
		}
		if out != nil {
			if err := out.moved(matrix(c.moved, c.count, f.places), c.products, t.first, t.last); err != nil {
				return err
			}
		}
		best, err := c.code(q.plan, table, steps[t.first:t.last], lost[t.first:t.last])
		if err != nil {
			return err
		}
		for r := range c.count {
			c.measure(&lost[t.first+r], best, r, mean)
			c.putRow(p, out.row(t.first+r), best, r, t.indices, t.gains)
		}
		if out != nil {
			copy(out.errs[t.first*f.places:], best.errs[:c.count*f.places])
		}
		q.progress(t)
		return nil
	}
	if out == nil {
		err = q.chunks(code)
	} else {
		err = q.steps(out, code)
	}
	if err != nil {
		return nil, err
	}
	if q.plan.refit {
		table.refit(lost)
	}
	res := &Result{Matrix: m, Feedback: newFeedback(lost, unit, mean != nil)}
	res.Feedback.Damping, res.Feedback.Alone = f.damping, alone
	chosen := make([]uint16, q.n)
	for r, o := range lost {
		chosen[r] = o.scale
		res.SumSquares += energy[r]
		res.SumSquaredError += unit * unit * o.squares
	}
	res.Faded = table.faded(chosen, steps, energy)
	res.Feedback.Bias = byRow(out, res.Feedback.Bias)
	table.store(m, byRow(out, chosen))
	return res, m.Validate()
}

// newFeedback sums up the rows.
func newFeedback(lost []outcome, unit float64, bias bool) *Feedback {
	f := &Feedback{}
	var energy float64
	for _, o := range lost {
		energy += o.energy
		f.Nearest += o.nearest
		f.Loss += o.loss
		if bias {
			f.Bias = append(f.Bias, unit*o.mean)
		}
	}
	if energy > 0 {
		f.Nearest /= energy
		f.Loss /= energy
	}
	return f
}

// code codes the rows of a chunk: of rounding to nearest and of LDLQ with
// several steps the best for each row, then refined. It fills in the energy of
// each row and what rounding to nearest loses.
func (c *chunk) code(how plan, table *scales, steps []float32, lost []outcome) (*coding, error) {
	best, trial := c.best, c.trial
	if err := c.lossOf(best.loss[:c.count], c.w); err != nil {
		return nil, err
	}
	for r, l := range best.loss[:c.count] {
		lost[r].energy = l
	}
	rows := lattice.RowBatch{Weights: c.w[:c.count*c.f.places], Width: c.f.places, Steps: steps}
	if err := table.choose(best.scales[:c.count], c.rows, rows); err != nil {
		return nil, err
	}
	if err := c.nearest(best, table.step); err != nil {
		return nil, err
	}
	for r, l := range best.loss[:c.count] {
		lost[r].nearest = l
	}
	if c.moved != nil {
		c.shift(best, 1)
		if err := c.lossOf(best.loss[:c.count], best.errs); err != nil {
			return nil, err
		}
	}
	options := make([][]uint16, c.count)
	for r, s := range steps {
		options[r] = table.around(s*feedbackStep, how.candidates)
	}
	for i := range how.candidates {
		for r, o := range options {
			trial.scales[r] = o[i%len(o)]
		}
		if err := c.ldlq(trial, table.step); err != nil {
			return nil, err
		}
		for r := range c.count {
			if trial.loss[r] < best.loss[r] {
				best.copyRow(trial, r)
			}
		}
	}
	if err := c.gradient(best.errs); err != nil {
		return nil, err
	}
	if c.f.h != nil {
		for range how.passes {
			if err := c.refine(best, table.step); err != nil {
				return nil, err
			}
		}
	}
	if c.moved != nil {
		c.shift(best, -1)
		if err := c.gradient(best.errs); err != nil {
			return nil, err
		}
	}
	return best, c.lossOf(best.loss[:c.count], best.errs)
}

// around returns the count scales nearest to a step, nearest first; fewer if the table has fewer.
func (t *scales) around(step float32, count int) []uint16 {
	var near []uint16
	if step == 0 {
		return []uint16{t.half(0)}
	}
	if t.entries == nil {
		for i := range count {
			d := float64((i+1)/2) * float64(1-i%2*2)
			near = append(near, t.half(float32(float64(step)*math.Pow(candidateRatio, d))))
		}
		return near
	}
	for _, h := range slices.Compact(slices.Clone(t.entries)) {
		if h != 0 {
			near = append(near, h)
		}
	}
	distance := func(h uint16) float64 { return math.Abs(math.Log(float64(t.step(h)) / float64(step))) }
	slices.SortStableFunc(near, func(a, b uint16) int {
		switch x, y := distance(a), distance(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return near[:min(count, len(near))]
}
