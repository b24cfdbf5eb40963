package models

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/onnx"
)

//go:embed data
var stored embed.FS

// Names of the stored files, in the folder data and wherever they are written.
const (
	fileModel       = "digits.onnx"
	fileRecord      = "digits.json"
	fileTest        = "digits.yaml"
	fileTestImages  = "digits-images-idx3-ubyte.gz"
	fileTestLabels  = "digits-labels-idx1-ubyte.gz"
	fileCalib       = "digits_calib.yaml"
	fileCalibImages = "digits_calib-images-idx3-ubyte.gz"
	fileCalibLabels = "digits_calib-labels-idx1-ubyte.gz"
)

// A Record is what is known of the stored model.
type Record struct {
	TestImages int `json:"test_images"`
	Correct    int `json:"correct"` // of the test images, by the float model
}

// QuickstartFiles are the paths of what [WriteQuickstart] wrote.
type QuickstartFiles struct {
	Model string // the float model, ONNX
	Data  string // the recipe of the held-out images
	Calib string // the recipe of the images to calibrate with
}

// WriteQuickstart writes the digits classifier, its held-out and its calibration data with their recipes into dir,
// which it makes if needed. Files that are there already are left alone when they are the same; it fails if one differs.
func WriteQuickstart(dir string) (QuickstartFiles, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return QuickstartFiles{}, fmt.Errorf("models: %w", err)
	}
	for _, name := range []string{
		fileModel, fileTest, fileTestImages, fileTestLabels, fileCalib, fileCalibImages, fileCalibLabels,
	} {
		content, err := stored.ReadFile("data/" + name)
		if err != nil {
			return QuickstartFiles{}, fmt.Errorf("models: %w", err)
		}
		if err := writeNew(filepath.Join(dir, name), content); err != nil {
			return QuickstartFiles{}, err
		}
	}
	return QuickstartFiles{
		Model: filepath.Join(dir, fileModel),
		Data:  filepath.Join(dir, fileTest),
		Calib: filepath.Join(dir, fileCalib),
	}, nil
}

// writeNew writes a file that is not there, or is there with this very content.
func writeNew(path string, content []byte) error {
	// Whole or not at all, as a half-written file would be in the way of the next attempt.
	err := atomicfile.WriteNew(path, 0o644, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
	var old []byte
	if errors.Is(err, fs.ErrExist) {
		old, err = os.ReadFile(path)
		if err == nil && !bytes.Equal(old, content) {
			return fmt.Errorf("models: %s exists and is something else; remove it or choose another folder", path)
		}
	}
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	return nil
}

// Stored loads the stored classifier and what is recorded of it.
func Stored() (*MLP, Record, error) {
	raw, err := stored.ReadFile("data/" + fileModel)
	if err != nil {
		return nil, Record{}, fmt.Errorf("models: %w", err)
	}
	model, err := onnx.Parse(raw)
	if err != nil {
		return nil, Record{}, fmt.Errorf("models: the stored model: %w", err)
	}
	m, err := fromONNX(model)
	if err != nil {
		return nil, Record{}, err
	}
	var record Record
	if raw, err = stored.ReadFile("data/" + fileRecord); err == nil {
		err = json.Unmarshal(raw, &record)
	}
	if err != nil {
		return nil, Record{}, fmt.Errorf("models: the record of the stored model: %w", err)
	}
	return m, record, nil
}
