package calib_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// folder writes files into a new folder and returns its path.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

// npy is an array file in NumPy's format.
func npy(descr, shape, data string) string {
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n", descr, shape)
	return "\x93NUMPY\x01\x00" + string([]byte{byte(len(head)), byte(len(head) >> 8)}) + head + data
}

func npz(t *testing.T, arrays map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range arrays {
		w, err := z.Create(name + ".npy")
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(data))
	}
	z.Close()
	return b.String()
}

// input describes a model input; -1 stands for a dynamic size.
func input(name string, typ tensor.Type, shape ...int64) tensor.Spec {
	s := tensor.Spec{Name: name, Type: typ, Ranked: true}
	for _, d := range shape {
		s.Shape = append(s.Shape, tensor.Dim{Size: d})
	}
	return s
}

func open(t *testing.T, dir, recipe string, o calib.Options, inputs ...tensor.Spec) (calib.Reader, error) {
	t.Helper()
	path := filepath.Join(dir, "recipe.yaml")
	if err := os.WriteFile(path, []byte(recipe), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := calib.Open(path, inputs, o)
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

func mustOpen(t *testing.T, dir, recipe string, o calib.Options, inputs ...tensor.Spec) calib.Reader {
	t.Helper()
	r, err := open(t, dir, recipe, o, inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// values reads one sample and returns the floats and the shape of an input, and the sample.
func values(t *testing.T, r calib.Reader, i int, name string) ([]float64, []int64, *calib.Sample) {
	t.Helper()
	s, err := r.Sample(i)
	if err != nil {
		t.Fatal(err)
	}
	x := s.Inputs[name]
	if x == nil {
		t.Fatalf("no input %q", name)
	}
	v := make([]float64, x.Count())
	if err := x.Floats(v, 0, x.Count()); err != nil {
		t.Fatal(err)
	}
	return v, x.Shape, s
}

const (
	idxImages = "\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x03" + "\x00\x01\x02\x03\x04\x05" + "\x0a\x14\x1e\x28\x32\xff"
	idxLabels = "\x00\x00\x08\x01\x00\x00\x00\x02" + "\x07\x03"
)

func TestIDX(t *testing.T) {
	dir := folder(t, map[string]string{"i.gz": gzipped(idxImages), "i": idxImages, "l": idxLabels})
	for _, file := range []string{"i", "i.gz"} {
		r := mustOpen(t, dir, "kind: idx\nimages: "+file+"\nlabels: l\npixel: {scale: 0.5}\nshape: [-1, 6, 1]", calib.Options{}, input("x", tensor.Float32, -1, 6, 1))
		v, shape, s := values(t, r, 1, "x")
		if r.Len() != 2 || s.Label != 3 || !slices.Equal(shape, []int64{1, 6, 1}) || !slices.Equal(v, []float64{5, 10, 15, 20, 25, 127.5}) {
			t.Errorf("%s: %d samples, label %d, %v %v", file, r.Len(), s.Label, shape, v)
		}
	}
	r := mustOpen(t, dir, "kind: idx\nimages: i\npixel: {transpose: true}\nshape: [-1, 3, 2]", calib.Options{Limit: 1}, input("x", tensor.Uint8, 1, 3, 2))
	v, _, s := values(t, r, 0, "x")
	if r.Len() != 1 || s.Label != -1 || !slices.Equal(v, []float64{0, 3, 1, 4, 2, 5}) {
		t.Errorf("transposed: %d samples, label %d, %v", r.Len(), s.Label, v)
	}
}

func TestNPZ(t *testing.T) {
	dir := folder(t, map[string]string{"a.npz": npz(t, map[string]string{
		"images": npy("|u1", "2, 1, 2, 3", "\x00\x01\x02\x03\x04\x05\x0a\x0b\x0c\x0d\x0e\x0f"),
		"labels": npy("<i8", "2,", "\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
		"rows":   npy("<f4", "1, 2", "\x00\x00\x80\x3f\x00\x00\x00\x40"),
	})})
	for _, c := range []struct {
		layout string
		shape  []int64
		want   []float64
	}{
		{"nchw", []int64{1, 3, 1, 2}, []float64{9, 12, 5, 6.5, 11, 14}},
		{"nhwc", []int64{1, 1, 2, 3}, []float64{9, 5, 11, 12, 6.5, 14}},
	} {
		r := mustOpen(t, dir, "kind: npz\nfile: a.npz\narray: images\nlabels: labels\npixel: {mean: [1, 1, 1], std: [1, 2, 1], layout: "+c.layout+"}",
			calib.Options{}, input("x", tensor.Float16Type, append([]int64{-1}, c.shape[1:]...)...))
		v, shape, s := values(t, r, 1, "x")
		if s.Label != 1 || !slices.Equal(shape, c.shape) || !slices.Equal(v, c.want) {
			t.Errorf("%s: label %d, %v %v, want %v %v", c.layout, s.Label, shape, v, c.shape, c.want)
		}
	}
	r := mustOpen(t, dir, "kind: npz\nfile: a.npz\narray: rows", calib.Options{}, input("x", tensor.Float32, 1, 2))
	if v, _, _ := values(t, r, 0, "x"); !slices.Equal(v, []float64{1, 2}) {
		t.Errorf("feature vectors: %v", v)
	}
}

// A .npy file is data as an archive with that array alone is, and several match a pattern.
func TestNPY(t *testing.T) {
	one, two := npy("<f4", "1, 2", "\x00\x00\x80\x3f\x00\x00\x00\x40"), npy("<f4", "1, 2", "\x00\x00\x00\x40\x00\x00\x80\x3f")
	dir := folder(t, map[string]string{"a.npy": one, "b.npy": two})
	for recipe, want := range map[string][]float64{"a.npy": {1, 2}, "a.npy\narray: a": {1, 2}, "'*.npy'": {2, 1}} {
		r := mustOpen(t, dir, "kind: npz\nfile: "+recipe, calib.Options{}, input("x", tensor.Float32, -1, 2))
		if v, _, _ := values(t, r, r.Len()-1, "x"); !slices.Equal(v, want) {
			t.Errorf("%q: %v, want %v", recipe, v, want)
		}
	}
}

func TestImages(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 4, 2))
	for i := range 8 {
		m.SetRGBA(i%4, i/4, color.RGBA{uint8(10 * i), 100, uint8(200 + i), 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string]string{"a.png": b.String(), "l.csv": "file,label\na.png,3\n"})
	r := mustOpen(t, dir, "kind: images\ndir: .\nlabels: l.csv\nresize: {crop: 2}\npixel: {color: bgr}", calib.Options{}, input("x", tensor.Float32, -1, 3, 2, 2))
	v, _, s := values(t, r, 0, "x")
	if want := []float64{201, 202, 205, 206, 100, 100, 100, 100, 10, 20, 50, 60}; s.Label != 3 || !slices.Equal(v, want) {
		t.Errorf("label %d, %v, want %v", s.Label, v, want)
	}
	// A byte order mark is no part of the text.
	const mark = "\ufeff"
	dir = folder(t, map[string]string{"a.png": b.String(), "l.csv": mark + "file,label\na.png,3\n"})
	r = mustOpen(t, dir, mark+"kind: images\ndir: .\nlabels: l.csv\nresize: {crop: 2}", calib.Options{}, input("x", tensor.Float32, -1, 3, 2, 2))
	if _, _, s := values(t, r, 0, "x"); s.Label != 3 {
		t.Errorf("label %d", s.Label)
	}
	if _, err := open(t, dir, "kind: images\ndir: .\nresize: {crop: 3}", calib.Options{}, input("x", tensor.Float32, -1, 3, 2, 2)); err == nil {
		t.Error("a crop that the model does not take was accepted")
	}
}

func TestBytesWindowsSpreadEvenly(t *testing.T) {
	dir := folder(t, map[string]string{"t.txt": "abcdefghijklmnopqrstuvwxyz"})
	ids, mask := input("input_ids", tensor.Int64, -1, -1), input("attention_mask", tensor.Int32, -1, -1)
	pos := input("position_ids", tensor.Int64, -1, -1)
	r := mustOpen(t, dir, "kind: bytes\nfile: t.txt\nseq: 4", calib.Options{Limit: 2}, ids, mask, pos)
	// starts at w·⌊(26−4−1)/2⌋ = 10w: with one token more it would be 11w
	v, shape, s := values(t, r, 1, "input_ids")
	if r.Len() != 2 || !slices.Equal(shape, []int64{1, 4}) || !slices.Equal(v, []float64{'k', 'l', 'm', 'n'}) || !slices.Equal(s.Targets, []int{'l', 'm', 'n', 'o'}) {
		t.Errorf("%d windows, %v %v → %v", r.Len(), shape, v, s.Targets)
	}
	if m, _, _ := values(t, r, 0, "attention_mask"); !slices.Equal(m, []float64{1, 1, 1, 1}) {
		t.Errorf("mask %v", m)
	}
	if p, _, _ := values(t, r, 0, "position_ids"); !slices.Equal(p, []float64{0, 1, 2, 3}) {
		t.Errorf("positions %v", p)
	}
	// Without a limit, or one near the number that fits, windows follow each other and end where the data does.
	for _, c := range []struct{ seq, limit, count int }{{4, 0, 6}, {4, 5, 5}, {1, 0, 25}, {8, 0, 3}} {
		all := mustOpen(t, dir, fmt.Sprintf("kind: bytes\nfile: t.txt\nseq: %d", c.seq), calib.Options{Limit: c.limit}, ids)
		var read []float64
		for i := range all.Len() {
			v, _, _ := values(t, all, i, "input_ids")
			read = append(read, v...)
		}
		want := make([]float64, c.count*c.seq)
		for i := range want {
			want[i] = float64('a' + i)
		}
		if !slices.Equal(read, want) {
			t.Errorf("windows of %d, at most %d: %v, want %v", c.seq, c.limit, read, want)
		}
	}
}

// Decoders are exported with a key-value cache among their inputs, and some with a switch for it: the cache of a window is empty.
func TestTextFeedsAnEmptyCache(t *testing.T) {
	dir := folder(t, map[string]string{"t.txt": "abcdefghijklmnopqrstuvwxyz"})
	named := func(s tensor.Spec, names ...string) tensor.Spec {
		for i, n := range names {
			s.Shape[i].Name = n
		}
		return s
	}
	inputs := []tensor.Spec{
		input("input_ids", tensor.Int64, -1, -1),
		named(input("attention_mask", tensor.Int64, -1, -1), "batch_size", "past_sequence_length + sequence_length"),
		named(input("past_key_values.0.key", tensor.Float16Type, -1, 2, -1, 8), "batch_size", "", "past_sequence_length"),
		input("past_key_values.0.value", tensor.Float32, -1, 2, -1, 8),
		named(input("past_1", tensor.Float32, 2, -1, 4, -1, 8), "", "batch_size", "", "past"),
		input("past_sliding", tensor.Float32, -1, 2, -1, 8),
		input("use_cache_branch", tensor.Bool, 1),
	}
	inputs[5].Shape[2].Least = 6
	want := map[string][]int64{"past_sliding": {1, 2, 6, 8}, "past_key_values.0.key": {1, 2, 0, 8}, "past_key_values.0.value": {1, 2, 0, 8}, "past_1": {2, 1, 4, 0, 8}, "use_cache_branch": {1}}
	random, err := calib.NewRandom(1, inputs, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for kind, r := range map[string]calib.Reader{"text": mustOpen(t, dir, "kind: bytes\nfile: t.txt\nseq: 4", calib.Options{}, inputs...), "random": random} {
		for _, in := range inputs {
			v, shape, _ := values(t, r, 0, in.Name)
			if w := want[in.Name]; w != nil && !slices.Equal(shape, w) {
				t.Errorf("%s: %s has shape %v, want %v", kind, in.Name, shape, w)
			}
			if in.Name == "use_cache_branch" && v[0] != 0 {
				t.Errorf("%s: the cache is switched on", kind)
			}
			if length := map[string]int64{"text": 4, "random": calib.RandomSize}[kind]; in.Name == "attention_mask" && !slices.Equal(shape, []int64{1, length}) {
				t.Errorf("%s: the mask has shape %v", kind, shape)
			}
		}
	}
	if _, err := open(t, dir, "kind: bytes\nfile: t.txt\nseq: 4", calib.Options{}, inputs[0], input("past_state", tensor.Float32, 1, 2, 8)); err == nil {
		t.Error("a state of a fixed size was taken for a cache, which it would make up")
	}
	if _, err := open(t, dir, "kind: bytes\nfile: t.txt\nseq: 4", calib.Options{}, inputs[0], input("past_key_values.0.encoder.key", tensor.Float32, -1, 2, -1, 8)); err == nil {
		t.Error("a decoder was fed text without what its encoder made of the input")
	}
}

func TestTokens(t *testing.T) {
	raw := "\x01\x00\x02\x00\x00\x01\x04\x00\x05\x00"
	dir := folder(t, map[string]string{"t.bin": raw, "t.npy": npy("<u2", "5,", raw), "t.npz": npz(t, map[string]string{"ids": npy("<u2", "5,", raw)})})
	for _, recipe := range []string{"file: t.bin\ndtype: uint16", "file: t.npy", "file: t.npz", "file: t.npz\narray: ids"} {
		r := mustOpen(t, dir, "kind: tokens\n"+recipe, calib.Options{}, input("ids", tensor.Int32, 1, 4))
		v, _, s := values(t, r, 0, "ids")
		if r.Len() != 1 || !slices.Equal(v, []float64{1, 2, 256, 4}) || !slices.Equal(s.Targets, []int{2, 256, 4, 5}) {
			t.Errorf("%q: %d windows, %v → %v", recipe, r.Len(), v, s.Targets)
		}
	}
}

func TestBadData(t *testing.T) {
	dir := folder(t, map[string]string{
		"i": idxImages, "cut": idxImages[:20], "long": idxImages + "x", "l": idxLabels, "l3": "\x00\x00\x08\x01\x00\x00\x00\x03\x01\x01\x01", "junk": "junk and nothing else", "100%done": "junk",
		"a.npz":  npz(t, map[string]string{"x": npy("<f4", "2, 2", "short"), "y": npy("<c8", "1,", "12345678")}),
		"l3.npz": npz(t, map[string]string{"x": npy("|u1", "2, 6", "abcdefabcdef"), "l": npy("|u1", "3,", "abc")}),
		"l.npz":  npz(t, map[string]string{"x": npy("|u1", "2, 6", "abcdefabcdef"), "less": npy("|i1", "2,", "\x00\xff"), "float": npy("<f4", "2,", "\x00\x00\x80\x3f\x00\x00\x00\x40")}),
		"x.npy":  npy("|u1", "2, 6", "abcdefabcdef"), "cut.npy": npy("<f4", "2, 6", "short"),
		"huge.npy": npy("<i8", "4611686018427387904, 4", ""), "t.bin": "\xff\xff\xff\xff\xff\xff\xff\xff",
		"l.csv": "file,label\nno.png,1\n", "bad.csv": "name,class\n", "t.txt": "abcdefgh",
	})
	x, ids := input("x", tensor.Float32, -1, 2, 3), input("ids", tensor.Int64, -1, -1)
	for _, c := range []struct {
		recipe, want string
		in           tensor.Spec
	}{
		{"kind: idx\nimages: none", "no such file", x},
		{"kind: idx\nimages: junk", "is not an IDX file", x},
		{"kind: idx\nimages: 100%done", "100%done is not an IDX file", x},
		{"kind: idx\nimages: cut", "cut or damaged", x},
		{"kind: idx\nimages: i\nlabels: l3", "3 labels for 2 images", x},
		{"kind: idx\nimages: i\nshape: [-1, 7]", "6", x},
		{"kind: idx\nimages: i\nshape: [-1, 6]", "the model's input is x float32[?,2,3]", x},
		{"kind: idx\nimages: i\ninput: y", "no input \"y\"", x},
		{"kind: idx\nimages: i\npixel: {mean: [1, 2]}", "2 values", x},
		{"kind: npz\nfile: junk", "not a NumPy archive", x},
		{"kind: npz\nfile: a.npz", "name one", x},
		{"kind: npz\nfile: a.npz\narray: z", "no array", x},
		{"kind: npz\nfile: a.npz\narray: x", "too short", x},
		{"kind: npz\nfile: a.npz\narray: y", "<c8", x},
		{"kind: npz\nfile: l3.npz\narray: x\nlabels: l\nshape: [-1, 2, 3]", "3 labels for 2 samples", x},
		{"kind: npz\nfile: l.npz\narray: x\nlabels: less\nshape: [-1, 2, 3]", "array less has label -1 for sample 1; classes count from 0", x},
		{"kind: npz\nfile: l.npz\narray: x\nlabels: float\nshape: [-1, 2, 3]", "holds float32, not integers; save y.astype", x},
		{"kind: npz\nfile: x.npy\nlabels: y.npy\nshape: [-1, 2, 3]", "numpy.savez", x},
		{"kind: npz\nfile: cut.npy", "cut.npy announces [2,6] elements and is too short", x},
		{"kind: idx\nimages: long", "cut or damaged", x},
		{"kind: images\ndir: .\nlabels: l.csv", "no.png", x},
		{"kind: images\ndir: .\nlabels: bad.csv", "first line is file,label", x},
		{"kind: images\ndir: none", "none", x},
		{"kind: images\ndir: .", "no .jpg", x},
		{"kind: bytes\nfile: t.txt\nseq: 8", "fewer than one window", ids},
		{"kind: bytes\nfile: t.txt\nseq: 9223372036854775807", "fewer than one window", ids},
		{"kind: bytes\nfile: t.txt", "seq: is missing", ids},
		{"kind: bytes\nfile: t.txt\nseq: 4", "integer input", x},
		{"kind: tokens\nfile: t.txt\nseq: 4", "dtype: is missing", ids},
		{"kind: tokens\nfile: huge.npy\nseq: 4", "too short", ids},
		{"kind: tokens\nfile: t.bin\ndtype: int32\nseq: 1", "no token id", ids},
	} {
		r, err := open(t, dir, c.recipe, calib.Options{}, c.in)
		if err == nil {
			_, err = r.Sample(0)
		}
		var recipe *calib.RecipeError
		if !errors.As(err, &recipe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want a RecipeError with %q", c.recipe, err, c.want)
		}
	}
	if _, err := open(t, dir, "kind: idx\nimages: i", calib.Options{}, x, ids); err == nil || !strings.Contains(err.Error(), "inputs x, ids") {
		t.Errorf("two inputs and none named: %v", err)
	}
}

func TestRandom(t *testing.T) {
	named := tensor.Spec{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1, Name: "batch"}, {Size: -1, Name: "sequence"}, {Size: 3}}}
	sr := tensor.Spec{Name: "sr", Type: tensor.Int64, Ranked: true}
	read := func(spelling string, seed uint64) *calib.Sample {
		t.Helper()
		r, err := calib.Open(spelling, []tensor.Spec{named, sr}, calib.Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Sample(1)
		if err != nil || !r.Random() || r.Len() != 2 {
			t.Fatalf("%v, random %v, %d samples", err, r.Random(), r.Len())
		}
		return s
	}
	a, b, c := read("random:2", 1), read("random:2", 1), read("random:2", 2)
	if !slices.Equal(a.Inputs["x"].Shape, []int64{1, 16, 3}) || !bytes.Equal(a.Inputs["x"].Data, b.Inputs["x"].Data) || bytes.Equal(a.Inputs["x"].Data, c.Inputs["x"].Data) {
		t.Error("shape or seed ignored")
	}
	d := read("random:2,sequence=5,sr=16000", 1)
	if v, err := tensor.View[int64](d.Inputs["sr"]); err != nil || v[0] != 16000 || d.Inputs["x"].Shape[1] != 5 {
		t.Errorf("given sizes ignored: %v %v", v, d.Inputs["x"].Shape)
	}
	picture := tensor.Spec{Name: "pixel_values", Type: tensor.Float32, Ranked: true,
		Shape: []tensor.Dim{{Size: -1, Name: "batch_size"}, {Size: -1, Name: "num_channels"}, {Size: -1, Name: "height"}, {Size: -1, Name: "width"}}}
	for spelling, want := range map[string][]int64{"random:1": {1, 3, 224, 224}, "random:1,num_channels=1,height=28,width=30": {1, 1, 28, 30}} {
		r, err := calib.Open(spelling, []tensor.Spec{picture}, calib.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := r.Sample(0); err != nil || !slices.Equal(s.Inputs["pixel_values"].Shape, want) {
			t.Errorf("%s: a picture of %v, want %v: %v", spelling, s.Inputs["pixel_values"].Shape, want, err)
		}
	}
	// A name is one size, although a first dimension of that name is a batch and others are not.
	state := tensor.Spec{Name: "h", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: 2}, {Size: -1, Name: "N"}, {Size: 4}}}
	for spelling, want := range map[string]int64{"random:1": 1, "random:1,N=5": 5} {
		r, err := calib.Open(spelling, []tensor.Spec{state, {Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1, Name: "N"}, {Size: 3}}}}, calib.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := r.Sample(0); err != nil || s.Inputs["h"].Shape[1] != want || s.Inputs["x"].Shape[0] != want {
			t.Errorf("%s: N is %v and %v, want %d: %v", spelling, s.Inputs["h"].Shape, s.Inputs["x"].Shape, want, err)
		}
	}
	for _, bad := range []string{"random:0", "random:x", "random:2,sequence", "random:2,sequenze=5"} {
		_, err := calib.Open(bad, []tensor.Spec{named, sr}, calib.Options{})
		var recipe *calib.RecipeError
		if !errors.As(err, &recipe) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// A dimension that several inputs have is listed once.
	if _, err := calib.Open("random:2,zzzzzzzz=5", []tensor.Spec{named, sr, named}, calib.Options{}); err == nil || strings.Count(err.Error(), "sequence") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestBatches(t *testing.T) {
	dir := folder(t, map[string]string{"t.txt": "abcdefghijklmnop"})
	r := mustOpen(t, dir, "kind: bytes\nfile: t.txt\nseq: 2", calib.Options{Limit: 5}, input("ids", tensor.Int64, -1, -1))
	var shapes []string
	for b, err := range calib.Batches(r, 2, false) {
		if err != nil {
			t.Fatal(err)
		}
		shapes = append(shapes, fmt.Sprint(b.First, len(b.Samples), b.Inputs["ids"].Shape))
	}
	if got := strings.Join(shapes, " "); got != "0 2 [2 2] 2 2 [2 2] 4 1 [1 2]" {
		t.Error(got)
	}
	for b, err := range calib.Batches(r, 4, true) {
		if err != nil || b.Inputs["ids"].Shape[0] != 4 {
			t.Errorf("a fixed batch is not filled up: %v %v", err, b.Inputs["ids"].Shape)
		}
	}
}

func TestBatchSize(t *testing.T) {
	one := &calib.Sample{Inputs: map[string]*tensor.Tensor{"a": tensor.Of(make([]int64, 3), 1, 3), "b": tensor.Of(make([]int64, 4), 4), "c": tensor.Of([]int64{1})}}
	for _, c := range []struct {
		inputs []tensor.Spec
		size   int
		fixed  bool
		reason string
	}{
		{[]tensor.Spec{input("a", tensor.Int64, -1, 3)}, 8, false, "dynamic"},
		{[]tensor.Spec{input("a", tensor.Int64, 1, 3)}, 1, false, "fixed at one"},
		{[]tensor.Spec{input("a", tensor.Int64, 4, 3)}, 4, true, "fixed at four"},
		{[]tensor.Spec{input("a", tensor.Int64, -1, 3), input("b", tensor.Int64, 4)}, 1, false, "one input has no batch"},
		{[]tensor.Spec{input("a", tensor.Int64, -1, 3), input("c", tensor.Int64)}, 1, false, "one input is a scalar"},
	} {
		if size, fixed := calib.BatchSize(c.inputs, one, 8); size != c.size || fixed != c.fixed {
			t.Errorf("%s: %d, %v", c.reason, size, fixed)
		}
	}
}
