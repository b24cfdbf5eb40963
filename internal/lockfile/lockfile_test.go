//go:build linux || darwin

package lockfile_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cosetq/cosetq/internal/lockfile"
)

func acquire(t *testing.T, path string, shared bool) *lockfile.Lock {
	t.Helper()
	l, err := lockfile.Acquire(path, shared)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOneHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	refused := func(shared bool) {
		t.Helper()
		if l, err := lockfile.Acquire(path, shared); !errors.Is(err, lockfile.ErrHeld) {
			t.Errorf("locked twice: %v, %v", l, err)
		}
	}
	l := acquire(t, path, false)
	refused(false)
	refused(true)
	l.Release()
	l.Release()
	a, b := acquire(t, path, true), acquire(t, path, true)
	refused(false)
	a.Release()
	refused(false)
	b.Release()
	acquire(t, path, false).Release()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	acquire(t, filepath.Join(path, "no", "folder"), false).Release()
}

// Of many that want it at once one has it at a time, whoever removes the file meanwhile.
func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var inside, got atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 500 {
				l, err := lockfile.Acquire(path, false)
				if err != nil {
					continue
				}
				if inside.Add(1) != 1 {
					t.Error("two hold it")
				}
				got.Add(1)
				inside.Add(-1)
				l.Release()
			}
		})
	}
	group.Wait()
	if got.Load() == 0 {
		t.Error("nobody had it")
	}
}

// What a killed process leaves locks nothing, and is removed by the next one.
func TestKilled(t *testing.T) {
	if path := os.Getenv("LOCKFILE_TEST"); path != "" {
		l := acquire(t, path, false)
		os.Stdout.WriteString("held\n")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed: where all goroutines sleep for ever the program would end by itself
		runtime.KeepAlive(l)
		return
	}
	path := filepath.Join(t.TempDir(), "file")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "LOCKFILE_TEST="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		_, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := lockfile.Acquire(path, false); !errors.Is(err, lockfile.ErrHeld) {
		t.Errorf("another process has it: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	acquire(t, path, false).Release()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
