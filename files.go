package cosetq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosetq/cosetq/internal/filestart"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// pageSize is the size from which a tensor is worth a place of its own in the external file, where each starts on a new page.
const pageSize = rewrite.ExternalThreshold

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
	case errors.Is(err, fs.ErrPermission):
		return nil, fail(BadModel, err, "you may not read it: change its permissions, or ask its owner")
	case !isRegular(path):
		return nil, fail(BadModel, err, "name the file of a model: folders and pipes cannot be mapped into memory")
	case filestart.Is(path, pointerStart):
		return nil, fail(BadModel, fmt.Errorf("%s holds no model, but a pointer of Git LFS to one", path), "fetch the model itself, as with `git lfs pull`")
	}
	return nil, fail(BadModel, err, "")
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// pointerStart is how the file starts that Git LFS leaves in the place of a large one.
const pointerStart = "version https://git-lfs.github.com/"

// checkModel makes it an error when a model is not well formed.
func checkModel(m *onnx.Model) error {
	problems := onnx.Check(m)
	if len(problems) == 0 {
		return nil
	}
	err := fmt.Errorf("%s: %w", m.Path(), problems[0])
	switch more := len(problems) - 1; {
	case more == 1:
		err = fmt.Errorf("%w (and one more problem)", err)
	case more > 1:
		err = fmt.Errorf("%w (and %d more problems)", err, more)
	}
	hint := "the model is damaged or was edited wrongly; export it again"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "copy the external data next to the model, under the name it had"
	case errors.Is(err, onnx.ErrLocation):
		hint = "save the model again with its data in its own folder"
	}
	return fail(BadModel, err, "%s", hint)
}

// checkQuantizable makes it an error when a model is not well formed, or cannot be rewritten.
func checkQuantizable(m *onnx.Model) error {
	err := checkModel(m)
	if err != nil {
		return err
	}
	if err = rewrite.Supports(m); err == nil {
		return nil
	}
	hint := "quantize the float model again"
	if errors.Is(err, rewrite.ErrOpset) {
		hint = "export the model again, or convert it, as onnx.version_converter in Python does"
	}
	return fail(BadModel, fmt.Errorf("%s: %w", m.Path(), err), "%s", hint)
}

// externalFiles lists the files that tensors of a model lie in. With the error of a malformed entry come those of all others.
func externalFiles(m *onnx.Model) (files []string, err error) {
	seen := map[string]bool{}
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		path, refErr := ref.Tensor.ExternalPath()
		if refErr != nil {
			err = fail(BadModel, refErr, "")
		} else if !seen[path] {
			seen[path] = true
			files = append(files, path)
		}
	}
	return files, err
}

// modelBytes returns the size of a model's file and of every file its tensors lie in.
func modelBytes(m *onnx.Model) (int64, error) {
	files, err := externalFiles(m)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, f := range append(files, m.Path()) {
		info, err := os.Stat(f)
		if err != nil {
			return 0, fail(BadModel, fmt.Errorf("%s: external data: %w", m.Path(), err), "copy the external data next to the model, under the name it had")
		}
		total += info.Size()
	}
	return total, nil
}

// tempDir makes a folder for a while.
func tempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", fmt.Errorf("make a temporary folder where TMPDIR says: %w", err)
	}
	return dir, nil
}

// withEnding gives a path another ending.
func withEnding(path, ending string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ending
}
