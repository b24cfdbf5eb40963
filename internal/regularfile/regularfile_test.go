package regularfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/regularfile"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := regularfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := regularfile.Open(dir); !errors.Is(err, regularfile.ErrNot) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := regularfile.Open(os.DevNull); !errors.Is(err, regularfile.ErrNot) {
		t.Errorf("a device: %v", err)
	}
	if _, err := regularfile.Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
