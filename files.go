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

// modelBytes returns the size of a model's file and of every file its tensors lie in.
func modelBytes(m *onnx.Model) (int64, error) {
	files := map[string]bool{m.Path(): true}
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		path, err := ref.Tensor.ExternalPath()
		if err != nil {
			return 0, fail(BadModel, err, "")
		}
		files[path] = true
	}
	var total int64
	for f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, fail(BadModel, fmt.Errorf("%s: external data: %w", m.Path(), err), "copy the external data next to the model")
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

// OutputPath returns the path to write: output, or where that is empty the input's name with a new ending. It fails early
// when something is there that may not be replaced.
func OutputPath(output, input, ending string, overwrite bool) (string, error) {
	if output == "" {
		// The folder of a mistyped input is not to be created.
		if _, err := os.Stat(input); err != nil {
			return "", fail(BadModel, fmt.Errorf("cannot open the model: %w", err), "check the path")
		}
		output = withEnding(input, ending)
	}
	if info, err := os.Stat(filepath.Dir(output)); err != nil || !info.IsDir() {
		return "", usage(fmt.Errorf("the folder of %s does not exist", output), "create it first")
	}
	if a, err := os.Stat(input); err == nil {
		if b, err := os.Stat(output); err == nil && os.SameFile(a, b) {
			return "", usage(fmt.Errorf("%s is the input itself", output), "models are never changed in place; choose another name")
		}
	}
	if info, err := os.Stat(output); err == nil && info.IsDir() {
		return "", usage(fmt.Errorf("%s is a folder", output), "name a file in it")
	} else if err == nil && !info.Mode().IsRegular() {
		// Renaming a file to its name would take the device or pipe away, from everybody.
		return "", usage(fmt.Errorf("%s is no regular file", output), "outputs are written under another name first, and cannot go to a device or pipe")
	} else if err == nil && !overwrite {
		return "", fmt.Errorf("%s: %w", output, fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", usage(err, "choose another name")
	}
	return output, nil
}
