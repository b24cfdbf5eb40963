package main

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

// A tool from `go install`, built without a C compiler and without the native library beside it, quantizes with the same bytes,
// and says plainly what it cannot do.
func TestGoInstall(t *testing.T) {
	ops := testenv.Ops(t)
	dir := t.TempDir()
	tool := filepath.Join(dir, "cosetq")
	build := exec.Command("go", "build", "-trimpath", "-o", tool, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// A release is the same wherever it is built (`make reproducible`), so nothing in it names the place.
	for _, path := range []string{tool, ops} {
		if content, err := os.ReadFile(path); err != nil || bytes.Contains(content, []byte(testenv.Root(t))) {
			t.Errorf("%s: %v, or it has the path of the checkout inside", path, err)
		}
	}
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	run := func(tool string, env []string, args ...string) (code int, stderr string) {
		cmd := exec.Command(tool, args...)
		cmd.Dir, cmd.Env = dir, env
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		_ = cmd.Run() // the exit code tells
		return cmd.ProcessState.ExitCode(), errOut.String()
	}
	bare := []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	code, stderr := run(tool, bare, "quantize", files.Model, "-o", "plain.onnx")
	if code != exitOK || !strings.Contains(stderr, "plain Go") {
		t.Errorf("exit code %d, stderr %s", code, stderr)
	}
	if code, stderr := run("cosetq", append(os.Environ(), testenv.EnvOps+"="+ops), "quantize", files.Model, "-o", "native.onnx"); code != exitOK {
		t.Fatalf("exit code %d, stderr %s", code, stderr)
	}
	sum := func(name string) [32]byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(content)
	}
	if sum("plain.onnx.data") != sum("native.onnx.data") {
		t.Error("the weights differ from those that the native library codes")
	}
	if code, stderr := run(tool, bare, "inspect", "plain.onnx"); code != exitOK {
		t.Errorf("inspect: exit code %d, stderr %s", code, stderr)
	}
	if code, stderr := run(tool, bare, "run", "plain.onnx", "--data", "random:1"); code != exitRuntime || !strings.Contains(stderr, "hint: ") {
		t.Errorf("run without ONNX Runtime: exit code %d, stderr %s", code, stderr)
	}
}

// The manual has a page for every command, and completion knows them.
func TestManualAndCompletion(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), []string{"man", dir}, &bytes.Buffer{}, &bytes.Buffer{}); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, c := range newRoot(&console{}).Commands() {
		if !c.IsAvailableCommand() {
			continue // hidden, or help
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if kind, _ := pflag.UnquoteUsage(f); strings.Contains(kind, " ") || kind == "" && f.Value.Type() != "bool" {
				t.Errorf("%s --%s: its value is called %q; words in backquotes name the value", c.Name(), f.Name, kind)
			}
		})
		page, err := os.ReadFile(filepath.Join(dir, "cosetq-"+c.Name()+".1"))
		if err != nil || !bytes.Contains(page, []byte(c.Short)) {
			t.Errorf("%s: %v, or the page lacks its summary", c.Name(), err)
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"__complete", "comp"}, &out, &bytes.Buffer{}); code != exitOK || !strings.Contains(out.String(), "compare") {
		t.Errorf("exit code %d, completions %s", code, out.String())
	}
}

// Completion offers the values that the flag's own words name.
func TestCompletionOfValues(t *testing.T) {
	completed := map[string]bool{}
	for _, c := range newRoot(&console{}).Commands() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			values, ok := flagValues[f.Name]
			if !ok {
				return
			}
			completed[f.Name] = true
			var out bytes.Buffer
			if code := run(t.Context(), []string{"__complete", c.Name(), "--" + f.Name, ""}, &out, &bytes.Buffer{}); code != exitOK {
				t.Fatalf("%s --%s: exit code %d", c.Name(), f.Name, code)
			}
			for _, v := range values {
				if !slices.Contains(strings.Split(out.String(), "\n"), v) {
					t.Errorf("%s --%s: %q is not among the completions %q", c.Name(), f.Name, v, out.String())
				}
				if !strings.Contains(f.Usage, v) && f.DefValue != v {
					t.Errorf("%s --%s: its usage %q does not name %q", c.Name(), f.Name, f.Usage, v)
				}
			}
		})
	}
	for name := range flagValues {
		if !completed[name] {
			t.Errorf("no command has --%s", name)
		}
	}
}
