package models

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// recipe is a data recipe; its two arguments are the comment and the stem of the file names.
const recipe = `# %[1]s
kind: idx
images: %[2]s-images-idx3-ubyte.gz
labels: %[2]s-labels-idx1-ubyte.gz
pixel: {scale: 0.00392156862745098}
shape: [-1, 784]                     # of one batch; -1 is the batch
`

// drawnFiles are the stored files that follow from the drawing alone: data sets and recipes.
func drawnFiles() (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, part := range []struct {
		stem, comment string
		draw          func() (Digits, error)
	}{
		{"digits", "Held-out digits drawn from the Go fonts, 2000 of them.", TestSet},
		{"digits_calib", "Digits drawn from the Go fonts to calibrate with, 500 of them.", CalibSet},
	} {
		d, err := part.draw()
		if err != nil {
			return nil, err
		}
		if files[part.stem+"-images-idx3-ubyte.gz"], err = d.encodeImages(); err != nil {
			return nil, err
		}
		if files[part.stem+"-labels-idx1-ubyte.gz"], err = d.encodeLabels(); err != nil {
			return nil, err
		}
		files[part.stem+".yaml"] = fmt.Appendf(nil, recipe, part.comment, part.stem)
	}
	return files, nil
}

// trainedFiles are the model and its record.
func trainedFiles(m *MLP) (map[string][]byte, error) {
	model, err := m.ONNX().Marshal()
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	test, err := TestSet()
	if err != nil {
		return nil, err
	}
	record, err := json.MarshalIndent(Record{TestImages: test.Len(), Correct: m.Correct(test)}, "", "  ")
	if err != nil {
		return nil, err
	}
	return map[string][]byte{fileModel: model, fileRecord: append(record, '\n')}, nil
}

// Generate draws the data, trains the classifier and writes all stored files into dir. It takes about half a minute.
// progress is as in [Train].
func Generate(dir string, progress func(done, all int)) error {
	drawn, err := drawnFiles()
	if err != nil {
		return err
	}
	m, err := Train(progress)
	if err != nil {
		return err
	}
	trained, err := trainedFiles(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	for _, files := range []map[string][]byte{drawn, trained} {
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				return fmt.Errorf("models: %w", err)
			}
		}
	}
	return nil
}
