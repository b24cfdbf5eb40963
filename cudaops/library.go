package cudaops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosetq/cosetq/internal/checkout"
)

// EnvLibrary and EnvCUDALibrary name the environment variables that hold the paths of the native libraries.
const (
	EnvLibrary     = "COSETQ_OPS_LIBRARY"
	EnvCUDALibrary = "COSETQ_CUDA_LIBRARY"
)

// buildFolder is where the build leaves the library, from the root of a checkout.
const buildFolder = "build/ops"

// NotFoundError says where a native library was looked for.
type NotFoundError struct {
	Library  string   // its file name
	Variable string   // of the environment, that may name it
	Build    string   // the command that builds it
	Tried    []string // files, in the order they were tried
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("native library %s not found; run `%s` in a checkout, after `make setup`, or set %s "+
		"to its path; tried:\n  %s", e.Library, e.Build, e.Variable, strings.Join(e.Tried, "\n  "))
}

// Is makes errors.Is(err, fs.ErrNotExist) hold.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// FindLibrary returns the path of the native library. An explicit path, or else the one in COSETQ_OPS_LIBRARY, is taken as
// it is and must exist. Without either, FindLibrary looks beside the executable: in the same folder, ../build/ops and ../lib.
// Programs that `go run` or `go test` starts look for build/ops in the working directory and its parents as well; others
// never load what lies where the user happens to work. It fails with a *[NotFoundError].
func FindLibrary(explicit string) (string, error) {
	return newFinder(LibraryName, EnvLibrary, "make build").find(explicit)
}

// FindCUDALibrary returns the path of the library of GPU kernels, looked for as [FindLibrary] does with COSETQ_CUDA_LIBRARY.
func FindCUDALibrary(explicit string) (string, error) {
	return newFinder(CUDALibraryName, EnvCUDALibrary, "make cuda").find(explicit)
}

// finder looks for one library, and holds what the search depends on, so that a test can replace it.
type finder struct {
	library, variable, build string

	getenv     func(string) string
	executable func() (string, error)
	getwd      func() (string, error)
}

func newFinder(library, variable, build string) finder {
	return finder{library, variable, build, os.Getenv, os.Executable, os.Getwd}
}

func (f finder) find(explicit string) (string, error) {
	if explicit != "" {
		return f.existing(explicit, "")
	}
	if path := f.getenv(f.variable); path != "" {
		return f.existing(path, f.variable+": ")
	}
	notFound := f.notFound()
	for _, path := range f.candidates() {
		if isFile(path) {
			return path, nil
		}
		notFound.Tried = append(notFound.Tried, path)
	}
	return "", notFound
}

func (f finder) notFound(tried ...string) *NotFoundError {
	return &NotFoundError{Library: f.library, Variable: f.variable, Build: f.build, Tried: tried}
}

func (f finder) candidates() []string {
	exe, err := f.executable()
	if err != nil {
		return nil
	}
	if resolved, err := filepath.EvalSymlinks(exe); err == nil {
		exe = resolved
	}
	dir := filepath.Dir(exe)
	paths := []string{
		filepath.Join(dir, f.library),
		filepath.Join(dir, "..", filepath.FromSlash(buildFolder), f.library),
		filepath.Join(dir, "..", "lib", f.library),
	}
	if dir, err := f.getwd(); err == nil {
		for _, folder := range checkout.Folders(exe, dir) {
			paths = append(paths, filepath.Join(folder, filepath.FromSlash(buildFolder), f.library))
		}
	}
	return paths
}

func (f finder) existing(path, prefix string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil && errors.Is(err, fs.ErrNotExist):
		return "", f.notFound(prefix + path)
	case err != nil:
		return "", fmt.Errorf("native library: %s%w", prefix, err)
	case info.IsDir():
		return "", fmt.Errorf("native library: %s%s is a folder, want the file %s", prefix, path, f.library)
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
