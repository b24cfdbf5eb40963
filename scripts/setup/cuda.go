package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

//go:embed cuda-requirements.txt
var cudaRequirements []byte

// ensureCUDA puts NVIDIA's compiler, the headers that it needs and its disassembler into dir, as dir/nvidia/cu13/bin/nvcc. It needs no GPU and no
// driver. pip checks every package against the sum in the list, which is kept in the folder like that of the virtual environment.
// It fetches nothing where a compiler is there to take: a machine with a GPU and CUDA's toolkit may have no network.
func ensureCUDA(dir, goos, arch string, log io.Writer) error {
	if installed := installedNVCC(dir); installed != "" {
		fmt.Fprintln(log, "setup: the CUDA compiler is", installed)
		return nil
	}
	if goos != "linux" || arch != "amd64" {
		return fmt.Errorf("no CUDA compiler is pinned for %s/%s, only for linux/amd64; install CUDA 13.0 or later yourself, "+
			"with its nvcc on the path, or call make with NVCC=<path of nvcc>", goos, arch)
	}
	stamp := filepath.Join(dir, "requirements.txt")
	if made, err := os.ReadFile(stamp); err == nil && bytes.Equal(made, cudaRequirements) {
		return nil
	}
	system, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("no python3; install Python 3 with pip (Debian, Ubuntu: apt install python3-pip)")
	}
	fmt.Fprintln(log, "setup: fetching NVIDIA's CUDA compiler into", dir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	pip := exec.Command(system, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-compile",
		"--only-binary=:all:", "--require-hashes", "--target", dir, "--requirement", "/dev/stdin")
	pip.Stdin = bytes.NewReader(cudaRequirements)
	// A user's wish that pip touch virtual environments only does not concern a folder of our own.
	pip.Env = append(os.Environ(), "PIP_REQUIRE_VIRTUALENV=0", "PIP_NO_INPUT=1")
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("pip install into %s: %v: %s", dir, err, lastLine(out))
	}
	return os.WriteFile(stamp, cudaRequirements, 0o644)
}

// recent matches what nvcc of CUDA 13 or later says of its version.
var recent = regexp.MustCompile(`release (1[3-9]|[2-9]\d)\.`)

// installedNVCC is the compiler that cudaops/cuda/build.mk takes although none was fetched into dir: the one that NVCC names, or
// one on the path that is recent enough.
func installedNVCC(dir string) string {
	if named := os.Getenv("NVCC"); named != "" {
		return named
	}
	if _, err := os.Stat(dir); err == nil {
		return ""
	}
	path, err := exec.LookPath("nvcc")
	if err != nil {
		return ""
	}
	if version, err := exec.Command(path, "--version").Output(); err != nil || !recent.Match(version) {
		return ""
	}
	return path
}
