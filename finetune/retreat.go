package finetune

import (
	"errors"
	"fmt"
	"math"

	"github.com/cosetq/cosetq/quant"
)

// A training goes back when a judgement finds more than so many times the loss of the start, and a little, as a start without
// any loss would otherwise be divergence already.
const (
	divergence      = 3
	divergenceSlack = 0.01
)

// maxRetreats bounds how often a training goes back: its rate is a thousandth by then.
const maxRetreats = 10

// errNotFinite says that a step had no gradient to move by.
var errNotFinite = errors.New("the gradient is not finite")

// peak is the peak learning rate of a training of so many steps: half of what was asked for after every retreat.
func (t *trainer) peak(steps float64) float64 {
	r := math.Ldexp(t.opt.Rate, -t.retreats)
	if t.chosen && steps > DefaultRateSteps {
		r *= math.Sqrt(DefaultRateSteps / steps)
	}
	return r
}

// rate is the learning rate at a share of a training of so many steps. After a retreat it rises anew.
func (t *trainer) rate(share, steps float64) float64 {
	r := t.peak(steps) * schedule(share, t.opt.WarmUp)
	if t.retreats > 0 && share-t.resumed.Share < t.opt.WarmUp {
		r *= (share - t.resumed.Share) / t.opt.WarmUp
	}
	return r
}

// retreat goes back to the best state, forgets the moments that led away from it, and halves the rate.
func (t *trainer) retreat(share, steps float64) error {
	if t.retreats == maxRetreats {
		return &OptionError{fmt.Sprintf("step %d: the training diverges even at a rate of %.3g: give a lower one, look at the data, or train fewer weights", t.done, t.peak(steps))}
	}
	t.retreats++
	t.resumed = restart{Step: t.done, Share: share}
	t.last = t.best.loss
	if err := t.revert(); err != nil {
		return err
	}
	for _, l := range t.latents {
		if !l.Frozen {
			copy(l.u, l.w)
			l.opt.reset()
			l.readScales()
			l.scaleOpt.reset()
		}
	}
	for _, p := range t.parameters {
		p.opt.reset()
	}
	return nil
}

// restart is where a training went on after a retreat.
type restart struct {
	Step  int     `json:"step"`
	Share float64 `json:"share"` // of the training
}

// revert goes back to the codes and parameters of the best state.
func (t *trainer) revert() error {
	for _, l := range t.latents {
		if l.Frozen {
			continue
		}
		r, err := quant.NewRecoder(t.best.matrices[l.Input], l.Coder)
		if err != nil {
			return err
		}
		l.recoder = r
		r.Values(l.w, 0, l.n)
	}
	for _, p := range t.parameters {
		copy(p.x, t.best.parameters[p.name])
		p.refresh()
	}
	return nil
}
