// Package testenv finds what tests need from outside the module: the models and data sets that never ship with the
// project, ONNX Runtime, and the native ops library.
//
// A test that asks for something absent is skipped with a message naming the file and what would bring it.
// The environment variable COSETQ_REQUIRE, a comma-separated list, turns those skips into failures, so that a continuous
// integration run cannot pass by skipping: "data" for models and data sets, "ort" for ONNX Runtime, "ops" for the native
// library, "cuda" for a GPU and the library of its kernels, "node" for Node with the packages of ONNX Runtime, "chromium" for the browser. The word "slow" in the same list asks for the long form of tests that have one (see [Slow]).
//
// It is for tests only and imports nothing of the module.
package testenv

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Environment variables that override where things are looked for.
const (
	EnvData     = "COSETQ_DATA"         // folder of the test models and data
	EnvORT      = "COSETQ_ORT_LIBRARY"  // ONNX Runtime shared library
	EnvOps      = "COSETQ_OPS_LIBRARY"  // native ops library
	EnvCUDA     = "COSETQ_CUDA_LIBRARY" // library of GPU kernels
	envAccuracy = "COSETQ_ACCURACY"     // how closely the native ops library keeps activations
	EnvRequire  = "COSETQ_REQUIRE"      // what must not be skipped: data, ort, ops, cuda, python, node, chromium, slow
)

// Require tells whether COSETQ_REQUIRE lists what.
func Require(what string) bool {
	return slices.ContainsFunc(strings.Split(os.Getenv(EnvRequire), ","), func(s string) bool {
		return strings.TrimSpace(s) == what
	})
}

// Slow tells whether the long form of a test was asked for (COSETQ_REQUIRE=slow).
func Slow() bool { return Require("slow") }

// Numbers leaves a test out of short runs, which are those under the race detector: it looks at numbers, and starts no goroutines that
// other tests do not start as well.
func Numbers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("a test of numbers; the run without -short has it")
	}
}

// Root is the repository root: the nearest folder upwards from the working directory that holds go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("testenv: no working directory: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("testenv: no go.mod above the working directory; run the tests inside the checkout")
		}
		dir = parent
	}
}

// Data is the path of a file or folder of the test data, given relative to the data folder ("models/x.onnx").
// The data folder is COSETQ_DATA or, without it, shared/data beside the repository.
func Data(t testing.TB, rel string) string {
	t.Helper()
	dir := os.Getenv(EnvData)
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "data")
	}
	path := filepath.Join(dir, filepath.FromSlash(rel))
	if _, err := os.Stat(path); err != nil {
		missing(t, "data", "%v; set %s to the folder of the test data", err, EnvData)
	}
	return path
}

// Accurate has the native library keep activations in 16 bits until the test ends. Tests that compare outputs closely ask for it,
// since what the library does by itself depends on the processor.
func Accurate(t testing.TB) {
	t.Helper()
	t.Setenv(envAccuracy, "1")
}

// ORT is the path of the ONNX Runtime shared library: COSETQ_ORT_LIBRARY or build/ort/libonnxruntime.so of the checkout.
func ORT(t testing.TB) string {
	t.Helper()
	return library(t, "ort", EnvORT, "build/ort/libonnxruntime.so*", "make setup")
}

// Ops is the path of the native ops library: COSETQ_OPS_LIBRARY or build/ops/libcosetq.so of the checkout.
func Ops(t testing.TB) string {
	t.Helper()
	return library(t, "ops", EnvOps, "build/ops/libcosetq.so", "make build")
}

// gpuFiles are there where NVIDIA's driver has a GPU, of any number: its devices, or under WSL the driver of Windows, since /dev/dxg is
// there for GPUs of all makers. The Makefile looks for the same.
var gpuFiles = []string{"/dev/nvidia[0-9]*", "/usr/lib/wsl/drivers/*/libcuda.so.1.1"}

// HasGPU tells whether a GPU is there.
func HasGPU() bool { return hasGPU("") }

func hasGPU(root string) bool {
	return slices.ContainsFunc(gpuFiles, func(pattern string) bool {
		found, err := filepath.Glob(root + pattern)
		return err == nil && len(found) > 0
	})
}

