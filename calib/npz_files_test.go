package calib_test

import (
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
	defer r.Close()
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
