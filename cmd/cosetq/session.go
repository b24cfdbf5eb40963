package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/suggest"
	"github.com/cosetq/cosetq/ort"
)

// runFlags say how to run models.
type runFlags struct {
	ops, device, optimization string
	threads                   int
}

func (f *runFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ops, "ops", "auto", "auto: use the native library; none: the portable path that runs anywhere")
	cmd.Flags().StringVar(&f.device, "device", "cpu", "cpu, or cuda: an NVIDIA GPU, by libcosetq_cuda.so (docs/gpu.md)")
	cmd.Flags().StringVar(&f.optimization, "optimization", "all", "ONNX Runtime graph optimizations: disabled, basic, extended or all")
	cmd.Flags().IntVar(&f.threads, "threads", 0, "threads within one operator (0: all cores)")
}

// oneOf checks a flag that has a few values.
func oneOf(flag, value string, allowed ...string) error {
	err := suggest.OneOf(flag, value, allowed)
	if err == nil {
		return nil
	}
	return usage(err, "it is one of: %s", strings.Join(allowed, ", "))
}

var optimizationLevels = []ort.OptimizationLevel{ort.OptimizeAll, ort.OptimizeDisabled, ort.OptimizeBasic, ort.OptimizeExtended}

func optimizationNames() []string {
	var names []string
	for _, level := range optimizationLevels {
		names = append(names, level.String())
	}
	return names
}

// options resolves the flags for a model, telling the user when the native library should be there and is not.
func (f *runFlags) options(con *console) (ort.SessionOptions, error) {
	var o ort.SessionOptions
	o.Threads = f.threads
	if err := oneOf("device", f.device, flagValues["device"]...); err != nil {
		return o, err
	}
	if err := oneOf("ops", f.ops, flagValues["ops"]...); err != nil {
		return o, err
	}
	if f.device == cosetq.CUDA {
		if f.ops == "none" {
			return o, usage(errors.New("--ops none and --device cuda are both given: on the GPU it is our library that runs the model"),
				"leave one of them out; the portable path runs on the CPU")
		}
		var err error
		if o.Provider, err = cosetq.GPULibrary(); err != nil {
			return o, err
		}
	}
	found := false
	for _, level := range optimizationLevels {
		if level.String() == f.optimization {
			o.Optimization, found = level, true
		}
	}
	if !found {
		return o, oneOf("optimization", f.optimization, flagValues["optimization"]...)
	}
	if f.ops == "auto" {
		lib, err := cudaops.FindLibrary("")
		if err != nil {
			con.warnf("warning: the native library is not there, quantized models run on the portable path: %v", err)
		}
		o.OpsLibrary = lib
	}
	return o, nil
}
