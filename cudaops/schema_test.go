package cudaops

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHeaderIsFresh(t *testing.T) {
	got, err := os.ReadFile(filepath.FromSlash("include/cosetq/schema.h"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Header() {
		t.Error("include/cosetq/schema.h differs from schema.go; run `go generate ./cudaops`")
	}
}

// C++ beside Go files of a package without cgo breaks the build, but only when cgo is on.
func TestNoNativeSourcesBesideGo(t *testing.T) {
	var folders []string
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range folders {
		gos, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		var native []string
		for _, pattern := range []string{"*.c", "*.cc", "*.cpp", "*.cxx"} {
			found, _ := filepath.Glob(filepath.Join(dir, pattern))
			native = append(native, found...)
		}
		if len(gos) > 0 && len(native) > 0 {
			t.Errorf("%s holds both Go files and %v", dir, native)
		}
	}
}

func TestSnippets(t *testing.T) {
	for _, s := range Snippets() {
		if s.Language == "" || len(s.Text) == 0 {
			t.Errorf("snippet %+v is empty", s)
		}
		if s.Name == "README.md" {
			continue
		}
		text := strings.ToLower(string(s.Text))
		if !strings.Contains(text, "ops") || !strings.Contains(text, "library") {
			t.Errorf("%s does not load the library", s.Name)
		}
	}
	if len(Snippets()) != 8 {
		t.Errorf("%d snippets, want 8", len(Snippets()))
	}
	if !strings.Contains(string(PublicHeader()), RegisterSymbol) {
		t.Errorf("the public header does not declare %s", RegisterSymbol)
	}
}

// What reads a weight finds its parts at the same inputs of both operators.
func TestGatherInputs(t *testing.T) {
	gather, linear := GatherInputs(), Inputs()
	if gather[0] != InputIndices || linear[0] != InputA || !slices.Equal(gather[1:], linear[1:len(gather)]) || linear[len(gather)] != InputBias {
		t.Errorf("HNLQGather takes %q, HNLQLinear %q", gather, linear)
	}
	if len(linear) != PlainInputs+1 || linear[PlainInputs] != InputSigns {
		t.Errorf("%d inputs without a rotation, of %q", PlainInputs, linear)
	}
}
