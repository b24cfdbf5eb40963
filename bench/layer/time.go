package layer

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

// Options say how to time the forms of a layer.
type Options struct {
	Batch  int
	Rounds int // of every form, and of each kind
	// Clock reads the time that counts.
	Clock func() time.Duration
	// Evict throws the weights out of the caches.
	Evict func()
	// Pause is how long to wait between forms: threads of one runtime session that still spin would slow down the next.
	Pause time.Duration
}

// Timing is how long one form takes, and how well it computes.
type Timing struct {
	Form string
	// Cold: the weights come from memory. Hot: from whatever cache holds them after the run before. Medians, and the least hot
	// time.
	Cold, Hot, Least time.Duration
	// Error is ‖Y − Y*‖/‖Y*‖ against float64 on the weights that the form sees.
	Error float64
}

// hotRuns follow each cold one.
const hotRuns = 3

// Time runs the forms in turn, runners[i] being form i, and returns their timings in the same order.
func (l *Layer) Time(ctx context.Context, runners []eval.Runner, o Options) ([]Timing, error) {
	rng := rand.New(rand.NewPCG(1, uint64(o.Batch)))
	x := make([]float32, o.Batch*l.K)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	inputs := map[string]*tensor.Tensor{Input: tensor.Of(x, int64(o.Batch), int64(l.K))}
	timings := make([]Timing, len(l.Forms))
	cold, hot := make([][]time.Duration, len(l.Forms)), make([][]time.Duration, len(l.Forms))
	for round := -1; round < o.Rounds; round++ {
		for i, r := range runners {
			time.Sleep(o.Pause)
			o.Evict()
			for run := range 1 + hotRuns {
				start := o.Clock()
				out, err := r.Run(ctx, inputs)
				took := o.Clock() - start
				if err != nil {
					return nil, fmt.Errorf("%s: %w", l.Forms[i].Name, err)
				}
				switch {
				case round < 0 && run == 0:
					y, err := tensor.View[float32](out[Output])
					if err != nil {
						return nil, err
					}
					timings[i] = Timing{Form: l.Forms[i].Name, Error: l.error(&l.Forms[i], x, y)}
				case round < 0:
				case run == 0:
					cold[i] = append(cold[i], took)
				default:
					hot[i] = append(hot[i], took)
				}
			}
		}
	}
	for i := range timings {
		timings[i].Cold, timings[i].Hot, timings[i].Least = median(cold[i]), median(hot[i]), slices.Min(hot[i])
	}
	return timings, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// error compares the sampled rows of Y with products in float64.
func (l *Layer) error(f *Form, x, y []float32) float64 {
	var off, all float64
	for b := range len(x) / l.K {
		for i, r := range l.sample {
			var want float64
			for c, w := range f.rows[i*l.K : (i+1)*l.K] {
				want += float64(w) * float64(x[b*l.K+c])
			}
			d := want - float64(y[b*l.N+r])
			off, all = off+d*d, all+want*want
		}
	}
	return math.Sqrt(off / all)
}
