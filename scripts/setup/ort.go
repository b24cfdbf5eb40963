package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const libraryName = "libonnxruntime.so"

// fetcher puts versions of ONNX Runtime under the build folder.
type fetcher struct {
	build      string // the build folder
	goos, arch string // of this machine, as Go names them
	byHand     string // the SHA-256 that the user vouches for, of an archive or library placed by hand
	pins       pinTable
	log        io.Writer
}

// ensure leaves build/dir/libonnxruntime.so of the version in place, with its VERSION beside it.
func (f fetcher) ensure(version, dir string) error {
	if f.goos != "linux" || f.arch != "amd64" && f.arch != "arm64" {
		return fmt.Errorf("no ONNX Runtime is pinned for %s/%s, only for linux on amd64 and arm64; "+
			"install ONNX Runtime %s yourself and set COSETQ_ORT_LIBRARY to its shared library", f.goos, f.arch, version)
	}
	place := filepath.Join(f.build, dir)
	if f.inPlace(version, place) {
		return nil
	}
	// The library is moved into place by a rename, which needs the same file system as its destination.
	if err := os.MkdirAll(f.build, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(f.build, ".fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	found, err := f.placedByHand(version, tmp)
	if err != nil {
		return err
	}
	var failures []string
	for _, s := range sources {
		if found != nil || !f.pins.covers(version, f.arch, s.name) {
			continue
		}
		if found, err = f.fromSource(s, version, tmp); err != nil {
			failures = append(failures, s.name+": "+err.Error())
		}
	}
	if found == nil {
		return f.remedy(version, failures)
	}
	return f.install(*found, version, place)
}

// A library is one that was downloaded and whose sum is accepted.
type library struct{ path, sum, source string }

// inPlace tells whether an accepted library of the version is there already: a pinned one, or one that the user vouched
// for, whose sum was then written beside it.
func (f fetcher) inPlace(version, place string) bool {
	got, err := os.ReadFile(filepath.Join(place, "VERSION"))
	if err != nil || strings.TrimSpace(string(got)) != version {
		return false
	}
	sum, err := sumFile(filepath.Join(place, libraryName))
	if err != nil {
		return false
	}
	if _, ok := f.pins.accepts(version, f.arch, sum); ok {
		return true
	}
	accepted, err := os.ReadFile(filepath.Join(place, "SHA256"))
	return err == nil && strings.HasPrefix(string(accepted), sum)
}

func (f fetcher) fromSource(s source, version, tmp string) (*library, error) {
	dir := filepath.Join(tmp, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.download(dir, version, f.arch, f.log); err != nil {
		return nil, err
	}
	archives, err := filepath.Glob(filepath.Join(dir, "onnxruntime*"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("expected one downloaded archive, found %d", len(archives))
	}
	path := filepath.Join(dir, libraryName)
	if err := extract(archives[0], path, func(p string) bool { return s.member(p, f.arch) }); err != nil {
		return nil, err
	}
	sum, err := sumFile(path)
	if err != nil {
		return nil, err
	}
	if _, ok := f.pins.accepts(version, f.arch, sum); !ok {
		return nil, fmt.Errorf("the library in %s has the SHA-256 %s, which is not the pinned one; it is not used",
			filepath.Base(archives[0]), sum)
	}
	return &library{path, sum, s.name}, nil
}

// install puts the library where the tool looks for it. VERSION is written last: without it the folder does not count.
func (f fetcher) install(lib library, version, place string) error {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(place, "VERSION")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Chmod(lib.path, 0o755); err != nil {
		return err
	}
	path := filepath.Join(place, libraryName)
	if err := os.Rename(lib.path, path); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(place, "SHA256"), []byte(lib.sum+"  "+libraryName+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(place, "VERSION"), []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(f.log, "setup: ONNX Runtime %s (%s) is in %s\n", version, lib.source, path)
	return nil
}

func sumFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
