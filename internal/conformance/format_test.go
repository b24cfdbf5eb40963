package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
)

// A reader written from docs/format.md alone decodes the files of every version to the recorded weights, bit for bit.
func TestFormatAsDocumented(t *testing.T) {
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		absent(t, "python", "%v; run `make setup-python`", err)
	}
	files, err := filepath.Glob(filepath.Join(testenv.Root(t), "rewrite", "testdata", "compat", "*", "*.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files, %v", err)
	}
	for _, path := range files {
		want, err := os.ReadFile(strings.TrimSuffix(path, ".onnx") + ".f32")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(python, filepath.Join("testdata", "decode.py"), path)
		var problems bytes.Buffer
		cmd.Stderr = &problems
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: not as recorded, %v\n%s", path, err, problems.Bytes())
		}
	}
}
