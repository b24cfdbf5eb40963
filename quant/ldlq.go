package quant

import (
	"math"
	"slices"

	"github.com/cosetq/cosetq/lattice"
)

const (
	// feedbackStep is where the steps of LDLQ are looked for, relative to the step of least squared error: feedback
	// widens the spread of what is coded.
	feedbackStep = 1.03
	// candidateRatio is the distance of two candidates where the scale of a row is free.
	candidateRatio = 1.05
)

// plan says how much work LDLQ puts into a weight.
type plan struct {
	// candidates is the number of steps tried for each row.
	candidates int
	// passes is the number of refinement passes.
	passes int
	// metric codes groups in their metric, errors fed back within the group, instead of by squared error.
	metric bool
	// refit moves the scales to their closed-form optimum in the end.
	refit bool
}

// defaultPlan is what the tables in the documentation of the package are measured with.
var defaultPlan = plan{candidates: 3, passes: 2, metric: false, refit: true}

// outcome is what the coding of a row lost.
type outcome struct {
	scale          uint16
	nearest        float64 // E·H·Eᵀ of rounding to nearest
	loss           float64 // E·H·Eᵀ
	energy         float64 // W·H·Wᵀ
	cross          float64 // E·H·Ŵᵀ
	squares        float64 // |E|²
	crossSquares   float64 // E·Ŵᵀ
	decodedSquares float64 // |Ŵ|²
	mean           float64 // E·E[x]
	decodedMean    float64 // Ŵ·E[x]
}

// decodedEnergy is Ŵ·H·Ŵᵀ.
func (o *outcome) decodedEnergy() float64 { return o.energy - o.loss - 2*o.cross }

// rescale multiplies Ŵ by 1+d.
func (o *outcome) rescale(d float64) {
	a := o.decodedEnergy()
	o.loss += d * (d*a - 2*o.cross)
	o.cross = (1 + d) * (o.cross - d*a)
	o.squares += d * (d*o.decodedSquares - 2*o.crossSquares)
	o.mean -= d * o.decodedMean
}

// ldlq codes the weight with feedback.
func (q *run) ldlq(f *factors, how plan) (*Result, error) {
	steps, energy, err := q.rowSteps()
	if err != nil {
		return nil, err
	}
	single, err := lattice.NewCodec(q.opt.Codec.Lattice(), q.opt.Codec.Radices(), nil)
	if err != nil {
		return nil, err
	}
	table := newScaleTable(steps, energy, q.k)
	m := q.newMatrix(table.exponent)
	p := newPacker(m)
	mean := f.inOrder(q.opt.Hessian.Mean)
	rowsLost := make([]outcome, q.n)
	if err := q.chunks(func(t *rows) error {
		if t.chunk == nil {
			t.chunk = newChunk(f, q.opt.Codec, single, how)
		}
		c := t.chunk
		c.count = t.last - t.first
		for r := t.first; r < t.last; r++ {
			row, err := t.row(r)
			if err != nil {
				return err
			}
			c.setRow(r-t.first, row)
		}
		best, err := c.code(table, steps[t.first:t.last], rowsLost[t.first:t.last])
		if err != nil {
			return err
		}
		for r := range c.count {
			c.measure(&rowsLost[t.first+r], best, r, mean)
			c.putRow(p, t.first+r, best, r, t.indices, t.gains)
		}
		q.progress(t)
		return nil
	}); err != nil {
		return nil, err
	}
	if how.refit {
		table.refit(rowsLost)
	}
	chosen := make([]uint16, q.n)
	res := &Result{Matrix: m, Feedback: &Feedback{Damping: f.damping}}
	if mean != nil {
		res.Feedback.Bias = make([]float64, q.n)
	}
	var total float64
	for r, o := range rowsLost {
		chosen[r] = o.scale
		total += o.energy
		res.Feedback.Nearest += o.nearest
		res.Feedback.Loss += o.loss
		if mean != nil {
			res.Feedback.Bias[r] = o.mean
		}
		res.SumSquares += energy[r]
		res.SumSquaredError += o.squares
	}
	if total > 0 {
		res.Feedback.Nearest /= total
		res.Feedback.Loss /= total
	}
	table.store(m, chosen)
	return res, m.Validate()
}

// code codes the rows of a chunk: the best of rounding to nearest and of LDLQ with several steps, refined.
func (c *chunk) code(table *scales, steps []float32, lost []outcome) (*coding, error) {
	best, trial := c.best, c.trial
	c.lossOf(best.loss[:c.count], c.w)
	for r, l := range best.loss[:c.count] {
		lost[r].energy = l
	}
	for r, s := range steps {
		scale, err := table.choose(c.codec, c.w[r*c.f.places:][:c.f.places], s)
		if err != nil {
			return nil, err
		}
		best.scales[r] = scale
	}
	if err := c.nearest(best, table.step); err != nil {
		return nil, err
	}
	for r, l := range best.loss[:c.count] {
		lost[r].nearest = l
	}
	options := make([][]uint16, c.count)
	for r, s := range steps {
		options[r] = table.around(s*feedbackStep, c.how.candidates)
	}
	for i := range c.how.candidates {
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
	c.gradient(best.errs)
	if c.f.h != nil {
		for range c.how.passes {
			if err := c.refine(best, table.step); err != nil {
				return nil, err
			}
		}
	}
	return best, nil
}

// measure fills in what row r lost; c.grad must be F·H'.
func (c *chunk) measure(o *outcome, code *coding, r int, mean []float64) {
	n := c.f.places
	o.scale = code.scales[r]
	for p := range n {
		e, g := float64(code.errs[r*n+p]), float64(c.grad[r*n+p])
		v := float64(c.w[r*n+p]) - e
		g -= c.f.excess[p] * e // now F·H
		o.loss += e * g
		o.cross += v * g
		o.squares += e * e
		o.crossSquares += e * v
		o.decodedSquares += v * v
		if mean != nil {
			o.mean += e * mean[p]
			o.decodedMean += v * mean[p]
		}
	}
	o.loss = max(0, o.loss)
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

// refit moves every scale to the multiple of it that loses least over the rows
// that use it, 1 + Σ E·H·Ŵᵀ / Σ Ŵ·H·Ŵᵀ, where that is better after rounding to
// float16.
func (t *scales) refit(lost []outcome) {
	users := make(map[uint16][]int, len(t.entries)) // rows by scale
	for r := range lost {
		users[lost[r].scale] = append(users[lost[r].scale], r)
	}
	for i, h := range t.entries {
		if i == 0 || h != t.entries[i-1] {
			t.entries[i] = t.refitScale(lost, h, users[h])
		}
	}
	if t.entries == nil {
		for r := range lost {
			t.refitScale(lost, lost[r].scale, []int{r})
		}
	}
	slices.Sort(t.entries)
}

// refitScale moves the scale h of some rows, and returns where to.
func (t *scales) refitScale(lost []outcome, h uint16, users []int) uint16 {
	var cross, energy float64
	for _, r := range users {
		cross += lost[r].cross
		energy += lost[r].decodedEnergy()
	}
	if h == 0 || !(energy > 0) {
		return h
	}
	to := t.half(float32(float64(t.step(h)) * (1 + cross/energy)))
	d := float64(t.step(to))/float64(t.step(h)) - 1
	if d*(d*energy-2*cross) >= 0 {
		return h
	}
	for _, r := range users {
		lost[r].rescale(d)
		lost[r].scale = to
	}
	return to
}
