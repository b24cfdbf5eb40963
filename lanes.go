package cosetq

import (
	"context"
	"runtime"
	"sync"

	"github.com/cosetq/cosetq/ort"
)

// lanes is how many batches are observed at the same time: while one runs, the rows of another are added up. Most nodes of a
// gradient are too small for several threads. The GPU has one, which adds up what it has at once: only rows of nodes that run on the
// processor are kept back.
func (c *calibration) lanes() int {
	if c.device == CUDA {
		return 1
	}
	return min(c.threads, 2)
}

// lanes run batches at the same time and add their rows up in the order in which they were given, so that the sums are the same
// with any number of threads.
type lanes struct {
	ctx      context.Context // done when a batch failed
	fail     context.CancelCauseFunc
	group    sync.WaitGroup
	jobs     chan laneJob  // nil when no lane works
	last     chan struct{} // closed when the batch given last is added up
	threads  int           // to add rows up
	stagings []*ort.Staging
}

type laneJob struct {
	run         func() error
	added       func()
	before, own chan struct{} // closed when the batches before, and this one, are added up
}

func (c *calibration) newLanes(ctx context.Context) (*lanes, error) {
	count := c.lanes()
	l := &lanes{threads: c.threads} // those of a lane that waits for its turn would be idle
	l.ctx, l.fail = context.WithCancelCause(ctx)
	for range count {
		s, err := c.gathered[0].NewStaging()
		if err != nil {
			l.close()
			return nil, err
		}
		l.stagings = append(l.stagings, s)
	}
	return l, nil
}

// run leaves a batch to the next lane that is free: it calls run and, once the batches before are added up, added. The error is that
// of a batch before; settle returns it as well.
func (l *lanes) run(run func() error, added func()) error {
	if l.jobs == nil {
		l.begin()
	}
	job := laneJob{run, added, l.last, make(chan struct{})}
	l.last = job.own
	l.jobs <- job
	return context.Cause(l.ctx)
}

func (l *lanes) begin() {
	l.jobs, l.last = make(chan laneJob), make(chan struct{})
	close(l.last)
	for _, staging := range l.stagings {
		l.group.Go(func() {
			// The memory that a run took is there for the next one only on the same thread.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for job := range l.jobs {
				if err := l.do(staging, job); err != nil {
					l.fail(err)
				}
				close(job.own)
			}
		})
	}
}

func (l *lanes) do(staging *ort.Staging, job laneJob) error {
	err := l.ctx.Err()
	if err == nil {
		err = staging.Run(job.run)
	}
	<-job.before
	if err == nil {
		err = staging.Commit(l.threads)
	}
	if err == nil {
		job.added()
	}
	return err
}

// wait waits for the batches so far and returns the first error. The lanes stay.
func (l *lanes) wait() error {
	if l.jobs != nil {
		<-l.last
	}
	return context.Cause(l.ctx)
}

// settle waits for all batches, ends the lanes and returns the first error.
func (l *lanes) settle() error {
	if l.jobs != nil {
		close(l.jobs)
		l.group.Wait()
		l.jobs = nil
	}
	return context.Cause(l.ctx)
}

// close frees the lanes.
func (l *lanes) close() {
	_ = l.settle()
	l.fail(nil)
	for _, s := range l.stagings {
		s.Close()
	}
}
