package cudaops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// EnvLibrary names the environment variable that holds the path of the native library.
const EnvLibrary = "COSETQ_OPS_LIBRARY"

// buildFolder is where the build leaves the library, from the root of a checkout.
const buildFolder = "build/ops"

// NotFoundError says where the native library was looked for.
type NotFoundError struct {
	Tried []string // files, in the order they were tried
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("native library %s not found; run `make build` in a checkout (or `make setup` first), or set %s "+
		"to its path; tried:\n  %s", LibraryName, EnvLibrary, strings.Join(e.Tried, "\n  "))
}

// Is makes errors.Is(err, fs.ErrNotExist) hold.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// FindLibrary returns the path of the native library. An explicit path, or else the one in COSETQ_OPS_LIBRARY, is taken as
// it is and must exist. Without either, FindLibrary looks beside the executable (the same folder, ../build/ops, ../lib) and
// then for build/ops in the working directory and its parents. It fails with a *[NotFoundError].
func FindLibrary(explicit string) (string, error) {
	return finder{
		getenv:     os.Getenv,
		executable: os.Executable,
		getwd:      os.Getwd,
	}.find(explicit)
}

// finder holds what the search depends on, so that a test can replace it.
type finder struct {
	getenv     func(string) string
	executable func() (string, error)
	getwd      func() (string, error)
}

func (f finder) find(explicit string) (string, error) {
	if explicit != "" {
		return existing(explicit, "")
	}
	if path := f.getenv(EnvLibrary); path != "" {
		return existing(path, EnvLibrary+": ")
	}
	notFound := &NotFoundError{}
	for _, path := range f.candidates() {
		if isFile(path) {
			return path, nil
		}
		notFound.Tried = append(notFound.Tried, path)
	}
	return "", notFound
}

func (f finder) candidates() []string {
	var paths []string
	if exe, err := f.executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(exe); err == nil {
			exe = resolved
		}
		dir := filepath.Dir(exe)
		paths = append(paths,
			filepath.Join(dir, LibraryName),
			filepath.Join(dir, "..", filepath.FromSlash(buildFolder), LibraryName),
			filepath.Join(dir, "..", "lib", LibraryName))
	}
	if dir, err := f.getwd(); err == nil {
		for {
			paths = append(paths, filepath.Join(dir, filepath.FromSlash(buildFolder), LibraryName))
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return paths
}

func existing(path, prefix string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil && errors.Is(err, fs.ErrNotExist):
		return "", &NotFoundError{Tried: []string{prefix + path}}
	case err != nil:
		return "", fmt.Errorf("native library: %s%w", prefix, err)
	case info.IsDir():
		return "", fmt.Errorf("native library: %s%s is a folder, want the file %s", prefix, path, LibraryName)
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
