// Command quantize shows cosetq as a library: it quantizes a model to 4 bits per weight.
//
//	go run ./examples/quantize model.onnx model.q.onnx
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: quantize MODEL OUTPUT")
		os.Exit(2)
	}
	if err := quantize(context.Background(), os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func quantize(ctx context.Context, log io.Writer, input, output string) error {
	codec, err := lattice.Preset(4)
	if err != nil {
		return err
	}
	model, err := onnx.Open(input) // maps the file; weights are read when they are coded
	if err != nil {
		return err
	}
	defer model.Close()

	// Every MatMul, Gemm and 1×1 Conv is a site. Those that cannot be coded say why.
	sites, err := rewrite.FindSites(model, rewrite.Options{})
	if err != nil {
		return err
	}
	var replacements []rewrite.Replacement
	for _, site := range sites {
		if site.Status != rewrite.Candidate {
			fmt.Fprintf(log, "%-20s %s\n", site.Name, site.Reason)
			continue
		}
		coded, err := quant.Quantize(ctx, site.Weight, quant.Options{Codec: codec})
		if err != nil {
			return fmt.Errorf("%s: %w", site.Name, err)
		}
		fmt.Fprintf(log, "%-20s %d × %d   %.1f dB\n", site.Name, site.N, site.K, coded.SQNR())
		replacements = append(replacements, rewrite.Replacement{Site: site, Matrix: coded.Matrix})
	}

	result, err := rewrite.Apply(model, replacements, "example")
	if err != nil {
		return err
	}
	if _, err := model.Save(output, onnx.SaveOptions{External: onnx.ExternalAlways}); err != nil {
		return err
	}
	fmt.Fprintf(log, "%.2f bits per weight\n", result.BitsPerWeight())
	return nil
}
