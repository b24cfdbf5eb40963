package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// modelBytes returns the size of a model's file and of every file its tensors lie in.
func modelBytes(m *onnx.Model) (int64, error) {
	files := map[string]bool{m.Path(): true}
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		ext, err := ref.Tensor.External()
		if err != nil {
			return 0, withCode(exitModel, err, "")
		}
		files[filepath.Join(filepath.Dir(m.Path()), ext.Location)] = true
	}
	var total int64
	for f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, withCode(exitModel, err, "copy the external data next to the model")
		}
		total += info.Size()
	}
	return total, nil
}

// outputPath returns the path to write: the flag, or the input's name with a new ending. It fails early when something is there.
func outputPath(flag, input, ending string, force bool) (string, error) {
	out := flag
	if out == "" {
		out = strings.TrimSuffix(input, filepath.Ext(input)) + ending
	}
	if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
		return "", usage(fmt.Errorf("the folder of -o %s does not exist", out), "create it first")
	}
	if a, err := os.Stat(input); err == nil {
		if b, err := os.Stat(out); err == nil && os.SameFile(a, b) {
			return "", usage(fmt.Errorf("-o %s is the input itself", out), "models are never changed in place; choose another name")
		}
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		return "", usage(fmt.Errorf("-o %s is a folder", out), "name a file in it")
	} else if err == nil && !force {
		return "", fmt.Errorf("%s: %w", out, fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", usage(err, "choose another -o")
	}
	return out, nil
}

// fileReport is a written file.
type fileReport struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func fileReports(saved []onnx.SavedFile) (reports []fileReport, total int64) {
	for _, f := range saved {
		reports = append(reports, fileReport(f))
		total += f.Bytes
	}
	return reports, total
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
