package atomicfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

// A file has its mode less the umask, whatever that of an older one was.
func TestMode(t *testing.T) {
	umask := syscall.Umask(0o027)
	t.Cleanup(func() { syscall.Umask(umask) })
	path := filepath.Join(t.TempDir(), "file")
	for _, tt := range []struct{ perm, want fs.FileMode }{{0o644, 0o640}, {0o755, 0o750}, {0o666, 0o640}} {
		if err := atomicfile.Write(path, tt.perm, content("new")); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != tt.want {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, tt.want)
		}
	}
}

// What does not reach the disk does not get the name. A pipe takes the place of the file, since a pipe cannot be flushed.
func TestSync(t *testing.T) {
	path := old(t)
	err := atomicfile.Write(path, 0o644, func(f *os.File) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		return syscall.Dup3(int(w.Fd()), int(f.Fd()), syscall.O_CLOEXEC)
	})
	if err == nil {
		t.Error("the file was not flushed before it got its name")
	}
	holds(t, path, "old")
}
