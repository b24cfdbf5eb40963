package conformance

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// The library in many sessions, which come and go while others run, and each session used from several threads: every run
// gives the bits of the first.
func TestManySessions(t *testing.T) {
	lib, model, rt := testenv.Ops(t), digits(t), openRuntime(t)
	input := numbers(3, digitRows*digitColumns)
	want := digitLogits(t, model, lib, input)
	const sessions, rounds, callers, runs = 6, 3, 4, 5
	errs := make(chan error, sessions*rounds*callers)
	wrong := make(chan int, sessions*rounds*callers)
	call := func(s *ort.Session) {
		runtime.LockOSThread() // a thread of the system for each caller
		defer runtime.UnlockOSThread()
		for i := range runs {
			out, err := s.Run(context.Background(), map[string]*tensor.Tensor{s.Inputs()[0].Name: tensor.Of(slices.Clone(input), digitRows, digitColumns)})
			if err != nil {
				errs <- err
				return
			}
			if got, err := tensor.View[float32](out[s.Outputs()[0].Name]); err != nil || !slices.Equal(got, want) {
				wrong <- i
				return
			}
		}
	}
	var all sync.WaitGroup
	for range sessions {
		all.Go(func() {
			for range rounds {
				s, err := rt.NewSession(model, ort.SessionOptions{OpsLibrary: lib, Threads: 2})
				if err != nil {
					errs <- err
					return
				}
				var mine sync.WaitGroup
				for range callers {
					mine.Go(func() { call(s) })
				}
				mine.Wait()
				if err := s.Close(); err != nil {
					errs <- err
				}
			}
		})
	}
	all.Wait()
	close(errs)
	close(wrong)
	for err := range errs {
		t.Error(err)
	}
	if n := len(wrong); n > 0 {
		t.Errorf("%d callers got other results", n)
	}
}
