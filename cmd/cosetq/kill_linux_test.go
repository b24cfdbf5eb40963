package main

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosetq/cosetq/onnx"
)

// A kill may leave the outputs, the journal and the lock alone, since a resumed run knows, and takes away, no other names: nothing
// else ever stands beside an output, however short. Of the lock nothing is left when a run ends.
func TestOutputsFolderHoldsNothingElse(t *testing.T) {
	root := t.TempDir()
	model, dir := filepath.Join(root, "m.onnx"), filepath.Join(root, "out")
	if err := save(model, mlp(128, 128, 128), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	want := []string{".q.onnx.lock", "q.onnx", "q.onnx.data", "q.onnx.journal", "q.recipe.yaml"}
	for _, flags := range [][]string{nil, {"--force"}} {
		watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(watch)
		if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			t.Fatal(err)
		}
		cmd, out := cosetqIn(dir, append([]string{"quantize", model, "-o", "q.onnx"}, flags...)...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := namesSeen(t, watch); !slices.Equal(got, want) {
			t.Errorf("quantize %v: the folder held %q, not %q", flags, got, want)
		}
		if _, err := os.Lstat(filepath.Join(dir, ".q.onnx.lock")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("quantize %v: the lock is left: %v", flags, err)
		}
	}
}

// namesSeen returns the names of all events that wait, sorted.
func namesSeen(t *testing.T, watch int) []string {
	t.Helper()
	names := map[string]bool{}
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(watch, buf)
		if err == unix.EAGAIN {
			return slices.Sorted(maps.Keys(names))
		}
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; { // an inotify_event, whose last field is the length of the name after it
			if binary.NativeEndian.Uint32(b[4:])&unix.IN_Q_OVERFLOW != 0 {
				t.Fatal("more events than the kernel keeps")
			}
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			names[strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")] = true
			b = b[end:]
		}
	}
}
