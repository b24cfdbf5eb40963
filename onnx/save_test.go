package onnx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
)

// weights returns a model with tensors of 8 KiB, 400 B and 4 KiB, the last in a subgraph.
func weightModel() *Model {
	m := tinyModel()
	big := make([]float32, 2048)
	for i := range big {
		big[i] = float32(i)
	}
	m.Graph.Initializers = append(m.Graph.Initializers,
		NewTensor("big", []int64{2, 1024}, big),
		NewTensor("small", []int64{100}, big[:100]),
		&Tensor{Name: "typed", DataType: Float, Dims: []int64{1024}, FloatData: Pack(big[:1024]...)},
		NewStringTensor("words", []int64{1}, []string{strings.Repeat("w", 5000)}))
	sub := m.Graph.Nodes[1].Attributes[0].G
	sub.Initializers = append(sub.Initializers, NewTensor("inner", []int64{1024}, big[:1024]))
	return m
}

func save(t testing.TB, m *Model, path string, opt SaveOptions) []SavedFile {
	t.Helper()
	files, err := m.Save(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); int64(len(b)) != f.Bytes || hex.EncodeToString(sum[:]) != f.SHA256 {
			t.Fatalf("%s: %d bytes, sum %x; Save said %+v", f.Path, len(b), sum, f)
		}
	}
	return files
}

// sameData compares all tensors of two models by name and value.
func sameData(t testing.TB, a, b *Model) {
	t.Helper()
	var x, y []TensorRef
	for r := range a.Tensors() {
		x = append(x, r)
	}
	for r := range b.Tensors() {
		y = append(y, r)
	}
	if len(x) != len(y) {
		t.Fatalf("%d tensors and %d", len(x), len(y))
	}
	for i := range x {
		if x[i].Tensor.DataType == String {
			continue
		}
		p, err1 := x[i].Tensor.Bytes()
		q, err2 := y[i].Tensor.Bytes()
		if err1 != nil || err2 != nil || !bytes.Equal(p, q) || x[i].Tensor.Name != y[i].Tensor.Name {
			t.Fatalf("tensor %q differs: %v, %v", x[i].Tensor.Name, err1, err2)
		}
	}
}

