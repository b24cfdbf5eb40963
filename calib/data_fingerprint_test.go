package calib_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

// The fingerprint tells data apart by the recipe and by the content of every file that it names, wherever they lie.
func TestFingerprintData(t *testing.T) {
	dir := t.TempDir()
	write := func(dir, name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	print := func(path string, limit int) string {
		t.Helper()
		p, err := calib.FingerprintData(path, limit)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	large := make([]byte, 5<<20)
	for _, dir := range []string{dir, filepath.Join(dir, "copy")} {
		write(dir, "text", []byte("some text"))
		write(dir, "large", large)
		write(dir, "a.npz", []byte("a"))
		write(dir, "b.npz", []byte("b"))
		write(dir, "images.idx", []byte("images"))
		write(dir, "labels.idx", []byte("labels"))
		write(dir, "pictures/1.png", []byte("one"))
		write(dir, "pictures/2.png", []byte("two"))
		write(dir, "labels.csv", []byte("file,label\n1.png,0\n2.png,1\n"))
		write(dir, "text.yaml", []byte("kind: bytes\nfile: text"))
		write(dir, "large.yaml", []byte("kind: tokens\nfile: large"))
		write(dir, "npz.yaml", []byte("kind: npz\nfile: '*.npz'"))
		write(dir, "idx.yaml", []byte("kind: idx\nimages: images.idx\nlabels: labels.idx"))
		write(dir, "pictures.yaml", []byte("kind: images\ndir: pictures\nlabels: labels.csv"))
	}
	for _, tt := range []struct {
		recipe, file string
		content      []byte
	}{
		{"text.yaml", "text", []byte("some Text")},
		{"text.yaml", "text.yaml", []byte("kind: bytes\nfile: text\nseq: 7")},
		{"large.yaml", "large", large[1:]},
		{"large.yaml", "large", append(make([]byte, len(large)-1), 1)},
		{"npz.yaml", "b.npz", []byte("B")},
		{"npz.yaml", "c.npz", []byte("c")},
		{"idx.yaml", "images.idx", []byte("Images")},
		{"idx.yaml", "labels.idx", []byte("Labels")},
		{"pictures.yaml", "pictures/2.png", []byte("Two")},
		{"pictures.yaml", "labels.csv", []byte("file,label\n1.png,0\n2.png,2\n")},
	} {
		path := filepath.Join(dir, tt.recipe)
		before := print(path, 0)
		if copied := print(filepath.Join(dir, "copy", tt.recipe), 0); copied != before {
			t.Errorf("%s: a copy has another fingerprint", tt.recipe)
		}
		if again := print(path, 0); again != before {
			t.Errorf("%s: two fingerprints", tt.recipe)
		}
		first := print(path, 1)
		kept, err := os.ReadFile(filepath.Join(dir, tt.file))
		write(dir, tt.file, tt.content)
		if print(path, 0) == before {
			t.Errorf("%s: the fingerprint does not tell that %s changed", tt.recipe, tt.file)
		}
		if tt.file == "pictures/2.png" && print(path, 1) != first {
			t.Error("a picture past the limit counts")
		}
		if err == nil {
			write(dir, tt.file, kept)
		} else if err := os.Remove(filepath.Join(dir, tt.file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "text")); err != nil {
		t.Fatal(err)
	}
	if _, err := calib.FingerprintData(filepath.Join(dir, "text.yaml"), 0); err == nil {
		t.Error("a missing file has a fingerprint")
	}
}
