package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
)

// holdFlush makes every flush wait for a value of the channel, and fail with it.
func holdFlush(t *testing.T) chan error {
	t.Helper()
	held, flush := make(chan error), flushFile
	t.Cleanup(func() { flushFile = flush })
	flushFile = func(string) error { return <-held }
	return held
}

func putMany(j *Journal, first, count int) error {
	for i := range count {
		if err := j.Put(fmt.Sprint("weight ", first+i), Layer{Source: "s", Meta: []byte(`{}`)}); err != nil {
			return err
		}
	}
	return nil
}

// Coding does not wait for the disk, but for a bound on what a power cut can take; and whoever closes the journal does.
func TestFlushBehind(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j, err := Create(filepath.Join(dir, "j"), settings)
		if err != nil {
			t.Fatal(err)
		}
		held := holdFlush(t)
		err = putMany(j, 0, 1)
		synctest.Wait()                                                        // until it is being flushed
		if err = errors.Join(err, putMany(j, 1, maxUnflushed-1)); err != nil { // does not return if it waits for a flush
			t.Fatal(err)
		}
		if l, err := j.Get("weight 7"); l == nil || err != nil {
			t.Errorf("a layer that is not flushed cannot be read: %v, %v", l, err)
		}
		more := make(chan error, 1)
		go func() { more <- putMany(j, maxUnflushed, 1) }()
		synctest.Wait()
		if len(more) > 0 {
			t.Error("the bound does not hold")
		}
		held <- nil // the first layer: what came later is a batch of its own
		synctest.Wait()
		if len(more) == 0 {
			t.Error("it still waits")
		}
		closed := make(chan error, 1)
		go func() { closed <- j.Close() }()
		for i := range maxUnflushed {
			synctest.Wait()
			if len(closed) > 0 {
				t.Fatalf("closed with %d layers to flush", maxUnflushed-i)
			}
			held <- nil
		}
		if err := errors.Join(<-more, <-closed); err != nil {
			t.Error(err)
		}
	})
}

// A layer that cannot be flushed fails the run, at the latest before the model that was written from it gets its name.
func TestFlushFails(t *testing.T) {
	full := errors.New("no space")
	for _, tt := range []struct {
		name string
		next func(*Journal) error
	}{
		{"the next layer", func(j *Journal) error { return putMany(j, 1, 1) }},
		{"the output", func(j *Journal) error { return j.SetOutput(nil) }},
		{"closing", (*Journal).Close},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := create(t)
			held := holdFlush(t)
			if err := putMany(j, 0, 1); err != nil {
				t.Fatal(err)
			}
			held <- full
			_ = j.flusher.wait()
			if err := tt.next(j); !errors.Is(err, full) {
				t.Errorf("%v, want %v", err, full)
			}
		})
	}
}

// Removing the journal does not wait until the disk has what nobody wants any more, but for what is being written there.
func TestRemoveWhileFlushing(t *testing.T) {
	j := create(t)
	var once sync.Once
	begun, goOn := make(chan struct{}), make(chan struct{})
	flush := flushFile
	t.Cleanup(func() { flushFile = flush })
	flushFile = func(path string) error {
		once.Do(func() { close(begun); <-goOn })
		return flush(path)
	}
	if err := putMany(j, 0, 1); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := putMany(j, 1, 10); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error)
	go func() { removed <- j.Remove() }()
	close(goOn)
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(j.Dir()); err == nil {
		t.Error("it is still there")
	}
}
