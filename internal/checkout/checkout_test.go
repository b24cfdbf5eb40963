package checkout_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/checkout"
)

func TestFolders(t *testing.T) {
	here := filepath.FromSlash("/a/b")
	for exe, want := range map[string][]string{
		"/tmp/go-build123/b001/ort.test": {"/a/b", "/a", "/"},
		"/tmp/go-build123/b001/exe/run":  {"/a/b", "/a", "/"},
		"/usr/local/bin/cosetq":          nil,
		"/srv/my-go-builds/bin/cosetq":   nil,
		"cosetq":                         nil,
	} {
		var slashed []string
		for _, f := range checkout.Folders(filepath.FromSlash(exe), here) {
			slashed = append(slashed, filepath.ToSlash(f))
		}
		if !slices.Equal(slashed, want) {
			t.Errorf("%s: %v, want %v", exe, slashed, want)
		}
	}
}

// The rule is about what the go command does today.
func TestThisTest(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if len(checkout.Folders(exe, "/")) == 0 {
		t.Skipf("%s was not started by go test itself", exe)
	}
}
