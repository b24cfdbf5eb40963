package ort_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/ort"
)

func TestFindLibraryOrder(t *testing.T) {
	dir := t.TempDir()
	touch := func(parts ...string) string {
		path := filepath.Join(append([]string{dir}, parts...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	explicit, byEnv := touch("a", "x.so"), touch("b", "y.so")
	versioned := touch("build", "ort", "libonnxruntime.so.1.30.0")
	if err := os.MkdirAll(filepath.Join(dir, "deep", "er"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "deep", "er"))
	t.Setenv(ort.EnvLibrary, byEnv)
	find := func(asked, want, reason string) {
		t.Helper()
		got, err := ort.FindLibrary(asked)
		if real, _ := filepath.EvalSymlinks(got); err != nil || got != want && real != want {
			t.Errorf("%s: %s, %v, want %s", reason, got, err, want)
		}
	}
	find(explicit, explicit, "explicit path first")
	find("", byEnv, "then the environment")
	t.Setenv(ort.EnvLibrary, "")
	find("", versioned, "then build/ort above the working directory")
	plain := touch("build", "ort", "libonnxruntime.so")
	find("", plain, "a plain name before a versioned one")

	t.Setenv(ort.EnvLibrary, filepath.Join(dir, "none.so"))
	if _, err := ort.FindLibrary(""); !errors.Is(err, ort.ErrUnavailable) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("a path that was asked for is not replaced: %v", err)
	}
	if _, err := ort.FindLibrary(dir); !errors.Is(err, ort.ErrUnavailable) || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
