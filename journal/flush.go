package journal

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

const (
	// maxUnflushed bounds the layers that have their names but may not be on the disk yet.
	maxUnflushed = 256
	// flushTogether layers are flushed at once: file systems that keep a log write it once for all of them.
	flushTogether = 16
)

// flusher brings the files of a folder to the disk while the caller goes on: a run over thousands of small weights would
// otherwise wait for the disk after each.
type flusher struct {
	dir       string
	mu        sync.Mutex
	changed   *sync.Cond // on mu: unflushed or running are less than they were
	pending   []string
	unflushed int // pending, and those that are being flushed
	running   bool
	err       error // the first one; nothing is flushed after it
}

func newFlusher(dir string) *flusher {
	f := &flusher{dir: dir}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// add takes a file that has its name. It returns at once unless too many are not flushed yet; the error is that of an earlier one.
func (f *flusher) add(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, path)
	f.unflushed++
	if !f.running {
		f.running = true
		go f.run()
	}
	for f.running && f.unflushed > maxUnflushed {
		f.changed.Wait()
	}
	return f.err
}

// run flushes what is pending, then what came meanwhile.
func (f *flusher) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pending) > 0 && f.err == nil {
		batch := f.pending
		f.pending = nil
		f.mu.Unlock()
		var group errgroup.Group
		group.SetLimit(flushTogether)
		for _, path := range batch {
			group.Go(func() error { return flushFile(path) })
		}
		err := group.Wait()
		atomicfile.SyncDir(f.dir)
		f.mu.Lock()
		f.unflushed -= len(batch)
		f.err = err
		f.changed.Broadcast()
	}
	f.running = false
	f.changed.Broadcast()
}

// wait returns when all files are on the disk, or with why they are not.
func (f *flusher) wait() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.running {
		f.changed.Wait()
	}
	return f.err
}

// forget gives up what is pending, and returns when nothing is being flushed.
func (f *flusher) forget() {
	f.mu.Lock()
	f.unflushed -= len(f.pending)
	f.pending = nil
	f.mu.Unlock()
	_ = f.wait() // nobody wants those files any more
}

// flushFile makes the content of a file durable, unless it was removed; tests replace it.
var flushFile = func(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
