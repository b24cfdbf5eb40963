package calib_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// fuzzedInputs are the model inputs that fuzzed data are read for.
var fuzzedInputs = map[string][]tensor.Spec{
	"numbers": {{Name: "x", Type: tensor.Float32, Shape: []tensor.Dim{{Size: -1}, {Size: -1}}}},
	"picture": {{Name: "x", Type: tensor.Float32, Shape: []tensor.Dim{{Size: -1}, {Size: 3}, {Size: -1}, {Size: -1}}}},
	"several": {{Name: "x", Type: tensor.Float32, Shape: []tensor.Dim{{Size: -1}, {Size: -1}}}, {Name: "y", Type: tensor.Int64}},
	"tokens":  {{Name: "x", Type: tensor.Int64, Shape: []tensor.Dim{{Size: -1}, {Size: -1}}}},
}

// readAll opens a recipe over a file with the given bytes and reads some samples: an error or samples that are sound.
func readAll(t *testing.T, inputs, recipe, name string, data []byte) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "r.yaml")
	for _, f := range []struct {
		name string
		data []byte
	}{{"r.yaml", []byte(recipe)}, {name, data}} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f.name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	r, err := calib.Open(path, fuzzedInputs[inputs], calib.Options{Limit: 5})
	if err != nil {
		var known *calib.RecipeError
		if !errors.As(err, &known) {
			t.Fatalf("not a RecipeError: %v", err)
		}
		return
	}
	defer r.Close()
	for i := range min(r.Len(), 5) {
		s, err := r.Sample(i)
		if err != nil {
			continue
		}
		for name, x := range s.Inputs {
			if err := x.Check(); err != nil {
				t.Fatalf("sample %d, input %s: %v", i, name, err)
			}
		}
	}
}

func idxFile(size int, dims ...uint32) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, make([]byte, size)...)
}

func npyFile(descr, shape string, size int) []byte {
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape)
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), byte(len(head)>>8))
	return append(append(b, head...), make([]byte, size)...)
}

func FuzzIDX(f *testing.F) {
	f.Add(idxFile(60, 3, 4, 5), false)
	f.Add(idxFile(0, 1<<31, 1<<31, 4), false)
	f.Add(idxFile(1), true)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(idxFile(60, 3, 4, 5))
	_ = w.Close()
	f.Add(z.Bytes(), true)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		name := "a.idx"
		if packed {
			name += ".gz"
		}
		readAll(t, "numbers", "kind: idx\nimages: "+name+"\nlabels: "+name+"\nshape: [-1, 20]\n", name, data)
		readAll(t, "numbers", "kind: idx\nimages: "+name+"\nshape: [-1, 20]\n", name, data)
	})
}

func FuzzNPZ(f *testing.F) {
	for _, member := range [][]byte{
		npyFile("|u1", "(3, 2, 2, 3)", 36), npyFile("<f4", "(3, 4)", 48), npyFile("<i8", "(9,)", 72), npyFile("<f8", "(1152921504606846975,)", 8),
	} {
		f.Add(member, uint8(0))
		f.Add(member, uint8(1))
		f.Add(member, uint8(2))
	}
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		file := data
		if how%2 == 0 { // the bytes of a member of a sound archive: what is behind the zip's checksums gets tested
			var z bytes.Buffer
			w := zip.NewWriter(&z)
			for _, name := range []string{"x.npy", "y.npy"}[:1+how/2%2] {
				member, err := w.Create(name)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := member.Write(data); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			file = z.Bytes()
		}
		readAll(t, "picture", "kind: npz\nfile: a.npz\n", "a.npz", file)
		readAll(t, "numbers", "kind: npz\nfile: a.npz\nshape: [-1, 4]\n", "a.npz", file)
		readAll(t, "several", "kind: npz\nfile: a.npz\n", "a.npz", file)
		readAll(t, "tokens", "kind: tokens\nfile: a.npz\nseq: 4\n", "a.npz", file)
		readAll(t, "tokens", "kind: tokens\nfile: a.npy\nseq: 4\n", "a.npy", data)
	})
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("some text that is long enough"), "uint16", int64(4))
	f.Add([]byte{}, "int64", int64(1))
	f.Add([]byte{1, 2, 3}, "uint8", int64(1<<62))
	f.Fuzz(func(t *testing.T, data []byte, dtype string, seq int64) {
		if strings.ContainsAny(dtype, "\n:#") {
			return
		}
		seq &= 1<<62 - 1
		if seq > 1<<20 && seq < 1<<40 {
			seq %= 1 << 20 // windows that large are allowed, and slow
		}
		readAll(t, "tokens", fmt.Sprintf("kind: bytes\nfile: a.txt\nseq: %d\n", seq), "a.txt", data)
		readAll(t, "tokens", fmt.Sprintf("kind: tokens\nfile: a.bin\ndtype: %q\nseq: %d\n", dtype, seq), "a.bin", data)
	})
}

func FuzzPicture(f *testing.F) {
	pictures, err := filepath.Glob("testdata/*.*g")
	if err != nil || len(pictures) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range pictures {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		readAll(t, "picture", "kind: images\ndir: d\nresize: {shorter: 8, crop: 6}\n", "d/a.png", data)
		readAll(t, "picture", "kind: images\ndir: d\npixel: {color: gray, layout: nhwc}\n", "d/a.jpg", data)
	})
}
