package cosetq_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

// A library that was left from other sources is not called, and whoever needs it is told to build it anew.
func TestStaleNativeLibrary(t *testing.T) {
	library := testenv.Ops(t)
	t.Setenv(cudaops.EnvLibrary, library)
	if _, err := cosetq.NativeLibrary(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	mine := []byte(cudaops.Interface())
	if !bytes.Contains(content, mine) {
		t.Fatal("the library does not hold its interface as text")
	}
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.so")
	if err := os.WriteFile(stale, bytes.ReplaceAll(content, mine, bytes.Repeat([]byte("0"), len(mine))), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cudaops.EnvLibrary, stale)
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cosetq.Calibrate(t.Context(), files.Model, files.Calib, cosetq.CalibrateOptions{})
	var known *cosetq.Error
	if !errors.As(err, &known) || known.Kind != cosetq.Unavailable || !strings.Contains(err.Error(), stale) || !strings.Contains(known.Hint, "make build") {
		t.Errorf("calibrating: %v", err)
	}
	if _, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: filepath.Join(dir, "q.onnx")}); err != nil {
		t.Errorf("quantizing, which needs no library: %v", err)
	}
}
