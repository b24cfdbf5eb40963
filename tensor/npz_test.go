package tensor_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/tensor"
)

func ExampleSaveNPZ() {
	dir, err := os.MkdirTemp("", "npz")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "x.npz")
	x := &tensor.Tensor{Type: tensor.Uint8, Shape: []int64{2, 3}, Data: []byte{0, 1, 2, 3, 4, 5}}
	if err := tensor.SaveNPZ(path, []tensor.Spec{{Name: "x"}}, map[string]*tensor.Tensor{"x": x}); err != nil {
		panic(err)
	}
	archive, err := zip.OpenReader(path)
	if err != nil {
		panic(err)
	}
	defer archive.Close()
	entry, err := archive.Open("x.npy")
	if err != nil {
		panic(err)
	}
	b, err := io.ReadAll(entry)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s, header of %d bytes, %d\n", archive.File[0].Name, len(b)-6, b[len(b)-6:])
	// Output: x.npy, header of 128 bytes, [0 1 2 3 4 5]
}

func TestSaveNPZBFloat16(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.npz")
	x := tensor.Of([]tensor.BFloat16{0x3fc0, 0xc000}, 1, 2)
	if err := tensor.SaveNPZ(path, []tensor.Spec{{Name: "x"}}, map[string]*tensor.Tensor{"x": x}); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	entry, err := archive.Open("x.npy")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(entry)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0} // 1.5 and −2 as float32
	if !bytes.Contains(b, []byte("'<f4', 'fortran_order': False, 'shape': (1,2,)")) || !bytes.HasSuffix(b, want) {
		t.Errorf("%q", b)
	}
}

// A tensor that is asked for and not given is an error that names it, and leaves no file.
func TestSaveNPZWithout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.npz")
	err := tensor.SaveNPZ(path, []tensor.Spec{{Name: "there"}, {Name: "missing"}}, map[string]*tensor.Tensor{"there": tensor.Of([]float32{1}, 1)})
	if err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file is there")
	}
}