// leftovers fails when a folder holds anything but the given names.
func leftovers(t testing.TB, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestSaveLayouts(t *testing.T) {
	dir := t.TempDir()
	m := weightModel()
	before := Clone(m)

	one := save(t, m, filepath.Join(dir, "one.onnx"), SaveOptions{})
	if len(one) != 1 {
		t.Fatalf("a small model became %d files", len(one))
	}
	two := save(t, m, filepath.Join(dir, "two.onnx"), SaveOptions{External: ExternalAlways})
	if len(two) != 2 || filepath.Base(two[1].Path) != "two.onnx.data" {
		t.Fatalf("files %+v", two)
	}
	if !Equal(m, before) {
		t.Error("saving changed the model in memory")
	}
	ext := open(t, two[0].Path)
	sameData(t, m, ext)
	var out []string
	for r := range ext.Tensors() {
		if r.Tensor.IsExternal() {
			ref, err := r.Tensor.External()
			if err != nil || ref.Offset%4096 != 0 {
				t.Errorf("%s: %+v, %v", r.Where(), ref, err)
			}
			out = append(out, r.Tensor.Name)
		}
	}
	if want := []string{"big", "typed", "inner"}; !slices.Equal(out, want) {
		t.Errorf("external: %q, want %q", out, want)
	}

	// Auto keeps external data external; Never takes them in again.
	again := save(t, ext, filepath.Join(dir, "again.onnx"), SaveOptions{})
	if len(again) != 2 || again[1].SHA256 != two[1].SHA256 {
		t.Errorf("external data copied to %+v, from %+v", again, two)
	}
	sameData(t, m, open(t, again[0].Path))
	back := save(t, ext, filepath.Join(dir, "back.onnx"), SaveOptions{External: ExternalNever})
	if len(back) != 1 {
		t.Errorf("ExternalNever wrote %d files", len(back))
	}
	sameData(t, m, open(t, back[0].Path))

	low := save(t, m, filepath.Join(dir, "low.onnx"), SaveOptions{External: ExternalAlways, ExternalThreshold: 1, DataName: "w.bin"})
	if len(low) != 2 || filepath.Base(low[1].Path) != "w.bin" {
		t.Errorf("files %+v", low)
	}
	sameData(t, m, open(t, low[0].Path))
	leftovers(t, dir, "one.onnx", "two.onnx", "two.onnx.data", "again.onnx", "again.onnx.data", "back.onnx", "low.onnx", "w.bin")
}

// Large tensors have pages of their own, small ones none that would be mostly zeros.
func TestSavePlaces(t *testing.T) {
	m := tinyModel()
	sizes := []int64{5000, 70001, 65535, 65536, 1}
	for i, n := range sizes {
		raw := bytes.Repeat([]byte{byte(i + 1)}, int(n))
		m.Graph.Initializers = append(m.Graph.Initializers, NewRawTensor(fmt.Sprint("w", n), Uint8, []int64{n}, raw))
	}
	twice := &Tensor{Name: "twice", DataType: Float, Dims: []int64{3}, FloatData: Pack[float32](1, 2, 3)}
	m.Graph.Initializers = append(m.Graph.Initializers, twice, twice)
	path := filepath.Join(t.TempDir(), "m.onnx")
	files := save(t, m, path, SaveOptions{External: ExternalAlways, ExternalThreshold: 1})
	saved := open(t, path)
	sameData(t, m, saved)
	var places []string
	for r := range saved.Tensors() {
		if ref, err := r.Tensor.External(); err == nil {
			places = append(places, fmt.Sprintf("%s %d", r.Tensor.Name, ref.Offset))
		}
	}
	want := []string{"W 139264", "b 139328", "w5000 139392", "w70001 0", "w65535 144448", "w65536 73728", "w1 209984", "twice 210048", "twice 210048"}
	if !slices.Equal(places, want) || files[1].Bytes != 210060 {
		t.Errorf("places %v of %d bytes, want %v of 210060", places, files[1].Bytes, want)
	}
}

func TestSavedBytes(t *testing.T) {
	dir := t.TempDir()
	m := weightModel()
	for i, o := range []SaveOptions{{}, {External: ExternalAlways}, {External: ExternalAlways, ExternalThreshold: 1, DataName: "w.bin"}, {External: ExternalNever}} {
		path := filepath.Join(dir, fmt.Sprint(i, ".onnx"))
		want, err := m.SavedBytes(path, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Overwrite = true
		got := int64(0)
		for _, f := range save(t, m, path, o) {
			got += f.Bytes
		}
		if got != want {
			t.Errorf("%+v: %d bytes were saved, %d said before", o, got, want)
		}
	}
}

func TestSaveRealModels(t *testing.T) {
	for _, path := range dataModels(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			dir := t.TempDir()
			m := open(t, path)
			plain := save(t, m, filepath.Join(dir, "plain.onnx"), SaveOptions{})
			want, _ := os.ReadFile(path)
			got, _ := os.ReadFile(plain[0].Path)
			if !bytes.Equal(got, want) {
				t.Fatal("saving an untouched model changed it")
			}
			files := save(t, m, filepath.Join(dir, "ext.onnx"), SaveOptions{External: ExternalAlways})
			ext := open(t, files[0].Path)
			sameData(t, m, ext)
			for _, p := range Check(ext) {
				t.Error(p)
			}
		})
	}
}

func TestSaveKeepsSharing(t *testing.T) {
	dir := t.TempDir()
	m := weightModel()
	big := m.Graph.Initializer("big")
	twin := Clone(big)
	twin.Name = "twin"
	m.Graph.Initializers = append(m.Graph.Initializers, twin)
	files := save(t, m, filepath.Join(dir, "m.onnx"), SaveOptions{External: ExternalAlways})
	g := open(t, files[0].Path).Graph
	a, _ := g.Initializer("big").External()
	b, _ := g.Initializer("twin").External()
	if a != b {
		t.Errorf("the same bytes were written twice: %+v, %+v", a, b)
	}
}

func TestSaveStreams(t *testing.T) {
	raw := RawFloat32([]float32{1, 2, 3, 4})
	for _, mode := range []ExternalMode{ExternalNever, ExternalAlways} {
		m := tinyModel()
		w := m.Graph.Initializer("b")
		w.Data, w.RawData, w.Dims = opaqueData{raw}, nil, []int64{4}
		files := save(t, m, filepath.Join(t.TempDir(), "m.onnx"), SaveOptions{External: mode, ExternalThreshold: 1})
		got := open(t, files[0].Path).Graph.Initializer("b")
		if v, err := got.Float32s(); err != nil || v[3] != 4 {
			t.Errorf("mode %d: %v, %v", mode, v, err)
		}
	}
}

