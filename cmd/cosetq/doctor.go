package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/ort"
)

// finding is what doctor found out about one thing.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

func newDoctor(con *console) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check that everything needed is there, and say how to mend it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := diagnose(cmd.Context())
			healthy := true
			for _, f := range findings {
				healthy = healthy && f.OK
			}
			if con.json {
				if err := con.printJSON(map[string]any{"schema": "cosetq/v1/doctor", "version": cosetq.Version(), "healthy": healthy, "checks": findings}); err != nil {
					return err
				}
			} else {
				for _, f := range findings {
					mark := "ok  "
					if !f.OK {
						mark = "FAIL"
					}
					fmt.Fprintf(con.out, "%s  %-16s %s\n", mark, f.Name, f.Detail)
					if f.Remedy != "" {
						purpose := "mend it"
						if f.OK {
							purpose = "to use it" // nothing is broken
						}
						fmt.Fprintf(con.out, "      %-16s %s: %s\n", "", purpose, f.Remedy)
					}
				}
			}
			if !healthy {
				return &silentError{exitRuntime}
			}
			return nil
		},
	}
}

// diagnose checks the runtime, the library and the two of them together.
func diagnose(ctx context.Context) []finding {
	list := []finding{{Name: "cosetq", OK: true, Detail: cosetq.Version() + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}}
	list = append(list, finding{Name: "cpu", OK: true, Detail: fmt.Sprintf("%d cores; kernels for %s", runtime.NumCPU(), isa())})
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		remedy := "make setup; outside a checkout, pip install onnxruntime, and set COSETQ_ORT_LIBRARY to the file onnxruntime/capi/libonnxruntime.so.* of that package"
		if errors.Is(err, ort.ErrBuild) {
			remedy = "make build, or go install, on Linux with a C compiler and CGO_ENABLED=1; no ONNX Runtime helps this program, which quantizes all the same"
		}
		list = append(list, finding{Name: "onnxruntime", Detail: err.Error(), Remedy: remedy})
	} else {
		list = append(list, finding{Name: "onnxruntime", OK: true, Detail: rt.Version() + "  " + rt.Library()})
	}
	lib, libErr := cosetq.NativeLibrary()
	if libErr != nil {
		list = append(list, finding{Name: "native library", Detail: libErr.Error(), Remedy: "make build; a release archive has it beside the program; without it quantized models run on the portable path"})
	} else {
		list = append(list, finding{Name: "native library", OK: true, Detail: lib})
	}
	if err == nil && libErr == nil {
		list = append(list, selfTest(ctx, lib))
	}
	if err == nil {
		list = append(list, gpuTest(ctx, lib))
	}
	return list
}

// isa names the widest vector instructions that the kernels can use here.
func isa() string {
	switch {
	case cpu.X86.HasAVX512VBMI && cpu.X86.HasAVX512VNNI:
		return "AVX-512 (VBMI, VNNI)"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return "AVX2"
	}
	return "any CPU (portable)"
}

// selfTest quantizes the embedded model, runs it with the native library and makes sure that the library's kernel ran.
func selfTest(ctx context.Context, lib string) finding {
	f := finding{Name: "self test"}
	r, err := runEmbedded(ctx, ort.SessionOptions{Threads: 1, OpsLibrary: lib})
	f.Remedy = remedy(err, "make clean build")
	switch {
	case err != nil:
		f.Detail = err.Error()
	case r.Models[0].NativeLayers == 0:
		f.Detail = "ONNX Runtime loaded the library but did not run its kernel"
	default:
		f.OK, f.Remedy = true, ""
		f.Detail = fmt.Sprintf("quantized the embedded model, %d layers ran in the native kernel", r.Models[0].NativeLayers)
	}
	return f
}

// gpuTest does the same on the GPU. To have none is no fault.
func gpuTest(ctx context.Context, ops string) finding {
	f := finding{Name: "gpu", OK: true}
	lib, err := cudaops.FindCUDALibrary("")
	if err != nil {
		f.Detail = "not used: no " + cudaops.CUDALibraryName
		if path := os.Getenv(cudaops.EnvCUDALibrary); path != "" {
			f.Detail += ": " + cudaops.EnvCUDALibrary + " names " + path + ", which is no file"
		}
		f.Remedy = "make cuda, after make setup; or set " + cudaops.EnvCUDALibrary + " to the file"
		return f
	}
	p, err := ort.OpenProvider(lib)
	if err != nil {
		f.OK, f.Detail = false, err.Error()
		f.Remedy = "make cuda; or set " + cudaops.EnvCUDALibrary + " to the library that came with this program"
		return f
	}
	if _, err := p.Device(); err != nil {
		f.Detail = "not used: " + err.Error()
		f.Remedy = "a GPU of compute capability 8.0 or later and NVIDIA's driver 580 or later, both visible here: `nvidia-smi` lists the GPU, " +
			"CUDA_VISIBLE_DEVICES leaves it in, a container is started with it (docker run --gpus all); docs/gpu.md"
		return f
	}
	r, err := runEmbedded(ctx, ort.SessionOptions{Threads: 1, OpsLibrary: ops, Provider: lib})
	if err != nil {
		f.OK, f.Detail, f.Remedy = false, err.Error(), remedy(err, "make clean build cuda")
		return f
	}
	m := r.Models[0]
	var reasons []string
	for _, why := range slices.Sorted(maps.Keys(m.LeftToCPU)) {
		reasons = append(reasons, fmt.Sprintf("; %d left to the CPU: %s", m.LeftToCPU[why], why))
	}
	f.Detail = fmt.Sprintf("%s  %s: %d nodes of the embedded model ran on it%s", r.Device, lib, m.Providers[ort.ProviderName], strings.Join(reasons, ""))
	return f
}

// errTemporary says that a test found no place for its files: nothing that is built mends that.
var errTemporary = errors.New("no temporary folder can be made")

// remedy is what to do about an error of runEmbedded.
func remedy(err error, build string) string {
	if errors.Is(err, errTemporary) {
		return "set TMPDIR to a folder that is there and that you may write to"
	}
	return build + "; if that does not help, report it with this output"
}

// runEmbedded quantizes the embedded model and times it.
func runEmbedded(ctx context.Context, o ort.SessionOptions) (*cosetq.BenchReport, error) {
	dir, err := os.MkdirTemp("", "cosetq-doctor-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTemporary, err)
	}
	defer os.RemoveAll(dir)
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(ctx, files.Model, cosetq.QuantizeOptions{Output: out}); err != nil {
		return nil, err
	}
	return cosetq.Bench(ctx, []string{out}, cosetq.BenchOptions{Data: "random:1", Rounds: 1, Session: o})
}
