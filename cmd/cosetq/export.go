package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/rewrite"
)

func newExport(con *console) *cobra.Command {
	var (
		o      cosetq.ExportOptions
		format string
	)
	cmd := &cobra.Command{
		Use:   "export [MODEL] [-o OUTPUT --format FORMAT] [--ops-dir DIR]",
		Short: "Make a quantized model plain ONNX, or write out the native library",
		Long: `export writes a model that needs nothing of cosetq:
  fp32         plain float32 weights; float16 where the model computes in
               float16
  fp16         plain float16 weights, computed in the model's own type
  matmulnbits  com.microsoft MatMulNBits, int4 in blocks; also straight from a
               float model

--ops-dir writes the native library, its header and loading snippets for Python,
ONNX Runtime GenAI, C, C#, Node, browsers and Go, and the same for NVIDIA GPUs
where it finds libcosetq_cuda.so (docs/gpu.md).`,
		Example: `  cosetq export model.q.onnx -o plain.onnx --format fp32
  cosetq export --ops-dir ops`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if o.OpsDir == "" {
					return usage(errors.New("neither a model nor --ops-dir is given"), "usage: %s", cmd.UseLine())
				}
				for _, flag := range changed(cmd) {
					if !slices.Contains([]string{"ops-dir", "force", "json", "quiet"}, flag) {
						return usage(fmt.Errorf("--%s is given, and no model that it is for", flag), "leave it out, or name the model")
					}
				}
			}
			for _, flag := range []string{"block", "accuracy-level"} {
				if cmd.Flags().Changed(flag) && format != string(rewrite.MatMulNBits) {
					return usage(fmt.Errorf("--%s is for --format %s, not %s", flag, rewrite.MatMulNBits, format), "leave it out, or choose that format")
				}
			}
			if err := notZero(cmd, "block"); err != nil {
				return err
			}
			var r *cosetq.ExportReport
			var err error
			if len(args) == 1 {
				o.Format = rewrite.Format(format)
				r, err = cosetq.Export(cmd.Context(), args[0], o)
			} else {
				r, err = cosetq.ExportOps(o.OpsDir, o.Overwrite)
			}
			if err != nil {
				return err
			}
			con.notes(r.Notes)
			if con.json {
				return con.printJSON(r)
			}
			for _, file := range r.Files {
				fmt.Fprintf(con.out, "wrote %s   %s\n", file.Path, cosetq.Size(file.Bytes))
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Output, "output", "o", "", "file to write (default: the input's name ending in .FORMAT.onnx)")
	fs.StringVar(&format, "format", "fp32", "fp32, fp16 or matmulnbits")
	fs.StringVar(&o.OpsDir, "ops-dir", "", "folder for the native library, its header and snippets")
	fs.IntVar(&o.NBits.Block, "block", 32, "matmulnbits: columns that share a scale, a power of two from 16 to 256")
	fs.IntVar(&o.NBits.AccuracyLevel, "accuracy-level", 4, "matmulnbits: 4 computes with int8 activations (fast), 1 in float32")
	fs.BoolVar(&o.Overwrite, "force", false, "replace files that exist")
	addPatterns(cmd, &o.Sites)
	return cmd
}
