package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing is fetched where a compiler is there that the build takes.
func TestInstalledCompilerIsTaken(t *testing.T) {
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "cuda")
	t.Setenv("PATH", bin)
	t.Setenv("NVCC", "")
	program := func(name, says string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, name), fmt.Appendf(nil, "#!/bin/sh\n%s\n", says), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("python3", "echo no network; exit 1")
	fetches := func() bool {
		err := ensureCUDA(dir, "linux", "amd64", io.Discard)
		if err != nil && !strings.Contains(err.Error(), "no network") {
			t.Fatal(err)
		}
		return err != nil
	}
	if !fetches() {
		t.Error("no compiler, and none is fetched")
	}
	program("nvcc", "echo Cuda compilation tools, release 12.9, V12.9.86")
	if !fetches() {
		t.Error("an nvcc that is too old was taken")
	}
	program("nvcc", "echo Cuda compilation tools, release 13.0, V13.0.88")
	if fetches() {
		t.Error("an nvcc on the path was not taken")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !fetches() {
		t.Error("what was fetched comes first in the build, and was not brought up to date")
	}
	t.Setenv("NVCC", "/opt/nvcc")
	if fetches() {
		t.Error("the compiler that NVCC names was not taken")
	}
}
