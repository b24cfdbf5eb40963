// Package filestart tells what a file is by the bytes that it starts with.
package filestart

import (
	"io"

	"github.com/cosetq/cosetq/internal/regularfile"
)

// Is reports whether the file at path is a regular one that starts with the given bytes. Files that cannot be read do not.
func Is(path, start string) bool {
	f, err := regularfile.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(start))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == start
}
