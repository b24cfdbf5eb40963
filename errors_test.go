package cosetq_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// Whatever goes wrong has a kind and says what to do.
func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want cosetq.Kind
	}{
		{errors.New("surprise"), cosetq.Internal},
		{&calib.RecipeError{Msg: "holds no samples"}, cosetq.Usage},
		{&rewrite.PatternError{Pattern: "x", Problem: "it matches nothing"}, cosetq.Usage},
		{fmt.Errorf("out.onnx: %w", fs.ErrExist), cosetq.Usage},
		{fmt.Errorf("%w: float16 given", ort.ErrInput), cosetq.Usage},
		{fmt.Errorf("%w: output probabilities: %w", ort.ErrRun, ort.ErrOutput), cosetq.BadModel},
		{onnx.ErrSameFile, cosetq.Usage},
		{onnx.ErrNotFile, cosetq.Usage},
		{&eval.FitError{Msg: "agreement compares models with the same outputs"}, cosetq.Usage},
		{fs.ErrPermission, cosetq.Usage},
		{&cosetq.Error{Kind: cosetq.Nothing, Err: errors.New("nothing")}, cosetq.Nothing},
		{&cosetq.Error{Kind: cosetq.Quality, Err: errors.New("too bad")}, cosetq.Quality},
		{fmt.Errorf("%w: no library", ort.ErrUnavailable), cosetq.Unavailable},
		{fmt.Errorf("write: %w", syscall.ENOSPC), cosetq.Resources},
		{fmt.Errorf("map: %w", syscall.ENOMEM), cosetq.Resources},
		{&fs.PathError{Op: "open", Path: "x.layer", Err: syscall.EMFILE}, cosetq.Resources},
		{&calib.RecipeError{Msg: "cannot be unpacked", Err: syscall.ENOSPC}, cosetq.Resources},
		{fmt.Errorf("quantize: %w", context.Canceled), cosetq.Interrupted},
		{fmt.Errorf("quantize: %w", context.DeadlineExceeded), cosetq.Interrupted},
	} {
		kind, hint := cosetq.Classify(tt.err)
		if kind != tt.want || hint == "" {
			t.Errorf("%v: kind %d, want %d; hint %q", tt.err, kind, tt.want, hint)
		}
	}
	if _, hint := cosetq.Classify(fmt.Errorf("%w: %w", ort.ErrRun, ort.ErrOutput)); !strings.Contains(hint, "zipmap") {
		t.Errorf("the hint of outputs that are no tensors is %q", hint)
	}
}

// Data is not blamed for a folder of temporary files that is missing.
func TestNoTemporaryFolder(t *testing.T) {
	files, err := models.WriteQuickstart(t.TempDir()) // whose images are compressed
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	_, err = calib.Open(files.Data, []tensor.Spec{{Name: "image", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1}, {Size: 784}}}}, calib.Options{})
	if kind, hint := cosetq.Classify(err); kind != cosetq.Usage || !strings.Contains(err.Error(), "TMPDIR") || !strings.Contains(hint, "TMPDIR") {
		t.Errorf("%v, kind %d, hint %q", err, kind, hint)
	}
}

// An error with a kind is still the error that it is about.
func TestErrorUnwraps(t *testing.T) {
	err := fmt.Errorf("quantize: %w", &cosetq.Error{Kind: cosetq.BadModel, Err: &fs.PathError{Op: "open", Path: "m.onnx", Err: syscall.ENOENT}})
	var path *fs.PathError
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &path) || path.Path != "m.onnx" {
		t.Errorf("%v hides what it wraps", err)
	}
}

// A model that this user may not read is neither damaged nor missing.
func TestUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(path); err == nil {
		_ = f.Close()
		t.Skip("this user may read everything")
	}
	_, err := cosetq.OpenModel(path)
	if kind, hint := cosetq.Classify(err); kind != cosetq.BadModel || !strings.Contains(hint, "permissions") {
		t.Errorf("%v: kind %d, hint %q", err, kind, hint)
	}
}
