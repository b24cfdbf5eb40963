package bench

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

// LoadOptions say how to put a model under load.
type LoadOptions struct {
	Callers  int           // goroutines that run the model at once, 1 or more
	Duration time.Duration // of the whole load; its first tenth is warm-up
	// Memory, if set, returns what the process takes, in bytes. It is watched all the while.
	Memory func() int64
}

// Load is what came of many callers on one model.
type Load struct {
	Callers, Runs             int
	Seconds                   float64
	Median, P95, P99, Slowest time.Duration // of single runs
	// Different counts the runs whose outputs differed, in any bit, from those of the first run.
	Different int
	// MemoryWarm and MemoryEnd are the medians over the second and the last tenth of the time, MemoryPeak the largest seen
	// after the first tenth; 0 when nobody watched.
	MemoryWarm, MemoryEnd, MemoryPeak int64
}

const (
	reservoir = 1 << 14 // times that a caller keeps, an even sample of all
	tenths    = 10
	watches   = 50 // of the memory, in each tenth
)

// RunLoad runs a model from many goroutines at once. Its own memory does not grow with the time. It ends at the first error
// of a run.
func RunLoad(ctx context.Context, m Model, o LoadOptions) (*Load, error) {
	if o.Callers < 1 || o.Duration <= 0 {
		return nil, fmt.Errorf("bench: %d callers for %v: give at least one and some time", o.Callers, o.Duration)
	}
	want, err := m.Runner.Run(ctx, m.Inputs)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", m.Name, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	callers := make([]caller, o.Callers)
	start := time.Now()
	end := start.Add(o.Duration)
	var wg sync.WaitGroup
	for i := range callers {
		c := &callers[i]
		c.kept = make([]time.Duration, 0, reservoir)
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				if err := c.run(ctx, m.Runner, m.Inputs, want); err != nil {
					cancel(fmt.Errorf("bench: %s, run %d of a caller: %w", m.Name, c.runs, err))
				}
			}
		})
	}
	l := &Load{Callers: o.Callers}
	l.watch(ctx, o)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	l.Seconds = time.Since(start).Seconds()
	var times []time.Duration
	for i := range callers {
		l.Runs += callers[i].runs
		l.Different += callers[i].different
		l.Slowest = max(l.Slowest, callers[i].slowest)
		times = append(times, callers[i].kept...)
	}
	slices.Sort(times)
	l.Median, l.P95, l.P99 = quantile(times, 50), quantile(times, 95), quantile(times, 99)
	return l, nil
}

// watch follows the memory until the time is over.
func (l *Load) watch(ctx context.Context, o LoadOptions) {
	if o.Memory == nil {
		return
	}
	tick := time.NewTicker(max(o.Duration/(tenths*watches), time.Millisecond))
	defer tick.Stop()
	timer := time.NewTimer(o.Duration)
	defer timer.Stop()
	start := time.Now()
	var warm, last []int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			l.MemoryWarm, l.MemoryEnd = median(warm), median(last)
			return
		case now := <-tick.C:
			memory, tenth := o.Memory(), int(tenths*now.Sub(start)/o.Duration)
			if tenth > 0 {
				l.MemoryPeak = max(l.MemoryPeak, memory)
			}
			switch tenth {
			case 1:
				warm = append(warm, memory)
			case tenths - 1:
				last = append(last, memory)
			}
		}
	}
}

func median(v []int64) int64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// caller is one goroutine of a load.
type caller struct {
	runs, different int
	slowest         time.Duration
	kept            []time.Duration
}

func (c *caller) run(ctx context.Context, r eval.Runner, inputs, want map[string]*tensor.Tensor) error {
	start := time.Now()
	got, err := r.Run(ctx, inputs)
	if err != nil {
		return err
	}
	d := time.Since(start)
	if !maps.EqualFunc(got, want, func(a, b *tensor.Tensor) bool { return bytes.Equal(a.Data, b.Data) }) {
		c.different++
	}
	c.runs++
	c.slowest = max(c.slowest, d)
	if len(c.kept) < reservoir {
		c.kept = append(c.kept, d)
	} else if i := rand.IntN(c.runs); i < reservoir {
		c.kept[i] = d
	}
	return nil
}
