// Package lockfile lets one process at a time, or several that agree, work on a file. The lock is the system's, and ends with the
// process: the hidden file .NAME.lock that it is on is removed when it is released, and one that a killed process leaves locks nothing.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrHeld says that another holds the lock, be it in this process or in another.
var ErrHeld = errors.New("another run is at work on it")

// maxName bounds what the name takes of that of the file, which may be as long as file systems allow.
const maxName = 200

// Lock is held until it is released.
type Lock struct{ file *os.File }

// Acquire locks the file at path, which need not be there, and does not wait: the error wraps ErrHeld when another has locked it. With
// shared, others may lock it with shared as well. Where the file system has no locks, or takes no file, there is none to hold, and no
// error: writing tells of the latter.
func Acquire(path string, shared bool) (*Lock, error) {
	name := filepath.Base(path)
	name = strings.ToValidUTF8(name[:min(len(name), maxName)], "")
	name = filepath.Join(filepath.Dir(path), "."+name+".lock")
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return &Lock{}, nil
		}
		held, err := lock(f, shared)
		switch {
		case held:
			return nil, errors.Join(fmt.Errorf("%s: %w", path, ErrHeld), f.Close())
		case err != nil:
			_, _ = f.Close(), os.Remove(name)
			return &Lock{}, nil
		case isAt(f, name):
			return &Lock{f}, nil
		}
		_ = f.Close() // the one before removed the file between the two steps
	}
}

// Release gives the lock up, and removes its file unless others share it.
func (l *Lock) Release() {
	if l.file == nil {
		return
	}
	if held, err := lock(l.file, false); !held && err == nil && isAt(l.file, l.file.Name()) {
		_ = os.Remove(l.file.Name()) // while it is locked: whoever opened it meanwhile finds that it is gone
	}
	_ = l.file.Close()
	l.file = nil
}

func isAt(f *os.File, name string) bool {
	own, err := f.Stat()
	there, thereErr := os.Lstat(name)
	return err == nil && thereErr == nil && os.SameFile(own, there)
}
