package finetune

import (
	"sync/atomic"
	"testing"
	"time"
)

// A training takes no more threads than it is given.
func TestParallelThreads(t *testing.T) {
	for _, threads := range []int{1, 3} {
		tr := &trainer{opt: Options{Threads: threads}, parts: make([]stretch, 20)}
		var at, most atomic.Int32
		err := tr.parallel(func(stretch) error {
			now := at.Add(1)
			defer at.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		if err != nil || most.Load() > int32(threads) {
			t.Errorf("%d threads at work, %d given: %v", most.Load(), threads, err)
		}
	}
}
