package bench_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cosetq/cosetq/bench"
	"github.com/cosetq/cosetq/tensor"
)

// counting is a model that tells how many run it at once, gives another result now and then, and fails in the end.
type counting struct {
	runs, inside, most       atomic.Int64
	differsEvery, failsAfter int64
}

func (c *counting) Run(context.Context, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	n, inside := c.runs.Add(1), c.inside.Add(1)
	defer c.inside.Add(-1)
	for most := c.most.Load(); inside > most && !c.most.CompareAndSwap(most, inside); most = c.most.Load() {
	}
	time.Sleep(time.Millisecond)
	if c.failsAfter > 0 && n > c.failsAfter {
		return nil, errors.New("worn out")
	}
	v := float32(1)
	if c.differsEvery > 0 && n%c.differsEvery == 0 {
		v = 2
	}
	return map[string]*tensor.Tensor{"y": tensor.Of([]float32{v}, 1)}, nil
}

func TestLoad(t *testing.T) {
	m := &counting{differsEvery: 10}
	var memory atomic.Int64
	l, err := bench.RunLoad(context.Background(), bench.Model{Name: "m", Runner: m}, bench.LoadOptions{
		Callers: 8, Duration: 500 * time.Millisecond, Memory: func() int64 { return memory.Add(1000) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if int64(l.Runs) != m.runs.Load()-1 || m.most.Load() < 2 || m.most.Load() > 8 {
		t.Errorf("%d runs counted, %d made, %d at once", l.Runs, m.runs.Load(), m.most.Load())
	}
	if want := int(m.runs.Load() / 10); l.Different != want {
		t.Errorf("%d runs differ, want %d", l.Different, want)
	}
	if l.Median < time.Millisecond || l.P95 < l.Median || l.P99 < l.P95 || l.Slowest < l.P99 {
		t.Errorf("times %+v", l)
	}
	if l.MemoryWarm <= 0 || l.MemoryEnd <= l.MemoryWarm || l.MemoryPeak < l.MemoryEnd {
		t.Errorf("growing memory was not seen: %+v", l)
	}

	_, err = bench.RunLoad(context.Background(), bench.Model{Name: "m", Runner: &counting{failsAfter: 20}}, bench.LoadOptions{Callers: 4, Duration: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "worn out") {
		t.Errorf("the error of a run is lost: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err = bench.RunLoad(ctx, bench.Model{Name: "m", Runner: &counting{}}, bench.LoadOptions{Callers: 4, Duration: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a cancelled load: %v", err)
	}
	if _, err = bench.RunLoad(context.Background(), bench.Model{}, bench.LoadOptions{}); err == nil {
		t.Error("no callers are accepted")
	}
}
