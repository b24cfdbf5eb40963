package cosetq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/realpath"
	"github.com/cosetq/cosetq/onnx"
)

// Reads are the files that a run reads. None of them makes way for an output, whatever may be overwritten.
type Reads struct {
	Models []string // and the files that their external data lies in
	Data   []string // recipes of data, and the files that they name; random:N and "" name none
	Files  []string // others, as statistics; "" is none
}

// readFile is one of them, with what it is to the run.
type readFile struct{ path, what string }

// files lists them. What cannot be found is left out: the run tells of it where it reads it.
func (r Reads) files() (list []readFile) {
	for _, path := range r.Models {
		list = append(list, readFile{path, "the input itself"})
		m, err := onnx.Open(path)
		if err != nil {
			continue
		}
		for _, f := range externalFiles(m) {
			list = append(list, readFile{f, "where the weights of " + path + " lie"})
		}
		_ = m.Close()
	}
	for _, path := range r.Data {
		recipe, err := calib.ReadRecipe(path)
		if err != nil {
			continue
		}
		list = append(list, readFile{path, "the data recipe of this run"})
		for _, f := range recipe.Files() {
			list = append(list, readFile{f, "data that " + path + " names"})
		}
	}
	for _, path := range r.Files {
		list = append(list, readFile{path, "read by this run"})
	}
	return list
}

// protect makes it an error when an output would take the place of a file that is read.
func (r Reads) protect(outputs ...string) error {
	var files []readFile
	for _, output := range outputs {
		there, err := os.Stat(output)
		if err != nil {
			continue // no file, or none that could be read
		}
		if files == nil {
			files = r.files()
		}
		for _, f := range files {
			if read, err := os.Stat(f.path); err == nil && os.SameFile(there, read) {
				return usage(fmt.Errorf("%s is %s", output, f.what), "what a run reads it never replaces: choose another name")
			}
		}
	}
	return nil
}

// dataEnding is what the file with the weights of an output adds to its name.
const dataEnding = ".data"

// OutputPath returns the path to write: output, or where that is empty the first model's name with a new ending. It fails early
// when a file that is read is there, or where a file beside the output goes, whose name adds one of the endings besides; another
// file at the path itself takes overwrite.
func OutputPath(output string, reads Reads, ending string, overwrite bool, besides ...string) (string, error) {
	if output == "" {
		input := reads.Models[0]
		// The folder of a mistyped input is not to be created.
		if _, err := os.Stat(input); err != nil {
			return "", fail(BadModel, fmt.Errorf("cannot open the model: %w", err), "check the path")
		}
		output = withEnding(input, ending)
	}
	output = realpath.Of(output)
	if info, err := os.Stat(filepath.Dir(output)); err != nil || !info.IsDir() {
		return "", usage(fmt.Errorf("the folder of %s does not exist", output), "create it first")
	}
	places := []string{output}
	for _, b := range besides {
		places = append(places, output+b)
	}
	if err := reads.protect(places...); err != nil {
		return "", err
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