type lyingData struct{ opaqueData }

func (d lyingData) Size() int64 { return 16 }

func TestSaveFailuresLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	always := SaveOptions{External: ExternalAlways, ExternalThreshold: 1}

	fails := func(name string, m *Model, opt SaveOptions, want error) {
		t.Run(name, func(t *testing.T) {
			files, err := m.Save(path, opt)
			if err == nil || !errors.Is(err, want) {
				t.Errorf("files %v, error %v, want %v", files, err, want)
			}
			leftovers(t, dir)
		})
	}
	stream := func(d Data) *Model {
		m := tinyModel()
		m.Graph.Initializers[1] = NewStreamTensor("b", Float, []int64{4}, d)
		return m
	}
	for _, mode := range []ExternalMode{ExternalNever, ExternalAlways} {
		opt := SaveOptions{External: mode, ExternalThreshold: 1}
		fails("stream too short", stream(lyingData{opaqueData{make([]byte, 12)}}), opt, ErrTensorSize)
		fails("stream too long", stream(lyingData{opaqueData{make([]byte, 20)}}), opt, ErrTensorSize)
	}
	bad := tinyModel()
	bad.Graph.Initializers[0].Dims[0] = 4
	fails("tensor that lies", bad, SaveOptions{}, ErrTensorSize)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fails("cancelled", tinyModel(), SaveOptions{Context: ctx}, context.Canceled)
	fails("data name outside", tinyModel(), SaveOptions{DataName: "../x"}, ErrLocation)

	for _, room := range []int64{0, 10, 5000} {
		diskWith(t, room)
		fails(fmt.Sprintf("disk full after %d bytes", room), weightModel(), always, syscall.ENOSPC)
	}
	diskWith(t, 1<<30)
	damageDisk(t)
	fails("disk that loses data", weightModel(), always, ErrVerify)
}

// diskWith makes files fail once room bytes were written to them.
func diskWith(t *testing.T, room int64) {
	old := createFile
	t.Cleanup(func() { createFile = old })
	createFile = func(path string) (tempFile, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return &fullFile{f, room}, err
	}
}

type fullFile struct {
	*os.File
	room int64
}

