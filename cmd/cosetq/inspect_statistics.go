package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/cosetq/cosetq/calib"
)

// observationReport is one line of the report on a statistics file.
type observationReport struct {
	Tag        string   `json:"tag"`
	Activation string   `json:"activation"`
	Weights    []string `json:"weights"`
	K          int      `json:"k"`
	Moments    string   `json:"moments"` // full or diagonal
	Rows       int64    `json:"rows"`
	BadRows    int64    `json:"bad_rows,omitempty"`
	Min        float64  `json:"min"`
	Max        float64  `json:"max"`
	Mean       float64  `json:"mean"` // over the columns
	RMS        float64  `json:"rms"`  // likewise
	// Peak is the largest second moment of a column over their mean: 1 where all columns are alike.
	Peak float64 `json:"peak"`
}

type statisticsReport struct {
	Schema       string              `json:"schema"`
	Path         string              `json:"path"`
	Bytes        int64               `json:"bytes"`
	Model        string              `json:"model"`
	Fingerprint  string              `json:"fingerprint"`
	Program      string              `json:"program"`
	Data         []calib.DataUsed    `json:"data"`
	Observations []observationReport `json:"observations"`
}

// inspectStatistics prints what is in a statistics file.
func inspectStatistics(con *console, path string, layers bool) error {
	file, err := openStatistics(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := &statisticsReport{Schema: "cosetq/v1/inspect-statistics", Path: path, Bytes: file.Size, Model: file.Model,
		Fingerprint: file.Fingerprint, Program: file.Program, Data: file.Data, Observations: []observationReport{}}
	for _, o := range file.Observations {
		line, err := observationOf(o)
		if err != nil {
			return err
		}
		r.Observations = append(r.Observations, line)
	}
	if con.json {
		return con.printJSON(r)
	}
	return printStatistics(con, r, layers)
}

func observationOf(o *calib.Observation) (observationReport, error) {
	r := observationReport{Tag: o.Tag, Activation: o.Activation, Weights: o.Weights, K: o.Columns, Moments: "diagonal",
		Rows: o.Rows, BadRows: o.BadRows, Min: o.Min, Max: o.Max}
	if o.Full {
		r.Moments = "full"
	}
	mean, err := o.Mean()
	if err != nil {
		return r, err
	}
	squares, err := o.Diagonal()
	if err != nil {
		return r, err
	}
	var sum, peak float64
	for i, v := range squares {
		r.Mean += mean[i] / float64(o.Columns)
		sum += v / float64(o.Columns)
		peak = math.Max(peak, v)
	}
	r.RMS = math.Sqrt(sum)
	if sum > 0 {
		r.Peak = peak / sum
	}
	return r, nil
}

func printStatistics(con *console, r *statisticsReport, layers bool) error {
	fmt.Fprintf(con.out, "%s   statistics of %s   %s\nfingerprint  %s\n", r.Path, r.Model, megabytes(r.Bytes), r.Fingerprint)
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
	fmt.Fprintf(con.out, "%d activations observed for %d weights, %d of them never reached\n", len(r.Observations), weights, unreached)
	if !layers {
		return nil
	}
	t := con.table()
	fmt.Fprintln(t, "activation\tK\tmoments\trows\tbad\tmin\tmax\tmean\trms\tpeak\tweights")
	for _, o := range r.Observations {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%.3g\t%.3g\t%.3g\t%.3g\t%.1f\t%s\n", shorten(o.Tag, 50), o.K, o.Moments, o.Rows, o.BadRows,
			o.Min, o.Max, o.Mean, o.RMS, o.Peak, shorten(strings.Join(o.Weights, ", "), 60))
	}
	return t.Flush()
}
