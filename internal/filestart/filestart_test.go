package filestart_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/filestart"
)

func TestIs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, tt := range []struct {
		content string
		want    bool
	}{{"magic and more", true}, {"magic", true}, {"magi", false}, {"Magic", false}, {"", false}} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := filestart.Is(path, "magic"); got != tt.want {
			t.Errorf("%q: %v", tt.content, got)
		}
	}
	if filestart.Is(dir, "magic") || filestart.Is(filepath.Join(dir, "none"), "") {
		t.Error("a folder or no file at all starts like a file")
	}
}