func (f *fullFile) Write(b []byte) (int, error) {
	n := min(f.room, int64(len(b)))
	f.room -= n
	k, err := f.File.Write(b[:n])
	if err == nil && int(n) < len(b) {
		err = &fs.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return k, err
}

// damageDisk makes files lose a bit without an error.
func damageDisk(t *testing.T) {
	old := createFile
	t.Cleanup(func() { createFile = old })
	createFile = func(path string) (tempFile, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return badFile{f}, err
	}
}

type badFile struct{ *os.File }

func (f badFile) Write(b []byte) (int, error) {
	c := bytes.Clone(b)
	if len(c) > 5000 {
		c[5000] ^= 4
	}
	return f.File.Write(c)
}

func TestSaveDoesNotReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	always := SaveOptions{External: ExternalAlways}
	first := save(t, weightModel(), path, always)

	if _, err := tinyModel().Save(path, SaveOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto an existing model: %v", err)
	}
	if _, err := weightModel().Save(filepath.Join(dir, "n.onnx"), SaveOptions{External: ExternalAlways, DataName: "m.onnx.data"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto existing data: %v", err)
	}
	m := open(t, path)
	force := SaveOptions{Overwrite: true}
	for _, target := range []string{path, first[1].Path} {
		if _, err := m.Save(target, force); !errors.Is(err, ErrSameFile) {
			t.Errorf("onto %s, which it reads: %v", target, err)
		}
	}
	if err := os.Link(path, filepath.Join(dir, "hard.onnx")); err == nil {
		if _, err := m.Save(filepath.Join(dir, "hard.onnx"), force); !errors.Is(err, ErrSameFile) {
			t.Errorf("onto another name of the file it reads: %v", err)
		}
		os.Remove(filepath.Join(dir, "hard.onnx"))
	}
	// A tensor taken over from another model counts as well.
	other := tinyModel()
	other.Graph.Initializers = append(other.Graph.Initializers, m.Graph.Initializer("big"))
	if _, err := other.Save(path, force); !errors.Is(err, ErrSameFile) {
		t.Errorf("onto the model that a tensor came from: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || int64(len(got)) != first[0].Bytes {
		t.Error("the file is not what it was")
	}
	leftovers(t, dir, "m.onnx", "m.onnx.data")

	if _, err := tinyModel().Save(dir, force); err == nil {
		t.Error("onto a folder: no error")
	}
	if _, err := tinyModel().Save(filepath.Join(dir, "no", "m.onnx"), force); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "folder") {
		t.Errorf("into no folder: %v", err)
	}
	m.Close()
	changed := weightModel()
	changed.Graph.Initializer("big").RawData[0] = 77
	save(t, changed, path, SaveOptions{External: ExternalAlways, Overwrite: true})
	sameData(t, changed, open(t, path))
	leftovers(t, dir, "m.onnx", "m.onnx.data")
}

// When the second renaming fails the first is taken back.
func TestSaveUndoesData(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	opt := SaveOptions{External: ExternalAlways, Overwrite: true}
	save(t, weightModel(), path, opt)
	old, err := os.ReadFile(path + ".data")
	if err != nil {
		t.Fatal(err)
	}
	changed := weightModel()
	changed.Graph.Initializer("big").RawData[0] = 77
	// A folder appears under the name of the model while the files are written.
	opt.Progress = func(written, total int64) {
		if written == total {
			os.Remove(path)
			os.Mkdir(path, 0o777)
		}
	}
	if _, err := changed.Save(path, opt); err == nil {
		t.Fatal("saved onto a folder")
	}
	if got, err := os.ReadFile(path + ".data"); err != nil || !bytes.Equal(got, old) {
		t.Errorf("the old data are gone: %v", err)
	}
	leftovers(t, dir, "m.onnx", "m.onnx.data")
}

func TestSaveProgressAndContext(t *testing.T) {
	dir := t.TempDir()
	var last, total int64
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opt := SaveOptions{External: ExternalAlways, Progress: func(w, n int64) { last, total = w, n }}
	files := save(t, weightModel(), filepath.Join(dir, "m.onnx"), opt)
	if want := files[0].Bytes + files[1].Bytes; last != want || total != want {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}
	opt.Context, opt.Progress = ctx, func(int64, int64) { cancel() }
	if _, err := weightModel().Save(filepath.Join(dir, "n.onnx"), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: %v", err)
	}
	leftovers(t, dir, "m.onnx", "m.onnx.data")
}

func TestEqualData(t *testing.T) {
	with := func(d Data) *Tensor { return NewStreamTensor("x", Uint8, []int64{3}, d) }
	abc := bytesData("abc")
	for _, tt := range []struct {
		a, b Data
		want bool
	}{
		{abc, bytesData("abc"), true}, {abc, opaqueData{[]byte("abc")}, true}, {abc, bytesData("abd"), false},
		{abc, bytesData("ab"), false}, {abc, nil, false}, {zeroData(3), zeroData(3), true}, {abc, zeroData(3), false},
	} {
		if got := Equal(with(tt.a), with(tt.b)); got != tt.want {
			t.Errorf("%v and %v: %v", tt.a, tt.b, got)
		}
	}
}

// zeroData is size bytes that exist nowhere.
type zeroData int64

func (z zeroData) Size() int64 { return int64(z) }
func (z zeroData) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, 1<<20)
	var total int64
	for total < int64(z) {
		n, err := w.Write(buf[:min(int64(len(buf)), int64(z)-total)])
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func TestSaveTooLarge(t *testing.T) {
	dir := t.TempDir()
	m := tinyModel()
	m.Graph.Initializers[1] = NewStreamTensor("b", Uint8, []int64{1 << 31}, zeroData(1<<31))
	if _, err := m.Save(filepath.Join(dir, "m.onnx"), SaveOptions{External: ExternalNever}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 GiB in one file: %v", err)
	}
	leftovers(t, dir)
}

func TestSaveOver2GiB(t *testing.T) {
	if !testenv.Require("large") {
		t.Skip("writes 2.2 GB; asked for with COSETQ_REQUIRE=large")
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	m := tinyModel()
	const size = 2200 << 20
	m.Graph.Initializers = append(m.Graph.Initializers, NewStreamTensor("huge", Uint8, []int64{size}, zeroData(size)))
	peak := heapDuring(func() {
		if _, err := m.Save(path, SaveOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if peak > 16<<20 {
		t.Errorf("saving took %d MB of heap", peak>>20)
	}
	got := open(t, path)
	tail := make([]float32, 10)
	if err := got.Graph.Initializer("huge").Float32Range(tail, size-10, size); err != nil {
		t.Error(err)
	}
}

// sparseModel writes a model whose one weight, of size bytes in raw_data, is a hole.
func sparseModel(t testing.TB, path string, size int64) {
	t.Helper()
	m := tinyModel()
	m.Graph.Initializers = append(m.Graph.Initializers, NewStreamTensor("hole", Float, []int64{size / 4}, zeroData(size)))
	var e encoder
	e.message(m)
	e.flush()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := len(e.parts) - 1; i >= 0; i-- {
		if p := e.parts[i]; p.data != nil {
			_, err = f.Seek(p.data.Size(), io.SeekCurrent)
		} else {
			_, err = f.Write(p.b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// heapDuring returns by how many bytes all that f allocated exceeds nothing: an
// upper bound of its peak.
func heapDuring(f func()) uint64 {
	var a, b runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

func TestLargeModelCostsNoHeap(t *testing.T) {
	if !mapped {
		t.Skip("files are read into memory here")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	sparseModel(t, path, 500<<20)
	used := heapDuring(func() {
		m := open(t, path)
		n := 0
		for r := range m.Tensors() {
			if _, err := r.Tensor.RawBytes(); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Fatalf("%d tensors", n)
		}
		m.Graph.Nodes[0].Name = "edited"
		if _, err := m.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
	if used > 2<<20 {
		t.Errorf("opening, walking and writing 500 MB allocated %d KB", used>>10)
	}
	if testing.Short() {
		return
	}
	m := open(t, path)
	used = heapDuring(func() {
		if _, err := m.Save(filepath.Join(dir, "n.onnx"), SaveOptions{External: ExternalAlways}); err != nil {
			t.Fatal(err)
		}
	})
	if used > 4<<20 {
		t.Errorf("saving 500 MB allocated %d KB", used>>10)
	}
}

func BenchmarkOpen500MB(b *testing.B) {
	path := filepath.Join(b.TempDir(), "m.onnx")
	sparseModel(b, path, 500<<20)
	b.ReportAllocs()
	for b.Loop() {
		m, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		for r := range m.Tensors() {
			if _, err := r.Tensor.RawBytes(); err != nil {
				b.Fatal(err)
			}
		}
		m.Close()
	}
}

func BenchmarkFloat32sFromFloat16(b *testing.B) {
	raw := make([]byte, 2<<20)
	for i := range raw {
		raw[i] = byte(rand.Uint32())
	}
	x := NewRawTensor("x", Float16, []int64{1 << 20}, raw)
	dst := make([]float32, 1<<20)
	b.SetBytes(4 << 20)
	for b.Loop() {
		if err := x.Float32Range(dst, 0, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

// A name as long as file systems allow is good for a model whose temporary file has a longer one.
func TestSaveLongName(t *testing.T) {
	m := NewModel(10, 17, "g")
	for _, name := range []string{strings.Repeat("n", 250) + ".onnx", strings.Repeat("ü", 125) + ".onnx"} {
		dir := t.TempDir()
		if _, err := m.Save(filepath.Join(dir, name), SaveOptions{}); err != nil {
			t.Error(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != name {
			t.Errorf("%v, %v", entries, err)
		}
		if _, err := m.Save(filepath.Join(dir, "n"+name), SaveOptions{}); !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("a name too long: %v", err)
		}
	}
}

// A path through a link and back out names a folder that only the system finds: model and data go there together.
func TestSaveThroughLink(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"a", "elsewhere/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../elsewhere/deep", filepath.Join(dir, "a/link")); err != nil {
		t.Skip(err)
	}
	path := dir + "/a/link/../m.onnx"
	save(t, weightModel(), path, SaveOptions{External: ExternalAlways})
	for _, name := range []string{"m.onnx", "m.onnx.data"} {
		if _, err := os.Stat(filepath.Join(dir, "elsewhere", name)); err != nil {
			t.Error(err)
		}
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sameData(t, weightModel(), m)
}
