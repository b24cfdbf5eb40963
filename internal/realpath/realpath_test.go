package realpath_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/realpath"
)

func TestOf(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"a/b", "elsewhere/deep"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../elsewhere/deep", "a/link"); err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct{ path, want string }{
		{"m.onnx", "m.onnx"},
		{"a/b/../m.onnx", "a/b/../m.onnx"},
		{"a/link/m.onnx", "a/link/m.onnx"},
		{"a/link/../m.onnx", filepath.FromSlash("elsewhere/m.onnx")},
		{"a/none/../m.onnx", "a/none/../m.onnx"},
	} {
		if got := realpath.Of(tt.path); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
}

func TestSame(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"m", "./m", true},
		{"m", filepath.Join(dir, "m"), true},
		{"m", "n", false},
		{"no/m", "no/m", false},
	} {
		if got := realpath.Same(tt.a, tt.b); got != tt.want {
			t.Errorf("%s and %s: %v", tt.a, tt.b, got)
		}
	}
}
