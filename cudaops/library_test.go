package cudaops

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
)

// A folder tree with a binary in bin, as go run builds one, and a working directory deep inside it.
func layout(t *testing.T) (root string, f finder) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(root, "work", "a", "b")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := touch(t, filepath.Join(root, "go-build1", "bin", "cosetq"))
	return root, finder{
		library: LibraryName, variable: EnvLibrary, build: "make build",
		getenv:     func(string) string { return "" },
		executable: func() (string, error) { return exe, nil },
		getwd:      func() (string, error) { return work, nil },
	}
}

func touch(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindOrder(t *testing.T) {
	root, f := layout(t)
	// From the last place tried to the first: each new file must win over those before it.
	for _, rel := range []string{
		"build/ops", "work/build/ops", "work/a/b/build/ops", "go-build1/lib", "go-build1/build/ops", "go-build1/bin",
	} {
		want := touch(t, filepath.Join(root, filepath.FromSlash(rel), LibraryName))
		if got, err := f.find(""); err != nil || got != want {
			t.Errorf("find() = %q, %v, want %q", got, err, want)
		}
	}
	env := touch(t, filepath.Join(root, "env.so"))
	f.getenv = func(name string) string {
		if name != EnvLibrary {
			t.Errorf("asked for %s", name)
		}
		return env
	}
	if got, err := f.find(""); err != nil || got != env {
		t.Errorf("find() with %s = %q, %v", EnvLibrary, got, err)
	}
	explicit := touch(t, filepath.Join(root, "explicit.so"))
	if got, err := f.find(explicit); err != nil || got != explicit {
		t.Errorf("find(explicit) = %q, %v", got, err)
	}
}

// An installed program does not load what lies where its user works.
func TestPlantedLibrary(t *testing.T) {
	root, f := layout(t)
	touch(t, filepath.Join(root, "work", "a", "b", "build", "ops", LibraryName))
	exe := touch(t, filepath.Join(root, "install", "bin", "cosetq"))
	f.executable = func() (string, error) { return exe, nil }
	if got, err := f.find(""); err == nil {
		t.Errorf("found %s", got)
	}
}

func TestFindThroughSymlink(t *testing.T) {
	root, f := layout(t)
	want := touch(t, filepath.Join(root, "go-build1", "bin", LibraryName))
	link := filepath.Join(root, "cosetq")
	if err := os.Symlink(filepath.Join(root, "go-build1", "bin", "cosetq"), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	f.executable = func() (string, error) { return link, nil }
	if got, err := f.find(""); err != nil || got != want {
		t.Errorf("find() = %q, %v, want %q", got, err, want)
	}
}

func TestFindFails(t *testing.T) {
	root, f := layout(t)
	_, err := f.find("")
	var notFound *NotFoundError
	if !errors.As(err, &notFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("find() error %v, want *NotFoundError", err)
	}
	for _, want := range []string{"make build", "make setup", EnvLibrary, filepath.Join(root, "go-build1", "lib"), filepath.Join(root, "work", "a", "build")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q: %v", want, err)
		}
	}
	// What was asked for by name is never replaced by something found elsewhere.
	touch(t, filepath.Join(root, "go-build1", "bin", LibraryName))
	missing := filepath.Join(root, "missing.so")
	if _, err := f.find(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("find(missing) error %v", err)
	}
	if _, err := f.find(root); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("find(folder) error %v", err)
	}
	f.getenv = func(string) string { return missing }
	if _, err := f.find(""); err == nil || !strings.Contains(err.Error(), EnvLibrary) {
		t.Errorf("find() with a bad %s: error %v", EnvLibrary, err)
	}
}

func TestFindBuiltLibrary(t *testing.T) {
	path := testenv.Ops(t)
	t.Setenv(EnvLibrary, path)
	if got, err := FindLibrary(""); err != nil || got != path {
		t.Errorf("FindLibrary() = %q, %v, want %q", got, err, path)
	}
}
