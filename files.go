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

// OpenModel opens a model, with the functions inlined that have layers in them ([rewrite.InlineLayers]) and products with batches of matrices
// taken apart ([rewrite.SplitBatches]); what is saved of it goes through [rewrite.JoinBatches] first. Whatever else keeps it from being read
// than a lack of memory is a [BadModel].
func OpenModel(path string) (*onnx.Model, error) {
	m, err := onnx.Open(path)
	switch {
	case err == nil:
		for _, s := range m.Scopes() {
			_ = s.Sort() // as ONNX Runtime does; of a cycle checkModel tells
		}
		rewrite.InlineLayers(m)
		rewrite.SplitBatches(m)
		return m, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, fail(BadModel, err, "check the path")
	case errors.Is(err, fs.ErrPermission):
		return nil, fail(BadModel, err, "you may not read it: change its permissions, or ask its owner")
	case outOf(err) != "":
		return nil, err
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
	return notWellFormed(m, onnx.Check(m))
}

// checkExternal makes it an error when external data of a model are not there, all of them. Of that ONNX Runtime says less.
func checkExternal(m *onnx.Model) error {
	var problems []*onnx.Problem
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		if p := ref.Check(); p != nil {
			problems = append(problems, p)
		}
	}
	return notWellFormed(m, problems)
}

// notWellFormed is the error of a model with problems, nil where there are none.
func notWellFormed(m *onnx.Model, problems []*onnx.Problem) error {
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
	hint := dataHint(err)
	if hint == "" {
		hint = "the model was edited wrongly or is damaged; export it again"
	}
	return fail(BadModel, err, "%s", hint)
}

// dataHint is what to do about data of a model that are not there or not to be had; "" for other errors.
func dataHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "copy the external data next to the model, under the name it had"
	case errors.Is(err, onnx.ErrLocation):
		return "save the model again with its data in its own folder"
	case errors.Is(err, onnx.ErrTensorSize):
		return "copy the model again, with all of its data, or export it again"
	}
	return ""
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

// externalFiles lists the files that tensors of a model lie in, but for entries that are malformed.
func externalFiles(m *onnx.Model) (files []string) {
	seen := map[string]bool{}
	for ref := range m.Tensors() {
		if !ref.Tensor.IsExternal() {
			continue
		}
		if path, err := ref.Tensor.ExternalPath(); err == nil && !seen[path] {
			seen[path] = true
			files = append(files, path)
		}
	}
	return files
}

// modelBytes returns the size of a model's file and of every file its tensors lie in, and makes sure that they are all there.
func modelBytes(m *onnx.Model) (int64, error) {
	if err := checkExternal(m); err != nil {
		return 0, err
	}
	var total int64
	for _, f := range append(externalFiles(m), m.Path()) {
		info, err := os.Stat(f)
		if err != nil {
			return 0, fail(BadModel, err, "leave the files alone while they are in use, and run again")
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
