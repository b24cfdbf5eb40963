package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
)

func newCompare(con *console) *cobra.Command {
	var (
		o          cosetq.CompareOptions
		run        runFlags
		page       pageFlag
		all, force bool
	)
	cmd := &cobra.Command{
		Use:   "compare FLOAT QUANTIZED --data RECIPE",
		Short: "Show layer by layer what quantizing cost, and which to leave out",
		Long: `compare runs a float model and the quantized one over the same data and shows
the layers:

  local        of the layer alone: both forms read what the float model computes
  accumulated  of the model up to here: the quantized one reads what it computed
               itself

The worst layers are then tried as float ones, one at a time, and with more
bits; the last lines are the options that gained most. --bisect finds the first
layer that breaks --min-sqnr.`,
		Example: `  cosetq compare model.onnx model.q.onnx --data recipe.yaml
  cosetq compare model.onnx model.q.onnx --data recipe.yaml --bisect --min-sqnr 20
  cosetq compare model.onnx model.q.onnx --data recipe.yaml --report report.html`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, paths []string) error {
			var err error
			if o.Session, err = run.options(con); err != nil {
				return err
			}
			if err := page.check(force, cosetq.Reads{Models: paths, Data: []string{o.Data}}, paths...); err != nil {
				return err
			}
			o.Progress = con.follow()
			r, err := cosetq.Compare(cmd.Context(), paths[0], paths[1], o)
			con.clearProgress()
			if r == nil {
				return err
			}
			failed := err
			if failed != nil {
				failed = con.gate(err, r, func(con *console) error { return printCompare(con, r, all) })
			} else if !con.json { // before the page, which may fail
				if err := printCompare(con, r, all); err != nil {
					return err
				}
			}
			if page.path != "" {
				page.describe(cmd, paths)
				page.options.Data, page.options.Session = o.Data, o.Session
				if _, err := r.WritePage(cmd.Context(), page.path, page.options); err != nil {
					return err
				}
				con.logf("wrote %s", page.path)
			}
			if con.json && failed == nil {
				return con.printJSON(r)
			}
			return failed
		},
	}
	run.add(cmd)
	page.add(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&force, "force", false, "replace the file of --report")
	fs.StringVar(&o.Data, "data", "", "data recipe, or random:N")
	fs.IntVar(&o.Samples, "samples", cosetq.CompareSamples, "number of samples (0: all), also called --limit")
	fs.SetNormalizeFunc(limitIsSamples)
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of random data")
	fs.IntVar(&o.Top, "top", 3, "how many of the worst layers to try as float ones")
	fs.Float64Var(&o.MinSQNR, "min-sqnr", 0, "dB that the outputs must keep: fail with exit code 5 below, or the tolerance of --bisect")
	fs.BoolVar(&o.Bisect, "bisect", false, "find the first layer that breaks --min-sqnr")
	fs.BoolVar(&all, "layers", false, "list every layer, not only the worst ten")
	return cmd
}

// decibels prints a ratio; ∞ where nothing differs.
func decibels(d eval.Decibels) string {
	switch {
	case math.IsInf(float64(d), 1):
		return "∞"
	case math.IsNaN(float64(d)):
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(d))
}

// gained prints a difference of ratios; +∞ where an error is gone altogether.
func gained(d eval.Decibels) string {
	if math.IsInf(float64(d), 1) {
		return "+∞"
	}
	return fmt.Sprintf("%+.1f", float64(d))
}

// grown prints by how much a file becomes larger, or smaller.
func grown(n int64) string {
	if n < 0 {
		return cosetq.Size(n)
	}
	return "+" + cosetq.Size(n)
}

// leastGain is what a suggestion is worth, in dB: less is shown as 0.0.
const leastGain = 0.05

// listed is how many layers compare prints unless asked for all.
const listed = 10

