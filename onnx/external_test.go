package onnx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// externalModel writes a model with one external float tensor of 2 elements and
// the given entries, beside the file w.bin of 4100 bytes.
func externalModel(t *testing.T, dir string, entries ...string) *Tensor {
	t.Helper()
	m := NewModel(8, 17, "g")
	x := &Tensor{Name: "w", DataType: Float, Dims: []int64{2}, DataLocation: LocationExternal}
	for i := 0; i < len(entries); i += 2 {
		x.ExternalData = append(x.ExternalData, &Property{Key: entries[i], Value: entries[i+1]})
	}
	m.Graph.Initializers = []*Tensor{x}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "m.onnx"), b)
	data := make([]byte, 4100)
	copy(data, RawFloat32([]float32{1, 2}))
	copy(data[8:], RawFloat32([]float32{3, 4}))
	write(t, filepath.Join(dir, "w.bin"), data)
	return open(t, filepath.Join(dir, "m.onnx")).Graph.Initializers[0]
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestExternalData(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []string
		want    float32 // the first element
		err     error
		says    string
	}{
		{name: "all given", entries: []string{"location", "w.bin", "offset", "8", "length", "8"}, want: 3},
		{name: "no length", entries: []string{"location", "w.bin", "offset", "8"}, want: 3},
		{name: "no offset", entries: []string{"location", "w.bin"}, want: 1},
		{name: "other keys", entries: []string{"location", "w.bin", "checksum", "abc", "basepath", "/"}, want: 1},
		{name: "in a folder", entries: []string{"location", "sub/../w.bin"}, want: 1},
		{name: "no location", err: ErrLocation, says: "names no file"},
		{name: "length lies", entries: []string{"location", "w.bin", "length", "12"}, err: ErrTensorSize},
		{name: "past the end", entries: []string{"location", "w.bin", "offset", "4096"}, err: ErrTensorSize, says: "4100"},
		{name: "offset huge", entries: []string{"location", "w.bin", "offset", "9223372036854775807"}, err: ErrTensorSize},
		{name: "offset overflows", entries: []string{"location", "w.bin", "offset", "9223372036854775808"}, err: ErrLocation},
		{name: "offset negative", entries: []string{"location", "w.bin", "offset", "-1"}, err: ErrLocation},
		{name: "length negative", entries: []string{"location", "w.bin", "length", "-8"}, err: ErrLocation},
		{name: "no number", entries: []string{"location", "w.bin", "offset", "0x8"}, err: ErrLocation, says: `"0x8"`},
		{name: "missing", entries: []string{"location", "gone.bin"}, err: fs.ErrNotExist, says: "gone.bin is missing"},
		{name: "absolute", entries: []string{"location", "/etc/passwd"}, err: ErrLocation, says: "absolute"},
		{name: "escape", entries: []string{"location", "../w.bin"}, err: ErrLocation, says: "out of the folder"},
		{name: "hidden escape", entries: []string{"location", "sub/../../w.bin"}, err: ErrLocation, says: "out of the folder"},
		{name: "the folder", entries: []string{"location", "."}, says: "not a regular file"},
		{name: "NUL", entries: []string{"location", "w.bin\x00"}, err: ErrLocation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			os.MkdirAll(filepath.Join(dir, "sub"), 0o777)
			x := externalModel(t, dir, tt.entries...)
			v, err := x.Float32s()
			if tt.want != 0 {
				if err != nil || v[0] != tt.want {
					t.Fatalf("got %v, %v", v, err)
				}
				return
			}
			if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, want %v saying %q", err, tt.err, tt.says)
			}
			var fe *FormatError
			if !errors.As(err, &fe) || !strings.HasSuffix(fe.Path, "m.onnx") {
				t.Errorf("error %v does not name the model", err)
			}
		})
	}
}

