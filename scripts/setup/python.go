package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed requirements.txt
var requirements []byte

// ensureVenv makes the virtual environment that the tests of the Python snippets run in, and that holds the backend tests of
// ONNX: 1.20 is the last version of the package that ships their data. The list that it was made from
// is kept inside it, so that a changed list makes it anew.
func ensureVenv(dir string, log io.Writer) error {
	stamp := filepath.Join(dir, "requirements.txt")
	python := filepath.Join(dir, "bin", "python")
	if made, err := os.ReadFile(stamp); err == nil && bytes.Equal(made, requirements) {
		// An interpreter that was upgraded or removed leaves a dead environment behind.
		if exec.Command(python, "-c", "import numpy, onnx, onnxruntime_genai").Run() == nil {
			return nil
		}
	}
	system, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("no python3; install Python 3.11 or later with venv and pip (Debian, Ubuntu: apt install python3-venv)")
	}
	fmt.Fprintln(log, "setup: making", dir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if out, err := exec.Command(system, "-m", "venv", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("python3 -m venv: %v: %s; install Python's venv (Debian, Ubuntu: apt install python3-venv)", err, lastLine(out))
	}
	pip := exec.Command(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary=:all:",
		"--requirement", "/dev/stdin")
	pip.Stdin = bytes.NewReader(requirements)
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("pip install into %s: %v: %s; Python 3.11 or later is needed", dir, err, lastLine(out))
	}
	return os.WriteFile(stamp, requirements, 0o644)
}