func printCompare(con *console, r *cosetq.CompareReport, all bool) error {
	if r.Random {
		con.warnf("note: the data was made up (random inputs)")
	}
	layers := slices.Clone(r.Layers)
	if !all && len(layers) > listed {
		worst := slices.Clone(layers)
		slices.SortStableFunc(worst, func(a, b cosetq.ComparedLayer) int { return cmp.Compare(a.Local, b.Local) })
		limit := worst[listed-1].Local
		layers = slices.DeleteFunc(layers, func(l cosetq.ComparedLayer) bool { return l.Local > limit })
		fmt.Fprintf(con.out, "the worst %d of %d layers (--layers lists all)\n", len(layers), len(r.Layers))
	}
	t := con.namesTable()
	fmt.Fprintln(t, "\t\tlocal\t\taccumulated") // which, ending its line, widens no column
	fmt.Fprintln(t, "layer\tK×N\tdB\tcosine\tdB\tcosine\tmax abs err")
	for _, l := range layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.5f\t%s\t%.5f\t%.3g\n", visible(l.Node, ""), shape(l.K, l.N), decibels(l.Local), l.LocalCosine, decibels(l.SQNR), l.Cosine, l.MaxAbsErr)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, name := range r.NotCompared {
		fmt.Fprintf(con.out, "not compared: %s, which is no MatMul, Gemm or 1×1 Conv of the main graph\n", name)
	}
	fmt.Fprintf(con.out, "outputs over %d samples: SQNR %s dB   cosine %.6f\n  top-1 agreement %.2f %%   KL %.3g\n",
		r.Samples, decibels(r.Output.SQNR), r.Output.Cosine, 100*r.Output.Top1, r.Output.KL)
	if b := r.Bisect; b != nil {
		printBisect(con, b)
	}
	if len(r.Trials) == 0 {
		return nil
	}
	t = con.namesTable()
	if slices.ContainsFunc(r.Trials, func(x cosetq.LayerTrial) bool { return x.Finer != nil && x.Finer.Gain > 0 }) {
		fmt.Fprintln(con.out, "one layer at a time in float, or with more bits to nearest where that helps:")
		fmt.Fprintln(t, "\tfloat\t\t\tmore bits")
		fmt.Fprintln(t, "layer\tdB\tgain\tfile\tbits\tdB\tgain\tfile")
	} else {
		fmt.Fprintln(con.out, "one layer at a time in float:")
		fmt.Fprintln(t, "layer\tdB\tgain\tfile")
	}
	for _, x := range r.Trials {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s", visible(x.Node, ""), decibels(x.SQNR), gained(x.Gain), grown(x.Bytes))
		if f := x.Finer; f != nil && f.Gain > 0 {
			fmt.Fprintf(t, "\t%s\t%s\t%s\t%s", f.Layer[len(f.Layer)-1:], decibels(f.SQNR), gained(f.Gain), grown(f.Bytes))
		}
		fmt.Fprintln(t)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, x := range r.Trials {
		if len(x.With) > 0 {
			fmt.Fprintf(con.out, "%s goes with %s, which multiply by the same weight\n", shorten(x.Node, longestName), listOf(x.With))
		}
	}
	best := r.Trials[0]
	switch {
	case math.IsInf(float64(r.Output.SQNR), 1):
		_, err := fmt.Fprintln(con.out, "suggest: none; nothing is lost on this data")
		return err
	case best.Gain < leastGain:
		_, err := fmt.Fprintln(con.out, "suggest: none; no single layer is to blame, more bits or data help all of them")
		return err
	}
	fmt.Fprintf(con.out, "suggest: --exclude %s   %s, %s dB\n", shellescape.Quote(best.Exclude), grown(best.Bytes), gained(best.Gain))
	if f := best.Finer; f != nil && f.Gain >= leastGain {
		fmt.Fprintf(con.out, "     or: --layer %s   %s, %s dB\n", shellescape.Quote(f.Layer), grown(f.Bytes), gained(f.Gain))
	}
	return nil
}

// listOf names a few of many.
func listOf(names []string) string {
	const few = 3
	var list []string
	for _, name := range names[:min(few, len(names))] {
		list = append(list, shorten(name, longestName))
	}
	if n := len(names) - few; n > 0 {
		list = append(list, fmt.Sprintf("%d more", n))
	}
	return strings.Join(list, ", ")
}

func printBisect(con *console, b *cosetq.BisectReport) {
	switch {
	case !b.Broken:
		fmt.Fprintf(con.out, "bisect: the outputs keep %s dB, the tolerance of %.1f is not broken\n", decibels(b.After), b.Tolerance)
	case b.First == "":
		fmt.Fprintf(con.out, "bisect: all layers together keep %.1f dB; what breaks it is outside of them\n", b.Tolerance)
	default:
		fmt.Fprintf(con.out, "bisect: %s is the first that breaks %.1f dB: %s before it, %s with it (%d trials)\n",
			b.First, b.Tolerance, decibels(b.Before), decibels(b.After), b.Trials)
	}
}
