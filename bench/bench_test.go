package bench_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cosetq/cosetq/bench"
	"github.com/cosetq/cosetq/tensor"
)

// sleeper is a model that takes a given time, and fails in one of its runs.
type sleeper struct {
	takes time.Duration
	fails int
	order *[]time.Duration
}

func (s *sleeper) Run(context.Context, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	*s.order = append(*s.order, s.takes)
	if s.fails--; s.fails == 0 {
		return nil, errors.New("out of breath")
	}
	time.Sleep(s.takes)
	return nil, nil
}

func TestRunInterleavesAndOrders(t *testing.T) {
	var order []time.Duration
	fast, slow := &sleeper{takes: time.Millisecond, order: &order}, &sleeper{takes: 4 * time.Millisecond, order: &order}
	rounds := 0
	timings, err := bench.Run(context.Background(), []bench.Model{{Name: "fast", Runner: fast}, {Name: "slow", Runner: slow}},
		bench.Options{Warmup: 1, Rounds: 7, Progress: func(int) { rounds++ }})
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range order {
		if want := []time.Duration{fast.takes, slow.takes}[i%2]; d != want {
			t.Fatalf("run %d is not of the model whose turn it is: %v", i, order)
		}
	}
	if rounds != 7 || len(order) != 16 {
		t.Errorf("%d rounds reported and %d runs made, want 7 and 16", rounds, len(order))
	}
	for i, m := range timings {
		if m.Rounds != 7 || m.Min > m.P10 || m.P10 > m.Median || m.Median > m.P90 || m.Min < []time.Duration{fast.takes, slow.takes}[i] {
			t.Errorf("%+v", m)
		}
	}
	if timings[0].Median >= timings[1].Median {
		t.Errorf("the fast model took %v, the slow one %v", timings[0].Median, timings[1].Median)
	}
}

// napper takes 1 ms more with every run.
type napper struct{ runs int }

func (n *napper) Run(context.Context, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	n.runs++
	time.Sleep(time.Duration(n.runs) * time.Millisecond)
	return nil, nil
}

// Of few runs the high quantiles are the slowest one, not the one in the middle.
func TestQuantilesOfFewRuns(t *testing.T) {
	timings, err := bench.Run(context.Background(), []bench.Model{{Name: "m", Runner: &napper{}}}, bench.Options{Warmup: 1, Rounds: 3})
	if err != nil {
		t.Fatal(err)
	}
	if m := timings[0]; m.P10 != m.Min || m.Median < 3*time.Millisecond || m.P90 < 4*time.Millisecond || m.P95 != m.P90 {
		t.Errorf("%+v of runs that took at least 2, 3 and 4 ms", m)
	}
}

func TestRunPausesBeforeAnotherModel(t *testing.T) {
	var order []time.Duration
	model := func(takes time.Duration) bench.Model {
		return bench.Model{Name: "m", Runner: &sleeper{takes: takes, order: &order}}
	}
	const pause = 10 * time.Millisecond
	o := bench.Options{Warmup: 1, Rounds: 3, Pause: pause}
	start := time.Now()
	timings, err := bench.Run(context.Background(), []bench.Model{model(1), model(2)}, o)
	if err != nil {
		t.Fatal(err)
	}
	// Each model: a warm-up, and before each of three counted runs one that is not counted.
	if took := time.Since(start); len(order) != 2*(1+2*3) || timings[0].Rounds != 3 || took < 6*pause {
		t.Errorf("%d runs, %d counted, in %v", len(order), timings[0].Rounds, took)
	}
	order = nil
	if _, err := bench.Run(context.Background(), []bench.Model{model(1)}, o); err != nil || len(order) != 1+3 {
		t.Errorf("%d runs of a model alone, %v: nothing spins beside it", len(order), err)
	}
}

func TestRunStopsAtTheBudgetAndAtErrors(t *testing.T) {
	var order []time.Duration
	m := bench.Model{Name: "m", Runner: &sleeper{takes: 2 * time.Millisecond, order: &order}}
	timings, err := bench.Run(context.Background(), []bench.Model{m}, bench.Options{Rounds: 1000, Budget: time.Millisecond})
	if err != nil || timings[0].Rounds != 5 {
		t.Errorf("%+v, %v: want 5 rounds, the least, when the budget is used up", timings, err)
	}
	m.Runner = &sleeper{fails: 4, order: &order}
	if _, err := bench.Run(context.Background(), []bench.Model{m}, bench.Options{}); err == nil {
		t.Error("a failing run is no error")
	}
}
