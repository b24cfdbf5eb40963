package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq"
)

// inspectStatistics prints what is in a statistics file.
func inspectStatistics(con *console, path string, layers bool) error {
	r, err := cosetq.InspectStatistics(path)
	if err != nil {
		return err
	}
	if con.json {
		return con.printJSON(r)
	}
	return printStatistics(con, r, layers)
}

func printStatistics(con *console, r *cosetq.StatisticsReport, layers bool) error {
	fmt.Fprintf(con.out, "%s   statistics of %s   %s\nfingerprint  %s\n", r.Path, r.Model, cosetq.Size(r.Bytes), r.Fingerprint)
	for _, d := range r.Data {
		made := ""
		if d.Random {
			made = "   made up"
		}
		fmt.Fprintf(con.out, "data         %d samples of %s (%s)%s\n", d.Samples, d.Recipe, d.Kind, made)
	}
	weights, unreached := 0, 0
	for _, o := range r.Observations {
		weights += len(o.Weights)
		if o.Rows == 0 {
			unreached += len(o.Weights)
		}
	}
	fmt.Fprintf(con.out, "%d activations observed for %d weights, %d of them never reached; gradients of %d\n", len(r.Observations), weights, unreached, len(r.Gradients))
	if !layers {
		return nil
	}
	t := con.table()
	fmt.Fprintln(t, "activation\tK\tmoments\trows\tbad\tmin\tmax\tmean\trms\tpeak\tweights")
	for _, o := range slices.Concat(r.Observations, r.Gradients) {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%.3g\t%.3g\t%.3g\t%.3g\t%.1f\t%s\n", shorten(o.Tag, 50), o.K, o.Moments, o.Rows, o.BadRows,
			o.Min, o.Max, o.Mean, o.RMS, o.Peak, shorten(strings.Join(o.Weights, ", "), 60))
	}
	return t.Flush()
}
