// Package bench times models side by side. Runs are interleaved, one of each model in turn, so that whatever slows the machine
// down slows all of them, and times are reported as medians with their spread.
//
// It takes anything that can run a model (eval.Runner) and knows neither files nor runtimes.
package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

// Model is a model to time, with the inputs of one run.
type Model struct {
	Name   string
	Runner eval.Runner
	Inputs map[string]*tensor.Tensor
}

// Options say how long to measure. The zero value is fine.
type Options struct {
	// Warmup is how many rounds are not counted; 0 means 3.
	Warmup int
	// Rounds is how many are counted; 0 means 30, or fewer when Budget is used up. At least 5 are made.
	Rounds int
	// Budget bounds the time of all counted rounds; 0 means 20 s.
	Budget time.Duration
	// Pause is how long to wait before the turn of another model, so that threads which still spin after their last run do not
	// take a processor from it. An uncounted run follows, which wakes its own threads.
	Pause time.Duration
	// Progress, when not nil, is called after every counted round.
	Progress func(round int)
}

// Timing is how long one run of a model took. Quantiles are over the counted rounds.
type Timing struct {
	Name                       string
	Rounds                     int
	Min, P10, Median, P90, P95 time.Duration
}

const leastRounds = 5

// Run times the models and returns one Timing for each, in their order.
func Run(ctx context.Context, models []Model, o Options) ([]Timing, error) {
	if o.Warmup == 0 {
		o.Warmup = 3
	}
	if o.Rounds == 0 {
		o.Rounds = 30
	}
	if o.Budget == 0 {
		o.Budget = 20 * time.Second
	}
	times := make([][]time.Duration, len(models))
	var began time.Time
	for round := -o.Warmup; round < o.Rounds; round++ {
		if round == 0 {
			began = time.Now()
		}
		if round >= leastRounds && time.Since(began) > o.Budget {
			break
		}
		for i, m := range models {
			if o.Pause > 0 && len(models) > 1 && round >= 0 {
				time.Sleep(o.Pause)
				if _, err := m.run(ctx); err != nil {
					return nil, err
				}
			}
			d, err := m.run(ctx)
			if err != nil {
				return nil, err
			}
			if round >= 0 {
				times[i] = append(times[i], d)
			}
		}
		if o.Progress != nil && round >= 0 {
			o.Progress(round)
		}
	}
	timings := make([]Timing, len(models))
	for i, m := range models {
		timings[i] = summarize(m.Name, times[i])
	}
	return timings, nil
}

// run returns how long one run took.
func (m *Model) run(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if _, err := m.Runner.Run(ctx, m.Inputs); err != nil {
		return 0, fmt.Errorf("bench: %s: %w", m.Name, err)
	}
	return time.Since(start), nil
}

func summarize(name string, d []time.Duration) Timing {
	slices.Sort(d)
	return Timing{Name: name, Rounds: len(d), Min: d[0], P10: quantile(d, 10), Median: quantile(d, 50), P90: quantile(d, 90), P95: quantile(d, 95)}
}

// quantile is the smallest of the sorted times that at least so many percent of them do not exceed: of few, a high one is the largest.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}
