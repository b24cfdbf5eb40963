package testenv

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRequire(t *testing.T) {
	t.Setenv(EnvRequire, "data, slow")
	for what, want := range map[string]bool{"data": true, "slow": true, "ort": false, "": false} {
		if got := Require(what); got != want {
			t.Errorf("Require(%q) = %v, want %v", what, got, want)
		}
	}
}

func TestDataSkipsWhenAbsent(t *testing.T) {
	t.Setenv(EnvData, t.TempDir())
	t.Setenv(EnvRequire, "")
	skipped := false
	t.Run("absent", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		Data(t, "models/none.onnx")
	})
	if !skipped {
		t.Error("a missing data file did not skip the test")
	}
}

func TestGunzip(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("model"))
	z.Close()
	src, dst := filepath.Join(dir, "m.gz"), filepath.Join(dir, "cache", "m")
	if err := os.WriteFile(src, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := gunzip(dst, src); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "model" {
		t.Fatalf("unpacked %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache", "unpack-*")); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// A container may be given the fourth GPU alone.
func TestGPUOfAnyNumber(t *testing.T) {
	for path, want := range map[string]bool{
		"/dev/nvidia3": true, "/dev/nvidia0": true, "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_1/libcuda.so.1.1": true,
		"/dev/nvidiactl": false, "/dev/dxg": false,
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hasGPU(root); got != want {
			t.Errorf("%s: a GPU is there is %v, want %v", path, got, want)
		}
	}
}

// Where there is a GPU the Go tests wait for the library of its kernels and may not do without; elsewhere they wait for nothing.
func TestMakefileBuildsForTheGPU(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("no make")
	}
	database := func(gpu string) string {
		cmd := exec.Command("make", "--print-data-base", "--dry-run", "tools-present", gpu)
		cmd.Dir, cmd.Env = Root(t), append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	with, without := database("GPU=/dev/nvidia3"), database("GPU=")
	if !strings.Contains(with, "\nunit: cuda-test\n") || strings.Contains(without, "\nunit: cuda-test\n") {
		t.Error("unit waits for cuda-test where there is no GPU, or does not where there is one")
	}
	makefile, err := os.ReadFile(filepath.Join(Root(t), "Makefile"))
	if look := "$(wildcard " + strings.Join(gpuFiles, " ") + ")"; err != nil || !strings.Contains(string(makefile), look) {
		t.Errorf("the Makefile does not look for a GPU by %s: %v", look, err)
	}
	if !strings.Contains(with, "\nbench-cuda: setup-cuda\n") {
		t.Error("bench-cuda does not set up its compiler")
	}
}
