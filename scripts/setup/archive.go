package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// extract writes the first regular file of an archive that want accepts, by its path in the archive, to dst.
// Wheels are zip files; npm packages and releases are gzipped tar files.
func extract(archive, dst string, want func(path string) bool) error {
	if strings.HasSuffix(archive, ".whl") || strings.HasSuffix(archive, ".zip") {
		return extractZip(archive, dst, want)
	}
	return extractTar(archive, dst, want)
}

func extractZip(archive, dst string, want func(string) bool) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(archive), err)
	}
	defer z.Close()
	for _, entry := range z.File {
		if !entry.Mode().IsRegular() || !want(entry.Name) {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		return writeFile(dst, r)
	}
	return fmt.Errorf("%s holds no ONNX Runtime library", filepath.Base(archive))
}

func extractTar(archive, dst string, want func(string) bool) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(archive), err)
	}
	t := tar.NewReader(z)
	for {
		entry, err := t.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s holds no ONNX Runtime library", filepath.Base(archive))
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", filepath.Base(archive), err)
		}
		if entry.Typeflag == tar.TypeReg && want(entry.Name) {
			return writeFile(dst, t)
		}
	}
}

func writeFile(dst string, r io.Reader) (err error) {
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, r)
	return err
}
