package calib_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/testenv"
)

func TestEveryRecipeOfTheTestDataParses(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(testenv.Data(t, "."), "*.yaml"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, path := range found {
		if _, err := calib.ReadRecipe(path); err != nil {
			t.Error(err)
		}
	}
}

func TestRecipeErrorsSayWhatWhereAndWhatToDo(t *testing.T) {
	for _, c := range []struct{ text, want, reason string }{
		{"", "is empty", "empty"},
		{"- a\n- b", "is not a mapping", "a list"},
		{"a: [", "is not valid YAML", "broken"},
		{"kind: byte\nfile: x", `did you mean "bytes"`, "kind misspelt"},
		{"kind: idx\nimage: x", `r.yaml:2: image: is not a key of kind idx (did you mean "images"?)`, "a required key misspelt"},
		{"kind: bytes\nfile: x\nseqq: 3", `r.yaml:3: seqq: is not a key of kind bytes (did you mean "seq"?)`, "key misspelt"},
		{"kind: bytes\nfile: x\npixel: {scale: 1}", "pixel: is not a key of kind bytes", "key of another kind"},
		{"kind: idx\nimages: x\npixel: {scale: 1, transposed: true}", `did you mean "pixel.transpose"`, "nested key misspelt"},
		{"kind: idx", "images: is missing", "required key"},
		{"file: x", "kind: is missing", "no kind"},
		{"kind: bytes\nfile: [1, 2]", `r.yaml:2: holds "[" where text belongs`, "a list for a text"},
		{"kind: npz\nfile: x\npixel:\n  mean: [a]", `r.yaml:4: holds "a" where a number belongs`, "words for numbers"},
		{"kind: bytes\nfile: x\nseq: many", `r.yaml:3: holds "many" where a number belongs`, "a word for a number"},
		{"kind: npz\nfile: x\npixel: 3", `r.yaml:3: holds "3" where a mapping`, "a number for a mapping"},
		{"kind: bytes\nfile: x\nseq: 0", "seq: is 0", "seq of zero"},
		{"kind: bytes\nkind: bytes\nfile: x", "already defined", "a key twice"},
		{"kind: idx\nimages: x\nshape: [-1, -1]", "more than once", "two batches"},
		{"kind: idx\nimages: x\nshape: [784, -1]", "first dimension", "batch inside"},
		{"kind: idx\nimages: x\nshape: [-1, 0]", "positive", "size zero"},
		{"kind: npz\nfile: x\npixel: {std: [1, 0, 1]}", "divide by zero", "std of zero"},
		{"kind: npz\nfile: x\npixel: {std: [1, .inf, 1]}", "pixel.std: holds +Inf", "a deviation that is infinite"},
		{"kind: npz\nfile: x\npixel: {mean: [.nan]}", "pixel.mean: holds NaN", "a mean that is none"},
		{"kind: npz\nfile: x\npixel: {scale: -.inf}", "pixel.scale: holds -Inf", "a scale that is infinite"},
		{"kind: npz\nfile: x\npixel: {layout: nchv}", `did you mean "nchw"`, "layout misspelt"},
		{"kind: images\ndir: x\nresize: {shorter: 200, crop: 224}", "more than resize.shorter", "crop too large"},
		{"kind: images\ndir: x\nresize: {filter: bicubik}", `did you mean "bicubic"`, "filter misspelt"},
		{"kind: tokens\nfile: x\ndtype: float32", "dtype", "ids that are no integers"},
	} {
		_, err := calib.ParseRecipe("r.yaml", []byte(c.text))
		var recipe *calib.RecipeError
		if !errors.As(err, &recipe) {
			t.Errorf("%s: %v, want a RecipeError", c.reason, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", c.reason, err, c.want)
		}
	}
}

func TestMissingRecipe(t *testing.T) {
	_, err := calib.Open(filepath.Join(t.TempDir(), "no.yaml"), nil, calib.Options{})
	var recipe *calib.RecipeError
	if !errors.As(err, &recipe) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want a RecipeError caused by a missing file", err)
	}
}

func FuzzRecipe(f *testing.F) {
	f.Add("kind: bytes\nfile: x\nseq: 256")
	f.Add("kind: idx\nimages: a.gz\nlabels: b.gz\npixel: {scale: 0.1, transpose: true}\nshape: [-1, 784]")
	f.Add("kind: images\ndir: d\nlabels: l.csv\nresize: {shorter: 8, filter: bicubic, antialias: true, crop: 4}\npixel: {mean: [0.5]}")
	f.Add("kind: npz\nfile: &a x\narray: *a")
	f.Add("? [a, b]\n: c")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := calib.ParseRecipe("fuzz.yaml", []byte(text))
		var recipe *calib.RecipeError
		if err != nil && !errors.As(err, &recipe) {
			t.Fatalf("not a RecipeError: %v", err)
		}
		if (r == nil) != (err != nil) && err == nil {
			t.Fatal("neither recipe nor error")
		}
	})
}

func TestRecipeFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.npz", "b.npz", "x.png", "y.jpg", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "labels.csv"), []byte("file,label\nx.png,3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		recipe string
		want   []string
	}{
		{"{kind: idx, images: i.gz, labels: l.gz}", []string{"i.gz", "l.gz"}},
		{"{kind: npz, file: '*.npz', labels: array}", []string{"a.npz", "b.npz"}},
		{"{kind: bytes, file: notes.txt, seq: 8}", []string{"notes.txt"}},
		{"{kind: images, dir: .}", []string{"x.png", "y.jpg"}},
		{"{kind: images, dir: ., labels: labels.csv}", []string{"x.png", "labels.csv"}},
	} {
		r, err := calib.ParseRecipe(filepath.Join(dir, "r.yaml"), []byte(tt.recipe))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range r.Files() {
			got = append(got, filepath.Base(f))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.recipe, got, tt.want)
		}
	}
}
