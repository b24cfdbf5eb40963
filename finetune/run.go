package finetune

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// snapshot is a state worth keeping: what would be shipped.
type snapshot struct {
	step       int
	loss       float64
	matrices   map[string]*quant.Matrix
	parameters map[string][]float32
}

func (t *trainer) snapshot(loss float64) snapshot {
	s := snapshot{step: t.done, loss: loss, matrices: map[string]*quant.Matrix{}, parameters: map[string][]float32{}}
	for _, l := range t.latents {
		if !l.Frozen {
			s.matrices[l.Input] = l.recoder.Matrix()
		}
	}
	for _, p := range t.parameters {
		s.parameters[p.name] = slices.Clone(p.x)
	}
	return s
}

// run trains until the end, or until ctx ends, and returns the best state seen.
func (t *trainer) run(ctx context.Context) (*Result, error) {
	c := &clock{limit: t.opt.MaxTime, steps: t.opt.Steps}
	if t.opt.Checkpoint != "" {
		var err error
		if t.identity, err = t.identify(); err != nil {
			return nil, err
		}
	}
	if t.opt.Resume {
		if err := t.restore(c); err != nil {
			return nil, err
		}
	}
	c.begin = time.Now()
	interrupted, err := t.loop(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Result{
		Matrices: t.best.matrices, Parameters: t.best.parameters, HeldOut: len(t.order.heldOut), Start: t.start, Best: t.best.loss, BestStep: t.best.step, Last: t.last,
		Steps: t.done, Retreats: t.retreats, Rate: t.peak(c.expected(t.done)), Seconds: c.elapsed().Seconds(), Memory: t.memory, Interrupted: interrupted,
		Keep: func() error { return t.checkpoint(c) },
	}, nil
}

// clock knows how far the training is.
type clock struct {
	limit  time.Duration
	steps  int
	before time.Duration // spent before the checkpoint that was resumed
	begin  time.Time
}

func (c *clock) elapsed() time.Duration { return c.before + time.Since(c.begin) }

// share is how much of the training is done in the middle of the next step.
func (c *clock) share(done int) float64 {
	if c.steps > 0 {
		return (float64(done) + 0.5) / float64(c.steps)
	}
	return min(float64(c.elapsed())/float64(c.limit), 1)
}

// expected is how many steps there will have been in the end.
func (c *clock) expected(done int) float64 {
	if c.steps > 0 {
		return float64(c.steps)
	}
	return (float64(done) + 0.5) / c.share(done)
}

func (c *clock) over(done int) bool {
	if c.steps > 0 {
		return done >= c.steps
	}
	return c.elapsed() >= c.limit
}

// loop trains. It reports whether ctx ended it; the state of the last whole step is then checkpointed.
func (t *trainer) loop(ctx context.Context, c *clock) (interrupted bool, err error) {
	stopped := func(err error) (bool, error) {
		if ctx.Err() == nil || t.best.matrices == nil || !errors.Is(err, ctx.Err()) {
			return false, err
		}
		return true, t.checkpoint(c)
	}
	if t.best.matrices == nil {
		if err := t.judgeStart(ctx, c); err != nil {
			return false, err
		}
	}
	saved := time.Now()
	var sum float64
	var count int
	for t.due(c) || !c.over(t.done) {
		lost := false
		if !t.due(c) { // or else ctx ended the judgement of the last step
			loss, err := t.accumulate(ctx)
			if err != nil {
				return stopped(err)
			}
			err = t.move(t.rate(c.share(t.done), c.expected(t.done)))
			lost = errors.Is(err, errNotFinite) || errors.Is(err, lattice.ErrRange) // no gradient, or weights far beyond their scales
			if err != nil && !lost {
				return false, err
			}
			t.done++
			sum += loss
			count++
		}
		if lost || t.due(c) {
			e := Event{Train: sum / float64(count), HeldOut: math.NaN(), Agreement: math.NaN()}
			if !lost {
				if e.HeldOut, e.Agreement, err = t.judge(ctx); err != nil {
					return stopped(err)
				}
				t.last = e.HeldOut
			}
			t.judged = t.done
			if e.Best = e.HeldOut < t.best.loss; e.Best {
				t.best = t.snapshot(e.HeldOut)
			}
			e.Diverged = !(e.HeldOut <= divergence*t.start+divergenceSlack)
			t.report(c, e)
			if e.Diverged {
				if err := t.retreat(c.share(t.done), c.expected(t.done)); err != nil {
					return false, err
				}
			}
			sum, count = 0, 0
		}
		if t.opt.Checkpoint != "" && time.Since(saved) > t.opt.Save {
			if err := t.checkpoint(c); err != nil {
				return false, err
			}
			saved = time.Now()
		}
	}
	return false, nil
}

// due tells whether the state after the last step is to be judged, and was not.
func (t *trainer) due(c *clock) bool {
	return t.done > t.judged && (t.done%t.opt.Every == 0 || c.over(t.done))
}

// judgeStart measures what there is to improve.
func (t *trainer) judgeStart(ctx context.Context, c *clock) error {
	loss, agree, err := t.judge(ctx)
	if err != nil {
		return err
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return fmt.Errorf("finetune: the loss of the samples held out is %v before training: a model, or the data, has %w", loss, ErrNotFinite)
	}
	t.start, t.last = loss, loss
	t.best = t.snapshot(loss)
	t.report(c, Event{Train: math.NaN(), HeldOut: loss, Agreement: agree, Best: true})
	return nil
}

func (t *trainer) report(c *clock, e Event) {
	if t.opt.Report != nil {
		e.Step, e.Steps, e.Elapsed = t.done, t.opt.Steps, c.elapsed()
		t.opt.Report(e)
	}
}