func TestExternalDataThroughLinks(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "secret.bin"), make([]byte, 8))
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	x := externalModel(t, filepath.Join(root, "m"), "location", "link.bin", "length", "8")
	link("../secret.bin", "m/link.bin")
	if _, err := x.Float32s(); !errors.Is(err, ErrLocation) {
		t.Errorf("a link out of the folder: %v", err)
	}
	x = externalModel(t, filepath.Join(root, "n"), "location", "d/secret.bin", "length", "8")
	link("..", "n/d")
	if _, err := x.Float32s(); !errors.Is(err, ErrLocation) {
		t.Errorf("a linked folder out of the folder: %v", err)
	}
	x = externalModel(t, filepath.Join(root, "o"), "location", "link.bin", "length", "8")
	link("w.bin", "o/link.bin")
	if v, err := x.Float32s(); err != nil || v[0] != 1 {
		t.Errorf("a link inside the folder: %v, %v", v, err)
	}

	// The cache of a model hub: model and data are links into a folder of blobs.
	externalModel(t, filepath.Join(root, "blobs"), "location", "model.data", "length", "8")
	os.Mkdir(filepath.Join(root, "snapshot"), 0o777)
	link("../blobs/m.onnx", "snapshot/model.onnx")
	link("../blobs/w.bin", "snapshot/model.data")
	m := open(t, filepath.Join(root, "snapshot/model.onnx"))
	if v, err := m.Graph.Initializers[0].Float32s(); err != nil || v[0] != 1 {
		t.Errorf("a hub cache: %v, %v", v, err)
	}
}

// Where data lie is not told of a location that leads out of the folder, and needs no file to be there.
func TestExternalPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{"w.bin": filepath.Join(dir, "w.bin"), "missing.bin": filepath.Join(dir, "missing.bin"), "../w.bin": "", "/etc/passwd": ""} {
		path, err := externalModel(t, dir, "location", location).ExternalPath()
		if path != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrLocation) {
			t.Errorf("%s: %q, %v", location, path, err)
		}
	}
	if _, err := tinyModel().Graph.Initializers[0].ExternalPath(); err == nil {
		t.Error("a tensor in the model has a file of its own")
	}
}

func TestExternalDataOfParsedModel(t *testing.T) {
	dir := t.TempDir()
	externalModel(t, dir, "location", "w.bin", "offset", "8")
	b, err := os.ReadFile(filepath.Join(dir, "m.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Graph.Initializers[0].Float32s(); !errors.Is(err, ErrLocation) {
		t.Errorf("without a folder: %v", err)
	}
	m.SetDir(dir)
	if v, err := m.Graph.Initializers[0].Float32s(); err != nil || v[0] != 3 {
		t.Errorf("with a folder: %v, %v", v, err)
	}
	m.Close()
	if _, err := m.Graph.Initializers[0].Float32s(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Strings are views of the file as well.
func TestStringsOfAClosedModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	m := tinyModel()
	m.Graph.Initializers = append(m.Graph.Initializers, NewStringTensor("words", []int64{2}, []string{"one", "two"}))
	save(t, m, path, SaveOptions{})
	m = open(t, path)
	words := m.Graph.Initializer("words")
	if s, err := words.Strings(); err != nil || len(s) != 2 || s[1] != "two" {
		t.Errorf("%q, %v", s, err)
	}
	m.Close()
	if _, err := words.Strings(); !errors.Is(err, ErrClosed) {
		t.Errorf("Strings after Close: %v", err)
	}
	if err := words.Validate(); !errors.Is(err, ErrClosed) {
		t.Errorf("Validate after Close: %v", err)
	}
}

func TestClosedModelIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	save(t, weightModel(), path, SaveOptions{})
	closed := open(t, path)
	other := tinyModel()
	other.Graph.Nodes = append(other.Graph.Nodes, closed.Graph.Nodes...)
	closed.Close()
	for _, m := range []*Model{closed, other} {
		if _, err := m.Marshal(); !errors.Is(err, ErrClosed) {
			t.Errorf("Marshal: %v", err)
		}
		if _, err := m.Save(path+".new", SaveOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("Save: %v", err)
		}
	}
	if err := closed.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}
