// Command run shows cosetq as a library: it runs a model on the samples of a data recipe, with the native library where
// that is found.
//
//	go run ./examples/run model.q.onnx recipe.yaml
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: run MODEL RECIPE")
		os.Exit(2)
	}
	library, err := cudaops.FindLibrary("")
	if err != nil {
		fmt.Fprintln(os.Stderr, "without the native library:", err)
	}
	if err := run(context.Background(), os.Stdout, os.Args[1], os.Args[2], library); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, model, recipe, library string) error {
	runtime, err := ort.Open(ort.Options{})
	if err != nil {
		return err
	}
	// Without OpsLibrary the same file runs on the standard operators that it carries.
	session, err := runtime.NewSession(model, ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		return err
	}
	defer session.Close()
	data, err := calib.Open(recipe, session.Inputs(), calib.Options{Limit: 5})
	if err != nil {
		return err
	}
	defer data.Close()

	for i := range data.Len() {
		sample, err := data.Sample(i)
		if err != nil {
			return err
		}
		outputs, err := session.Run(ctx, sample.Inputs)
		if err != nil {
			return err
		}
		for _, spec := range session.Outputs() {
			values, err := tensor.View[float32](outputs[spec.Name])
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "sample %d, label %d: %s = %.3v\n", i, sample.Label, spec.Name, values)
		}
	}
	return nil
}
