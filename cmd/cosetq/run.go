package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

func newRun(con *console) *cobra.Command {
	var (
		o    cosetq.RunOptions
		run  runFlags
		data string
	)
	cmd := &cobra.Command{
		Use:   "run MODEL --data RECIPE",
		Short: "Run a model on one sample and show or save its outputs",
		Example: `  cosetq run model.q.onnx --data recipe.yaml --sample 3 -o outputs.npz
  cosetq run model.q.onnx --data random:1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Session, err = run.options(con); err != nil {
				return err
			}
			r, err := cosetq.Run(cmd.Context(), args[0], data, o)
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			printRun(con, r)
			return nil
		},
	}
	run.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&data, "data", "", "data recipe, or random:N")
	fs.IntVar(&o.Sample, "sample", 0, "number of the sample")
	fs.StringVarP(&o.Output, "output", "o", "", "write the outputs to this .npz file")
	fs.BoolVar(&o.Overwrite, "force", false, "replace the file of -o")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of random data")
	return cmd
}

func printRun(con *console, r *cosetq.RunReport) {
	for _, v := range r.Outputs {
		fmt.Fprintf(con.out, "%s %s%s", v.Name, v.Type, tensor.FormatShape(v.Shape))
		if v.Min != nil {
			fmt.Fprintf(con.out, "   min %.6g   max %.6g   mean %.6g", *v.Min, *v.Max, *v.Mean)
		}
		if v.NonFinite > 0 {
			fmt.Fprintf(con.out, "   not finite %d", v.NonFinite)
		}
		if v.First != nil {
			fmt.Fprintf(con.out, "\n  %s", numbers(v.First))
		}
		fmt.Fprintln(con.out)
	}
	if r.File != "" {
		con.logf("wrote %s", r.File)
	}
}

func numbers(v []eval.Number) string {
	var parts []string
	for _, x := range v {
		parts = append(parts, fmt.Sprintf("%.6g", x))
	}
	return strings.Join(parts, "  ") + " …"
}
