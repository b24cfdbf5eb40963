package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

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
						fmt.Fprintf(con.out, "      %-16s mend it: %s\n", "", f.Remedy)
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
		list = append(list, finding{Name: "onnxruntime", Detail: err.Error(), Remedy: "make setup"})
	} else {
		list = append(list, finding{Name: "onnxruntime", OK: true, Detail: rt.Version() + "  " + rt.Library()})
	}
	lib, libErr := cudaops.FindLibrary("")
	if libErr != nil {
		list = append(list, finding{Name: "native library", Detail: libErr.Error(), Remedy: "make build"})
	} else {
		list = append(list, finding{Name: "native library", OK: true, Detail: lib})
	}
	if err == nil && libErr == nil {
		list = append(list, selfTest(ctx, lib))
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
	f := finding{Name: "self test", Remedy: "make clean build; if that does not help, report it with this output"}
	calls, err := runEmbedded(ctx, lib)
	switch {
	case err != nil:
		f.Detail = err.Error()
	case calls == 0:
		f.Detail = "ONNX Runtime loaded the library but did not run its kernel"
	default:
		f.OK, f.Remedy = true, ""
		f.Detail = fmt.Sprintf("quantized the embedded model, %d layers ran in the native kernel", calls)
	}
	return f
}

func runEmbedded(ctx context.Context, lib string) (calls int, err error) {
	dir, err := os.MkdirTemp("", "cosetq-doctor-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		return 0, err
	}
	out := filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(ctx, files.Model, cosetq.QuantizeOptions{Output: out}); err != nil {
		return 0, err
	}
	r, err := cosetq.Bench(ctx, []string{out}, cosetq.BenchOptions{Data: "random:1", Rounds: 1, Session: ort.SessionOptions{Threads: 1, OpsLibrary: lib}})
	if err != nil {
		return 0, err
	}
	return r.Models[0].NativeLayers, nil
}
