// Package atomicfile writes files that appear under their names complete or not at all, whatever fails or is killed meanwhile.
//
// A file is written under a temporary name, flushed to the disk and renamed; then its folder is flushed, since a power cut could take
// the new name otherwise. What a killed process leaves is hidden and called .NAME.NUMBER.tmp. A symbolic link with the name is replaced,
// not followed, and a file is replaced with its mode.
package atomicfile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Write writes the file at path in the place of any that is there. Its mode is perm less the umask. When write fails, nothing has
// changed and the error wraps that of write.
func Write(path string, perm fs.FileMode, write func(*os.File) error) error {
	return through(folder(path), path, perm, write, os.Rename)
}

// WriteIn is [Write] with the temporary file in another folder of the same file system: one that goes as a whole once a killed process
// is done with.
func WriteIn(dir, path string, perm fs.FileMode, write func(*os.File) error) error {
	return through(cmp.Or(dir, ".")+string(filepath.Separator), path, perm, write, os.Rename)
}

// WriteNew is [Write] for a file that is not there. The error wraps fs.ErrExist when one is: before write is called, or after it if
// somebody was faster. Of several that write at once, one wins.
func WriteNew(path string, perm fs.FileMode, write func(*os.File) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write %s: %w", path, fs.ErrExist)
	}
	return through(folder(path), path, perm, write, link)
}

// Check makes sure that the folder of path takes files: it is for callers that have hours of work to do before they write.
func Check(path string) error {
	f, err := temporary(folder(path), path, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Place gives f, just written on the same file system, the name path, unless err says that writing it failed. It closes f, and removes
// it if it does not get the name. It is for callers that need a temporary name of their own; the others use [Write].
func Place(f *os.File, path string, err error) error {
	if err = settle(f, path, err, os.Rename); err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// SyncDir makes new names in a folder durable, where the system can.
func SyncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// folder is the part of path in front of the name. Unlike filepath.Dir it leaves it to the system where "link/.." leads.
func folder(path string) string {
	dir, _ := filepath.Split(path)
	return cmp.Or(dir, "."+string(filepath.Separator))
}

// maxTempName bounds what a temporary name takes of the file's own, which may be as long as file systems allow.
const maxTempName = 200

// through writes a temporary file in dir, which ends in a separator, and has rename give it its name.
func through(dir, path string, perm fs.FileMode, write func(*os.File) error, rename func(tmp, path string) error) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return fmt.Errorf("write %s: a folder has that name, choose another: %w", path, fs.ErrExist)
	}
	f, err := temporary(dir, path, perm)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone already if it was renamed
	defer f.Close()           // closed already unless write panics
	return settle(f, path, write(f), rename)
}

// temporary makes a file in dir, which ends in a separator, that is to become path.
func temporary(dir, path string, perm fs.FileMode) (*os.File, error) {
	name := filepath.Base(path)
	name = strings.ToValidUTF8(name[:min(len(name), maxTempName)], "")
	// Never a file that is there: somebody else may have put a link in the place of one.
	f, err := os.OpenFile(fmt.Sprintf("%s.%s.%016x.tmp", dir, name, rand.Uint64()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return f, nil
}

// settle flushes and closes what was written, unless err says that it is not whole, and has rename give it its name.
func settle(f *os.File, path string, err error, rename func(tmp, path string) error) error {
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	SyncDir(folder(path))
	return nil
}

// link gives a file a second name, which must not be taken.
func link(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil {
		return nil
	}
	if _, statErr := os.Lstat(path); errors.Is(err, fs.ErrExist) || !errors.Is(statErr, fs.ErrNotExist) {
		return fs.ErrExist
	}
	return os.Rename(tmp, path) // a file system without links
}
