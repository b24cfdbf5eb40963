package calib

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"

	"github.com/cosetq/cosetq/internal/regularfile"
)

// Of a data file larger than dataWhole bytes, dataBlocks blocks of dataBlock bytes, spread evenly with the first and the last
// included, go into the fingerprint of the data: a run on a few windows of a corpus is not to read all of it first.
const (
	dataWhole  = 1 << 20
	dataBlocks = 64
	dataBlock  = 1 << 14
)

// dataPrefix names the rule, so that another one can never give the same text.
const dataPrefix = "cqd1:"

// FingerprintData identifies the data of the recipe at path: a hash over the text of the recipe and, of each file that it names, the
// size and the content, or a sample of the content of a large one. Of pictures, only the first limit count, unless that is 0.
func FingerprintData(path string, limit int) (string, error) {
	r, err := ReadRecipe(path)
	if err != nil {
		return "", err
	}
	files, err := r.files(limit)
	if err != nil {
		return "", err
	}
	f := &fingerprint{hash: sha256.New()}
	for _, file := range append([]string{path}, files...) {
		if err := f.file(file); err != nil {
			return "", r.fail("", "cannot be read in full: %w", err)
		}
	}
	return dataPrefix + hex.EncodeToString(f.hash.Sum(nil)), nil
}

// files lists what the recipe names, in the order in which it is read.
func (r *Recipe) files(limit int) ([]string, error) {
	switch r.Kind {
	case "idx":
		files := []string{r.resolve(r.Images)}
		if r.Labels != "" {
			files = append(files, r.resolve(r.Labels))
		}
		return files, nil
	case "images":
		files, _, err := r.pictures()
		files = files[:limited(int64(len(files)), Options{Limit: limit})]
		if r.Labels != "" {
			files = append(files, r.resolve(r.Labels))
		}
		return files, err
	}
	if r.Kind == "npz" && r.isPattern() {
		return filepath.Glob(r.resolve(r.File))
	}
	return []string{r.resolve(r.File)}, nil
}

// file hashes the size and the content of a file, or a sample of it.
func (f *fingerprint) file(path string) (err error) {
	file, err := regularfile.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	f.number(size)
	if size <= dataWhole {
		_, err = io.Copy(f.hash, file)
		return err
	}
	for i := range int64(dataBlocks) {
		at := i * (size - dataBlock) / (dataBlocks - 1)
		if _, err := io.Copy(f.hash, io.NewSectionReader(file, at, dataBlock)); err != nil {
			return err
		}
	}
	return nil
}
