package finetune

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/tensor"
)

// identity is a weight.
type identity int

func (n identity) Dims() (int, int) { return int(n), int(n) }

func (n identity) Rows(dst []float32, n0, n1 int) error {
	clear(dst)
	for r := n0; r < n1; r++ {
		dst[(r-n0)*int(n)+r] = 1
	}
	return nil
}

// A step sees the mean of the gradients of its passes, shortened where it is longer than the bound; and parameters move in proportion
// to how far the codes are from the weights, at the slow rate.
func TestMove(t *testing.T) {
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	r, err := quant.Quantize(context.Background(), identity(16), quant.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLatent(Weight{Input: "w", Matrix: r.Matrix, Coder: codec})
	if err != nil {
		t.Fatal(err)
	}
	l.g = make([]float32, 16*16)
	for clip, want := range map[float64][]float64{100: {3, 4}, 1: {0.6, 0.8}} {
		p, err := newParameter(onnx.NewTensor("bias", []int64{2}, []float32{5, 5}))
		if err != nil {
			t.Fatal(err)
		}
		p.g = []float32{6, 8} // of two passes
		tr := &trainer{opt: Options{Accumulate: 2, Clip: clip, Threads: 1}, latents: []*latent{l}, parameters: []*parameter{p}}
		tr.parts = stretches(tr.latents)
		if err := tr.move(0.1); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if got := float64(p.opt.m[i]) / (1 - adamBeta1); math.Abs(got-w) > 1e-5 {
				t.Errorf("clipped at %v: gradient %d counts as %v, want %v", clip, i, got, w)
			}
			if moved, want := 5-float64(p.x[i]), slowRate*0.1*l.blur*5; math.Abs(moved-want) > 1e-3*want {
				t.Errorf("parameter %d moves by %v, want %v", i, moved, want)
			}
		}
	}
}

// After a retreat the rate is half of what was asked for, and rises anew from where the training went on.
func TestRateAfterRetreat(t *testing.T) {
	tr := &trainer{opt: Options{Rate: 1, WarmUp: 0.1}, retreats: 1, resumed: restart{Share: 0.5}}
	for share, want := range map[float64]float64{0.5: 0, 0.55: 0.25 * schedule(0.55, 0.1), 0.7: 0.5 * schedule(0.7, 0.1)} {
		if got := tr.rate(share, 2*DefaultRateSteps); math.Abs(got-want) > 1e-12 {
			t.Errorf("at %v the rate is %v, want %v", share, got, want)
		}
	}
}

// The rate that is chosen for a training falls with the root of its steps, where those are many; one that was asked for does not.
func TestRateOfLongTraining(t *testing.T) {
	for steps, want := range map[float64]float64{10: 1, DefaultRateSteps: 1, 4 * DefaultRateSteps: 0.5} {
		if got := (&trainer{opt: Options{Rate: 1}, chosen: true}).peak(steps); math.Abs(got-want) > 1e-12 {
			t.Errorf("of %v steps the rate is %v, want %v", steps, got, want)
		}
	}
	c := &clock{limit: 10 * time.Minute, before: time.Minute, begin: time.Now()}
	if got := c.expected(99); math.Abs(got-995) > 1 { // 99 steps and a half in a tenth of the time
		t.Errorf("%v steps are expected, want 995", got)
	}
}

// A checkpoint of a training whose rate was chosen is none of one that asks for a rate which moves weights further, nor the other way round.
func TestCheckpointTellsRates(t *testing.T) {
	header := func(o Options, chosen bool) *checkpointHeader {
		tr := &trainer{opt: o, chosen: chosen, order: &order{}}
		s, err := tr.identify()
		if err != nil {
			t.Fatal(err)
		}
		return &checkpointHeader{Settings: s}
	}
	for _, c := range []struct {
		o    Options
		same bool
	}{
		{Options{Rate: 0.04, Steps: DefaultRateSteps}, true},
		{Options{Rate: 0.04, Steps: 4 * DefaultRateSteps}, false},
		{Options{Rate: 0.04, MaxTime: time.Hour}, false},
	} {
		chosen, given := header(c.o, true), header(c.o, false)
		if err := chosen.same(chosen.Settings); err != nil {
			t.Errorf("%+v: %v", c.o, err)
		}
		for _, err := range []error{chosen.same(given.Settings), given.same(chosen.Settings)} {
			if same := err == nil; same != c.same || !same && !errors.Is(err, ErrCheckpoint) {
				t.Errorf("%d steps, %v: %v", c.o.Steps, c.o.MaxTime, err)
			}
		}
	}
}

// Who is told at which rate a training still diverges is told the rate that it had.
func TestDivergesAtRate(t *testing.T) {
	tr := &trainer{opt: Options{Rate: 1024}, chosen: true, retreats: maxRetreats}
	if err := tr.retreat(0.5, 4*DefaultRateSteps); err == nil || !strings.Contains(err.Error(), "at a rate of 0.5:") {
		t.Error(err)
	}
}

// Labels, or the tokens that follow, are ones in the columns of their rows.
func TestOneHot(t *testing.T) {
	like := &grad.Value{Name: "y", Type: onnx.Float, Shape: []int64{2, 3}}
	for name, samples := range map[string][]*calib.Sample{
		"labels": {{Label: 2}, {Label: 0}}, "tokens": {{Label: -1, Targets: []int{2, 0}}},
	} {
		y, err := oneHot(samples, like)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := tensor.View[float32](y); err != nil || !slices.Equal(v, []float32{0, 0, 1, 1, 0, 0}) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for name, samples := range map[string][]*calib.Sample{"none": {{Label: -1}, {Label: 0}}, "too large": {{Label: 3}, {Label: 0}}, "too few": {{Label: 1}}} {
		if _, err := oneHot(samples, like); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
