// Package regularfile opens files that are read.
package regularfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// ErrNot says that a path is that of a folder, a device or a pipe.
var ErrNot = errors.New("not a regular file")

// Open opens a regular file to read it. The error wraps [ErrNot] when something else is there.
func Open(path string) (*os.File, error) {
	// Looked at before it is opened: opening a named pipe would wait for a writer.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNot}
	}
	return os.Open(path)
}

// Read is os.ReadFile of a regular file.
func Read(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
