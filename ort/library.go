package ort

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/internal/checkout"
)

// EnvLibrary names the environment variable that holds the path of the ONNX Runtime shared library.
const EnvLibrary = "COSETQ_ORT_LIBRARY"

// FindLibrary finds the ONNX Runtime shared library. It looks, in this order, at: the explicit path; the environment
// variable COSETQ_ORT_LIBRARY; beside the executable (its own folder, ../lib and ../build/ort, so that bin/cosetq of a
// checkout finds what `make setup` fetched); and, in programs that `go run` or `go test` starts, build/ort in the working
// directory and every folder above it. Others never load what lies where the user happens to work.
// What it finds is a file that exists; "libonnxruntime.so.1", last, is left to the system's loader to find.
// A path that was asked for, explicitly or by the variable, is never silently replaced by another.
func FindLibrary(explicit string) (path string, err error) {
	for _, asked := range []struct{ path, from string }{
		{explicit, "the path given for the ONNX Runtime library"},
		{os.Getenv(EnvLibrary), EnvLibrary},
	} {
		if asked.path == "" {
			continue
		}
		if info, err := os.Stat(asked.path); err != nil {
			return "", fmt.Errorf("%w: %s: %v; name a libonnxruntime.so of version %s or later, or leave it unset after `make setup`",
				ErrUnavailable, asked.from, err, MinVersion)
		} else if info.IsDir() {
			return "", fmt.Errorf("%w: %s: %s is a folder; name the file libonnxruntime.so in it", ErrUnavailable, asked.from, asked.path)
		}
		return filepath.Abs(asked.path)
	}
	for _, dir := range searchFolders() {
		if found := inFolder(dir); found != "" {
			return found, nil
		}
	}
	return systemLibrary, nil
}

// systemLibrary is the name under which distributions install ONNX Runtime.
const systemLibrary = "libonnxruntime.so.1"

// notFound is the error for when even the system's loader knows no library.
func notFound(loader error) error {
	return fmt.Errorf("%w: no libonnxruntime.so in %s, and the system's loader says: %v; run `make setup` in the checkout, or set %s to the file",
		ErrUnavailable, strings.Join(searchFolders(), ", "), loader, EnvLibrary)
}

// searchFolders lists the folders to look in, without repetition.
func searchFolders() []string {
	var dirs []string
	add := func(dir string) {
		if dir = filepath.Clean(dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	bin := filepath.Dir(exe)
	add(bin)
	add(filepath.Join(bin, "..", "lib"))
	add(filepath.Join(bin, "..", "build", "ort"))
	if dir, err := os.Getwd(); err == nil {
		for _, folder := range checkout.Folders(exe, dir) {
			add(filepath.Join(folder, "build", "ort"))
		}
	}
	return dirs
}

// inFolder prefers the plain name over versioned ones, and among those the last in order.
func inFolder(dir string) string {
	plain := filepath.Join(dir, "libonnxruntime.so")
	if info, err := os.Stat(plain); err == nil && !info.IsDir() {
		return plain
	}
	versioned, err := filepath.Glob(plain + ".*")
	if err != nil || len(versioned) == 0 {
		return ""
	}
	return versioned[len(versioned)-1]
}
