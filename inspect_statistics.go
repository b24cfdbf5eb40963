package cosetq

import (
	"math"

	"github.com/cosetq/cosetq/calib"
)

// ObservedActivation is one activation of a statistics file.
type ObservedActivation struct {
	Tag        string   `json:"tag"`
	Activation string   `json:"activation"`
	Weights    []string `json:"weights"`
	K          int      `json:"k"`
	Moments    string   `json:"moments"` // full or diagonal
	Rows       int64    `json:"rows"`
	BadRows    int64    `json:"bad_rows,omitempty"`
	Min        float64  `json:"min"`
	Max        float64  `json:"max"`
	Mean       float64  `json:"mean"` // over the columns, and over the rows by their weights
	RMS        float64  `json:"rms"`  // likewise
	// Peak is the largest second moment of a column over their mean: 1 where all columns are alike.
	Peak float64 `json:"peak"`
}

// StatisticsReport is what is in a statistics file.
type StatisticsReport struct {
	Schema       string               `json:"schema"`
	Path         string               `json:"path"`
	Bytes        int64                `json:"bytes"`
	Model        string               `json:"model"`
	Fingerprint  string               `json:"fingerprint"`
	Program      string               `json:"program"`
	Data         []calib.DataUsed     `json:"data"`
	Observations []ObservedActivation `json:"observations"`
	Gradients    []ObservedActivation `json:"gradients"` // K is the N of the weight
}

// InspectStatistics reads what is in a statistics file.
func InspectStatistics(path string) (*StatisticsReport, error) {
	file, err := OpenStatistics(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := &StatisticsReport{Schema: "cosetq/v1/inspect-statistics", Path: path, Bytes: file.Size, Model: file.Model,
		Fingerprint: file.Fingerprint, Program: file.Program, Data: file.Data}
	if r.Observations, err = observedIn(file.Observations); err != nil {
		return nil, err
	}
	r.Gradients, err = observedIn(file.Gradients)
	return r, err
}

func observedIn(list []*calib.Observation) ([]ObservedActivation, error) {
	lines := []ObservedActivation{}
	for _, o := range list {
		line, err := observationOf(o)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func observationOf(o *calib.Observation) (ObservedActivation, error) {
	r := ObservedActivation{Tag: o.Tag, Activation: o.Activation, Weights: o.Weights, K: o.Columns, Moments: "diagonal",
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
	if sum > 0 && o.Weight > 0 {
		r.RMS, r.Peak = math.Sqrt(sum/o.Weight), peak/sum
	}
	return r, nil
}
