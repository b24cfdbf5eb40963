package main

import (
	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
)

func newMerge(con *console) *cobra.Command {
	var (
		o      cosetq.MergeOptions
		layers bool
	)
	cmd := &cobra.Command{
		Use:   "merge MODEL [-o OUTPUT]",
		Short: "Write the model that quantize --shard has coded the weights of",
		Long: `merge puts together what the runs of quantize --shard left in the folder
OUTPUT.journal, checks every part, and writes the same bytes as one run for the
whole model would. All options but the output come from the journal.`,
		Example: `  cosetq quantize model.onnx -o shared/model.q.onnx --shard 0/2
  cosetq quantize model.onnx -o shared/model.q.onnx --shard 1/2
  cosetq merge model.onnx -o shared/model.q.onnx`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Progress = con.follow()
			r, err := cosetq.Merge(cmd.Context(), args[0], o)
			con.clearProgress()
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			return printQuantize(con, r, layers)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Output, "output", "o", "", "the output that the shares were given (default: the input's name ending in .q.onnx)")
	fs.BoolVar(&o.Overwrite, "force", false, "replace the output if it exists")
	fs.BoolVar(&layers, "layers", false, "list every layer")
	return cmd
}
