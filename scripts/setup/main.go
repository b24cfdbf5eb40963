// Command setup brings the parts of cosetq that no Go module carries into the checkout's build folder: ONNX Runtime's
// shared library, for the tests of the Python snippet a virtual environment, and for the GPU kernels their compiler.
//
//	go run ./scripts/setup ort            ONNX Runtime for the tool, in build/ort
//	go run ./scripts/setup ort-versions   older ones, in build/ort-VERSION, for the compatibility test
//	go run ./scripts/setup python         build/venv with onnxruntime, onnxruntime-genai and numpy
//	go run ./scripts/setup node           build/node with onnxruntime-node and onnxruntime-web
//	go run ./scripts/setup cuda           build/cuda with NVIDIA's compiler, for the GPU kernels
//
// It downloads through the package clients that the machine has (pip, or else npm), checks every library against the
// SHA-256 pinned in pins.go, and does nothing, and needs no network, when the right files are in place.
// It uses the standard library and no other module, so that `go run` can start it before any module was downloaded.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cosetq/cosetq/internal/ortversions"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	const usage = "usage: go run ./scripts/setup ort|ort-versions|python|node|cuda"
	if len(args) != 1 {
		return fmt.Errorf("%s", usage)
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	f := fetcher{
		build:  filepath.Join(root, "build"),
		goos:   runtime.GOOS,
		arch:   runtime.GOARCH,
		byHand: os.Getenv("ORT_SHA256"),
		pins:   knownPins,
		log:    os.Stderr,
	}
	switch args[0] {
	case "ort":
		return f.ensure(ortversions.Main, "ort")
	case "ort-versions":
		for _, v := range ortversions.Others {
			if err := f.ensure(v, "ort-"+v); err != nil {
				return err
			}
		}
		return nil
	case "python":
		return ensureVenv(filepath.Join(root, "build", "venv"), os.Stderr)
	case "node":
		return ensureNode(filepath.Join(root, "build", "node"), os.Stderr)
	case "cuda":
		return ensureCUDA(filepath.Join(root, "build", "cuda"), f.goos, f.arch, os.Stderr)
	}
	return fmt.Errorf("unknown part %q; %s", args[0], usage)
}

// moduleRoot is the nearest folder upwards that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory; run it inside the checkout, best as `make setup`")
		}
		dir = parent
	}
}
