package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
)

func newEval(con *console) *cobra.Command {
	var (
		o          cosetq.EvaluateOptions
		run        runFlags
		task, data string
		maxDrop    float64
	)
	cmd := &cobra.Command{
		Use:   "eval MODEL [MODEL...] --task TASK --data RECIPE",
		Short: "Measure accuracy, perplexity or agreement of models, side by side",
		Long: `eval runs models over the same data and prints their metrics side by side.

Tasks:
  classification  share of samples whose largest output is at their label
  perplexity      how well each next token is predicted (bits per byte for byte
                  data)
  agreement       how near the outputs are to those of the first model; needs no
                  labels

--data is a recipe (YAML), or random:N for N made-up samples, with which only
agreement makes sense.`,
		Example: `  cosetq eval model.onnx model.q.onnx --task perplexity --data eval.yaml --limit 100
  cosetq eval model.onnx model.q.onnx --task classification --data eval.yaml --max-drop 0.5`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			var err error
			if o.Session, err = run.options(con); err != nil {
				return err
			}
			if cmd.Flags().Changed("max-drop") {
				o.MaxDrop = &maxDrop
			}
			o.Progress = con.follow()
			report, err := cosetq.Evaluate(cmd.Context(), task, data, paths, o)
			con.clearProgress()
			if report == nil {
				return err
			}
			if err != nil {
				return con.gate(err, report, func(con *console) error { return printEval(con, report) })
			}
			if con.json {
				return con.printJSON(report)
			}
			return printEval(con, report)
		},
	}
	run.add(cmd)
	cmd.Flags().StringVar(&task, "task", "", "classification, perplexity or agreement")
	cmd.Flags().StringVar(&data, "data", "", "data recipe, or random:N")
	cmd.Flags().IntVar(&o.Samples, "limit", 0, "number of samples (0: all); token windows are spread evenly")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 0, "seed of random data")
	cmd.Flags().Float64Var(&maxDrop, "max-drop", 0, "fail with exit code 5 when a model is worse than the first by more: bits per token, points of top-1, or share of error in the outputs (agreement); 0 allows no loss")
	cmd.Flags().IntVar(&o.Batch, "batch", 0, "samples per run where the model allows it (0: chosen by task)")
	return cmd
}

func printEval(con *console, r *eval.Report) error {
	if r.Random {
		con.warnf("note: the data was made up (random inputs)")
	}
	t := con.namesTable()
	first := r.Models[0].Metrics
	switch base := first.(type) {
	case eval.Classification:
		fmt.Fprintf(t, "model\ttop-1\tcorrect\tdifference\tseconds\n")
		for _, m := range r.Models {
			c := m.Metrics.(eval.Classification)
			fmt.Fprintf(t, "%s\t%.2f %%\t%d / %d\t%+.2f pt\t%.2f\n", visible(m.Path, ""), 100*c.Top1, c.Correct, c.Count, 100*(c.Top1-base.Top1), m.Seconds)
		}
	case eval.Perplexity:
		fmt.Fprintf(t, "model\tperplexity\tbits/token\tdifference\ttokens\tseconds\n")
		for _, m := range r.Models {
			p := m.Metrics.(eval.Perplexity)
			fmt.Fprintf(t, "%s\t%.4f\t%.4f\t%+.4f\t%d\t%.2f\n", visible(m.Path, ""), p.Perplexity, p.BitsPerToken, p.BitsPerToken-base.BitsPerToken, p.Tokens, m.Seconds)
		}
	case eval.Agreement:
		fmt.Fprintf(t, "model\tsame top-1\tKL\tcosine\tSQNR dB\tmax err\tseconds\n")
		for _, m := range r.Models {
			a := m.Metrics.(eval.Agreement)
			fmt.Fprintf(t, "%s\t%.2f %%\t%.3g\t%.6f\t%s\t%.3g\t%.2f\n", visible(m.Path, ""), 100*a.Top1, a.KL, a.Cosine, decibels(a.SQNR), a.MaxAbsErr, m.Seconds)
		}
	default:
		return fmt.Errorf("metrics of an unknown type %T", first)
	}
	return t.flush()
}