// CUDA is the path of the library of GPU kernels, on a machine with a GPU: COSETQ_CUDA_LIBRARY or build/ops/libcosetq_cuda.so of
// the checkout.
func CUDA(t testing.TB) string {
	t.Helper()
	path := library(t, "cuda", EnvCUDA, "build/ops/libcosetq_cuda.so", "make cuda")
	if !HasGPU() {
		missing(t, "cuda", "no GPU: there is no %s", strings.Join(gpuFiles, " or "))
	}
	return path
}

// Backend is the folder with the backend tests of ONNX (node/test_matmul_2d and so on): those of the onnx package in
// build/venv, or of Debian's libonnx-testdata.
func Backend(t testing.TB) string {
	t.Helper()
	pattern := filepath.Join(Root(t), "build", "venv", "lib", "python3*", "site-packages", "onnx", "backend", "test", "data")
	for _, p := range []string{pattern, "/usr/share/libonnx-testdata/data"} {
		if found, err := filepath.Glob(p); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	missing(t, "python", "no %s; run `make setup-python`, or install libonnx-testdata", pattern)
	return ""
}

// Chromium is the path of a Chromium or Chrome.
func Chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "chromium", "no chromium in PATH; install it (Debian, Ubuntu: apt install chromium)")
	return ""
}

// Node is the folder with the packages of ONNX Runtime for JavaScript, build/node of the checkout.
func Node(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "node", "no node in PATH; install Node 20 or later")
	}
	dir := filepath.Join(Root(t), "build", "node")
	for _, name := range []string{"onnxruntime-node", "onnxruntime-web"} {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", name, "package.json")); err != nil {
			missing(t, "node", "%v; run `make setup-node`", err)
		}
	}
	return dir
}

// Provider is the path of the library with our execution provider: that of GPU kernels where there is a GPU and it is built, else
// [HostProvider]. A process can use but one of them.
func Provider(t testing.TB) string {
	t.Helper()
	if HasGPU() {
		path := os.Getenv(EnvCUDA)
		if path == "" {
			path = filepath.Join(Root(t), "build", "ops", "libcosetq_cuda.so")
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return HostProvider(t)
}

// HostProvider is the path of the library with the execution provider whose device is the host:
// build/ops/libcosetq_ep_host.so of the checkout.
func HostProvider(t testing.TB) string {
	t.Helper()
	return library(t, "ops", "", "build/ops/libcosetq_ep_host.so", "make -f cudaops/build.mk provider")
}

func library(t testing.TB, what, env, glob, remedy string) string {
	t.Helper()
	if path := os.Getenv(env); env != "" && path != "" {
		if _, err := os.Stat(path); err != nil {
			missing(t, what, "%s is set but unusable: %v", env, err)
		}
		return path
	}
	pattern := filepath.Join(Root(t), filepath.FromSlash(glob))
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		missing(t, what, "no %s; run `%s` or set %s", pattern, remedy, env)
		return ""
	}
	return found[0]
}

var llamaOnce sync.Mutex

// Llama is the path of the unpacked byte-level Llama (models/novel_llama_24m.onnx.gz, 97 MB), kept in the user's cache
// folder between runs.
func Llama(t testing.TB) string {
	t.Helper()
	packed := Data(t, "models/novel_llama_24m.onnx.gz")
	info, err := os.Stat(packed)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	// The packed size stands in the name, so that a changed model is never served from an old cache.
	path := filepath.Join(cache, "cosetq-test", fmt.Sprintf("novel_llama_24m-%d.onnx", info.Size()))
	llamaOnce.Lock()
	defer llamaOnce.Unlock()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := gunzip(path, packed); err != nil {
			t.Fatalf("testenv: unpack %s: %v", packed, err)
		}
	}
	return path
}

// gunzip writes under a temporary name and renames, since test binaries of several packages run at once.
func gunzip(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(dst), "unpack-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // fails harmlessly once renamed
	if _, err := io.Copy(out, z); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), dst)
}

func missing(t testing.TB, what, format string, args ...any) {
	t.Helper()
	msg := fmt.Sprintf(format, args...)
	if Require(what) {
		t.Fatalf("%s requires %q: %s", EnvRequire, what, msg)
	}
	t.Skip(msg)
}
