package calib_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// A pattern in the place of a file stands for the samples of all files, in the order of their names.
func TestNPZFiles(t *testing.T) {
	dir := folder(t, map[string]string{
		"b.npz":       npz(t, map[string]string{"x.npy": npy("|u1", "1, 2", "\x05\x06")}),
		"a.npz":       npz(t, map[string]string{"x.npy": npy("|u1", "2, 2", "\x01\x02\x03\x04")}),
		"recipe.yaml": "kind: npz\nfile: '*.npz'\n", "none.yaml": "kind: npz\nfile: 'c*.npz'\n",
		"flat.yaml": "kind: npz\nfile: a.npz\n",
	})
	in := tensor.Spec{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: 1}, {Size: 2}}}
	r, err := calib.Open(filepath.Join(dir, "recipe.yaml"), []tensor.Spec{in}, calib.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Len() != 3 {
		t.Fatalf("%d samples, want 3", r.Len())
	}
	for _, i := range []int{2, 0, 1} { // in any order
		s, err := r.Sample(i)
		if err != nil {
			t.Fatal(err)
		}
		v, err := tensor.View[float32](s.Inputs["x"])
		if err != nil || len(v) != 2 || v[0] != float32(2*i+1) || v[1] != float32(2*i+2) {
			t.Errorf("sample %d is %v, %v", i, v, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Sample(1); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "*.npz") {
		t.Errorf("sampled after it was closed: %v", err)
	}
	if some, err := calib.Open(filepath.Join(dir, "recipe.yaml"), []tensor.Spec{in}, calib.Options{Limit: 2}); err != nil || some.Len() != 2 {
		t.Errorf("limited: %v", err)
	}
	if _, err := calib.Open(filepath.Join(dir, "none.yaml"), []tensor.Spec{in}, calib.Options{}); err == nil || !strings.Contains(err.Error(), "matches no file") {
		t.Errorf("no file: %v", err)
	}
	// Data of the right number of values and another shape: the error is the line to add.
	in.Shape = append(in.Shape, tensor.Dim{Size: 1})
	if _, err := calib.Open(filepath.Join(dir, "flat.yaml"), []tensor.Spec{in}, calib.Options{}); err == nil || !strings.Contains(err.Error(), "add shape: [-1, 2, 1] to the recipe") {
		t.Errorf("another shape: %v", err)
	}
}

// Files that hold one sample each, without a dimension for samples: the error is the line that makes them fit.
func TestNPZFileOfOneSample(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.npz":      npz(t, map[string]string{"x.npy": npy("|u1", "4,", "\x01\x02\x03\x04")}),
		"b.npz":      npz(t, map[string]string{"x.npy": npy("|u1", "4,", "\x05\x06\x07\x08")}),
		"plain.yaml": "kind: npz\nfile: '*.npz'\n",
		"shape.yaml": "kind: npz\nfile: '*.npz'\nshape: [-1, 2, 2]\n",
		"three.yaml": "kind: npz\nfile: '*.npz'\nshape: [-1, 3]\n",
	})
	in := []tensor.Spec{{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1}, {Size: 2}, {Size: 2}}}}
	if _, err := calib.Open(filepath.Join(dir, "plain.yaml"), in, calib.Options{}); err == nil || !strings.Contains(err.Error(), "one sample, add shape: [-1, 2, 2] to the recipe") {
		t.Errorf("without a shape: %v", err)
	}
	if _, err := calib.Open(filepath.Join(dir, "three.yaml"), in, calib.Options{}); err == nil {
		t.Error("a shape that does not fit was taken")
	}
	r, err := calib.Open(filepath.Join(dir, "shape.yaml"), in, calib.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Len() != 2 {
		t.Fatalf("%d samples, want 2", r.Len())
	}
	s, err := r.Sample(1)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := tensor.View[float32](s.Inputs["x"]); err != nil || len(v) != 4 || v[0] != 5 || v[3] != 8 {
		t.Errorf("sample 1 is %v, %v", v, err)
	}
	if _, err := calib.ReadRecipe(dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder for a recipe: %v", err)
	}
}
