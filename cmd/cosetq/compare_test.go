package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

// A layer with more bits can make the file smaller: what data added for the bias goes.
func TestGrown(t *testing.T) {
	for n, want := range map[int64]string{4600: "+4.6 kB", 0: "+0 B", -327: "-327 B", -2300: "-2.3 kB"} {
		if got := grown(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}

// sabotage is a stdout whose first line does something to the world.
type sabotage struct {
	text strings.Builder
	act  func() error
}

func (s *sabotage) Write(b []byte) (int, error) {
	if s.text.Len() == 0 {
		if err := s.act(); err != nil {
			return 0, err
		}
	}
	return s.text.Write(b)
}

// What was found out is not lost with the page: here its folder goes in the last moment.
func TestPageFails(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	output, pages := filepath.Join(dir, "q.onnx"), filepath.Join(dir, "pages")
	if _, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"outputs over 4 samples", []string{"compare", files.Model, output, "--data", "random:4"}},
		{"quantized 3 of 3", []string{"quantize", files.Model, "-o", output, "--force"}},
	} {
		if err := os.Mkdir(pages, 0o777); err != nil {
			t.Fatal(err)
		}
		out, errOut := &sabotage{act: func() error { return os.Remove(pages) }}, &bytes.Buffer{}
		code := run(t.Context(), append(tt.args, "--report", filepath.Join(pages, "page.html")), out, errOut)
		if code != exitUsage || !strings.Contains(out.text.String(), tt.want) || !strings.Contains(errOut.String(), "page.html") {
			t.Errorf("%s: exit code %d\n%s\n%s", tt.args[0], code, out.text.String(), errOut)
		}
	}
}
