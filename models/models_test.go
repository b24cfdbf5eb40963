package models

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

func storedFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := stored.ReadFile("data/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func storedDigits(t *testing.T, stem string) Digits {
	t.Helper()
	d, err := decodeDigits(storedFile(t, stem+"-images-idx3-ubyte.gz"), storedFile(t, stem+"-labels-idx1-ubyte.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The stored data sets are what the code draws. They are compared unpacked: how well gzip packs may change with the
// version of Go.
func TestStoredData(t *testing.T) {
	if testing.Short() {
		t.Skip("draws thousands of images; the tests of the training draw some")
	}
	for _, part := range []struct {
		stem string
		draw func() (Digits, error)
		n    int
	}{{"digits", TestSet, TestImages}, {"digits_calib", CalibSet, CalibImages}} {
		t.Run(part.stem, func(t *testing.T) {
			want, err := part.draw()
			if err != nil {
				t.Fatal(err)
			}
			got := storedDigits(t, part.stem)
			if got.Len() != part.n || !bytes.Equal(got.Images, want.Images) || !bytes.Equal(got.Labels, want.Labels) {
				t.Error("the stored data set is not what the code draws; run `go generate ./models`")
			}
		})
	}
	drawn, err := drawnFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fileTest, fileCalib} {
		if !bytes.Equal(drawn[name], storedFile(t, name)) {
			t.Errorf("%s is not what the code writes; run `go generate ./models`", name)
		}
	}
}

func TestStoredModel(t *testing.T) {
	m, record, err := Stored()
	if err != nil {
		t.Fatal(err)
	}
	test := storedDigits(t, "digits")
	if testing.Short() {
		t.Log("-short: the accuracy is not counted again")
	} else if got := m.Correct(test); got != record.Correct || test.Len() != record.TestImages {
		t.Errorf("%d of %d right, recorded are %d of %d", got, test.Len(), record.Correct, record.TestImages)
	}
	if share := float64(record.Correct) / float64(record.TestImages); share < 0.97 || share > 0.995 {
		t.Errorf("accuracy %.4f: too low to be useful or too high to show a loss", share)
	}
	again, err := m.ONNX().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, storedFile(t, fileModel)) {
		t.Error("the stored weights, written again, make another file; run `go generate ./models`")
	}
	model, err := onnx.Parse(again)
	if err != nil {
		t.Fatal(err)
	}
	if err := onnx.Check(model); err != nil {
		t.Error(err)
	}
}

func TestFilesAreSmall(t *testing.T) {
	entries, err := os.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= 1<<20 {
			t.Errorf("%s has %d bytes, not less than a MiB", e.Name(), info.Size())
		}
	}
}

// Every digit comes up about equally often, and no image is in two parts.
func TestDigitsAreBalanced(t *testing.T) {
	test, calib := storedDigits(t, "digits"), storedDigits(t, "digits_calib")
	var count [classes]int
	for _, label := range test.Labels {
		count[label]++
	}
	for digit, n := range count {
		if n < TestImages/classes*3/4 || n > TestImages/classes*5/4 {
			t.Errorf("digit %d comes up %d times of %d", digit, n, TestImages)
		}
	}
	seen := make(map[string]bool)
	for i := range test.Len() {
		seen[string(test.Image(i))] = true
	}
	for i := range calib.Len() {
		if seen[string(calib.Image(i))] {
			t.Errorf("calibration image %d is a test image", i)
		}
	}
	if len(seen) != test.Len() {
		t.Errorf("only %d of %d test images are distinct", len(seen), test.Len())
	}
}

func TestWriteQuickstart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	files, err := WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{files.Model, files.Data, files.Calib} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, storedFile(t, filepath.Base(path))) {
			t.Errorf("%s differs from the stored file", path)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if _, err := WriteQuickstart(dir); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := os.WriteFile(files.Calib, []byte("the user's own"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteQuickstart(dir); err == nil {
		t.Error("a file of the user was overwritten, or its presence not reported")
	}
	if got, _ := os.ReadFile(files.Calib); string(got) != "the user's own" {
		t.Errorf("the user's file now holds %.40q", got)
	}
}

// The training comes to the stored model, bit for bit.
func TestGenerateAgain(t *testing.T) {
	if !testenv.Slow() {
		t.Skip("trains for half a minute; set COSETQ_REQUIRE=slow")
	}
	dir := t.TempDir()
	if err := Generate(dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fileModel, fileRecord} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, storedFile(t, name)) {
			t.Errorf("%s came out differently", name)
		}
	}
}
