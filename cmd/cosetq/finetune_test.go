package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// TestFinetuneInterrupted stops a training by Ctrl-C: the file it leaves runs, and --resume ends with the bytes of a training that
// was not stopped.
func TestFinetuneInterrupted(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	if err := save(filepath.Join(dir, "m.onnx"), mlp(64, 96, 32), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd, out := cosetqIn(dir, args...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	run("quantize", "m.onnx", "-o", "q.onnx", "--bits", "2")
	train := func(output string) []string {
		return []string{"finetune", "m.onnx", "q.onnx", "--data", "random:400", "--steps", "500", "--batch", "16", "--every", "10", "-o", output}
	}
	run(train("whole.onnx")...)

	cmd := exec.Command("cosetq", train("broken.onnx")...)
	cmd.Dir = dir
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "step 30 ") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !strings.Contains(text.String(), "--resume goes on") {
		t.Fatalf("interrupted: %v, log:\n%s", err, &text)
	}
	run("eval", "m.onnx", "broken.onnx", "--task", "agreement", "--data", "random:20")
	run(append(train("broken.onnx"), "--resume")...)
	for _, end := range []string{"", ".data"} {
		_, err := os.Stat(filepath.Join(dir, "whole.onnx"+end))
		if errors.Is(err, os.ErrNotExist) {
			continue // so small a model has its codes inside
		}
		if a, b := sha256Of(t, filepath.Join(dir, "whole.onnx"+end)), sha256Of(t, filepath.Join(dir, "broken.onnx"+end)); a != b {
			t.Errorf("%q differs: %s unbroken, %s resumed", end, a, b)
		}
	}
}
