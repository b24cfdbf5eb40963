package cosetq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// pageSize is the size from which a tensor is worth a place of its own in the external file, where each starts on a new page.
const pageSize = 4096

// File is a file that was written.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// savedFiles lists what was saved, and its size in all.
func savedFiles(saved []onnx.SavedFile) (files []File, total int64) {
	for _, f := range saved {
		files = append(files, File(f))
		total += f.Bytes
	}
	return files, total
}

// OpenModel opens a model. Whatever keeps it from being read is a [BadModel].
func OpenModel(path string) (*onnx.Model, error) {
	m, err := onnx.Open(path)
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, fail(BadModel, err, "check the path")
	}
	return nil, fail(BadModel, err, "")
}

// checkModel makes it an error when a model is not well formed.
func checkModel(m *onnx.Model) error {
	problems := onnx.Check(m)
	if len(problems) == 0 {
		return nil
	}
	err := fmt.Errorf("%s: %w", m.Path(), problems[0])
	if more := len(problems) - 1; more > 0 {
		err = fmt.Errorf("%w (and %d more problems)", err, more)
	}
	return fail(BadModel, err, "the model is damaged or was edited wrongly; export it again")
}

// modelBytes returns the size of a model's file and of every file its tensors lie in.
func modelBytes(m *onnx.Model) (int64, error) {
	files := map[string]bool{m.Path(): true}
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		ext, err := ref.Tensor.External()
		if err != nil {
			return 0, fail(BadModel, err, "")
		}
		files[filepath.Join(filepath.Dir(m.Path()), ext.Location)] = true
	}
	var total int64
	for f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, fail(BadModel, err, "copy the external data next to the model")
		}
		total += info.Size()
	}
	return total, nil
}

// OutputPath returns the path to write: output, or where that is empty the input's name with a new ending. It fails early
// when something is there that may not be replaced.
func OutputPath(output, input, ending string, overwrite bool) (string, error) {
	if output == "" {
		output = strings.TrimSuffix(input, filepath.Ext(input)) + ending
	}
	if info, err := os.Stat(filepath.Dir(output)); err != nil || !info.IsDir() {
		return "", usage(fmt.Errorf("the folder of -o %s does not exist", output), "create it first")
	}
	if a, err := os.Stat(input); err == nil {
		if b, err := os.Stat(output); err == nil && os.SameFile(a, b) {
			return "", usage(fmt.Errorf("-o %s is the input itself", output), "models are never changed in place; choose another name")
		}
	}
	if info, err := os.Stat(output); err == nil && info.IsDir() {
		return "", usage(fmt.Errorf("-o %s is a folder", output), "name a file in it")
	} else if err == nil && !overwrite {
		return "", fmt.Errorf("%s: %w", output, fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", usage(err, "choose another -o")
	}
	return output, nil
}
