// Package realpath makes paths safe to take apart. Package filepath cancels "link/.." without looking, where the system goes to
// the parent of what the link leads to: the folder of a file would be another one than that in which the file is opened.
package realpath

import (
	"os"
	"path/filepath"
	"strings"
)

// Of returns a path to the same file whose folder filepath gives rightly: path itself, unless cleaning it leads elsewhere.
func Of(path string) string {
	dir, name := filepath.Split(path)
	if !strings.Contains(dir, "..") {
		return path
	}
	real, err := os.Stat(dir)
	if err != nil {
		return path // opening it tells
	}
	if cleaned, err := os.Stat(filepath.Clean(dir)); err == nil && os.SameFile(real, cleaned) {
		return path
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return path
	}
	return filepath.Join(dir, name)
}

// Same tells whether two paths name one place, be a file there or not.
func Same(a, b string) bool {
	a, b = Of(a), Of(b)
	x, errX := os.Stat(filepath.Dir(a))
	y, errY := os.Stat(filepath.Dir(b))
	return errX == nil && errY == nil && os.SameFile(x, y) && filepath.Base(a) == filepath.Base(b)
}
