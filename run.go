package cosetq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// RunOptions say how to run a model on one sample.
type RunOptions struct {
	Sample    int    // number of the sample
	Output    string // .npz file for the outputs, those of bfloat16 as float32; "" writes none
	Overwrite bool   // replace the file if it exists
	Seed      uint64 // of random data
	Session   ort.SessionOptions
}

// OutputReport describes one output value of a model.
type OutputReport struct {
	Name  string        `json:"name"`
	Type  string        `json:"type"`
	Shape []int64       `json:"shape"`
	Min   *float64      `json:"min,omitempty"` // this and the next two are of the finite values, where there are any
	Max   *float64      `json:"max,omitempty"`
	Mean  *float64      `json:"mean,omitempty"`
	First []eval.Number `json:"first,omitempty"` // up to eight
	// NonFinite is how many values are NaN or infinite.
	NonFinite int64 `json:"non_finite,omitempty"`
}

// RunReport is the outcome of [Run].
type RunReport struct {
	Schema  string         `json:"schema"`
	Path    string         `json:"path"`
	Sample  int            `json:"sample"`
	Outputs []OutputReport `json:"outputs"`
	File    string         `json:"file"`
	PeakRSS int64          `json:"peak_rss_bytes"`
}

// Run runs a model on one sample of the data, a recipe or random:N, and describes or saves its outputs.
func Run(ctx context.Context, path, data string, o RunOptions) (*RunReport, error) {
	if data == "" {
		return nil, usage(errors.New("--data is missing"), "give a data recipe, or random:1 for made-up inputs")
	}
	if o.Output != "" {
		var err error
		if o.Output, err = OutputPath(o.Output, Reads{Models: []string{path}, Data: []string{data}}, "", o.Overwrite); err != nil {
			return nil, err
		}
	}
	m, err := Load(path, o.Session)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	reader, err := openSamples(data, m.Inputs, calib.Options{Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if o.Sample < 0 || o.Sample >= reader.Len() {
		return nil, usage(fmt.Errorf("--sample %d: the data has samples 0 to %d", o.Sample, reader.Len()-1), "choose one of them")
	}
	s, err := reader.Sample(o.Sample)
	if err != nil {
		return nil, err
	}
	outputs, err := m.Session.Run(ctx, s.Inputs)
	if err != nil {
		return nil, err
	}
	if o.Output != "" {
		var unusable *fs.PathError
		switch err := tensor.SaveNPZ(o.Output, m.Outputs, outputs); {
		case errors.As(err, &unusable) && unusable.Op == "open":
			return nil, usage(err, "choose another -o")
		case err != nil:
			return nil, err
		}
	}
	r := &RunReport{Schema: "cosetq/v1/run", Path: path, Sample: o.Sample, File: o.Output}
	for _, spec := range m.Outputs {
		line, err := describe(spec, outputs[spec.Name])
		if err != nil {
			return nil, err
		}
		r.Outputs = append(r.Outputs, line)
	}
	r.PeakRSS = PeakRSS()
	return r, nil
}

func describe(spec tensor.Spec, t *tensor.Tensor) (OutputReport, error) {
	r := OutputReport{Name: spec.Name, Type: t.Type.String(), Shape: t.Shape}
	n := t.Count()
	if n == 0 {
		return r, nil
	}
	values := make([]float64, n)
	if err := t.Floats(values, 0, n); err != nil {
		return r, err
	}
	for _, v := range values[:min(n, 8)] {
		r.First = append(r.First, eval.Number(v))
	}
	finite := slices.DeleteFunc(values, func(v float64) bool { return v-v != 0 })
	r.NonFinite = n - int64(len(finite))
	if len(finite) == 0 {
		return r, nil
	}
	lo, hi, mean := slices.Min(finite), slices.Max(finite), 0.0
	for _, v := range finite {
		mean += v / float64(len(finite)) // no sum, which can be infinite
	}
	r.Min, r.Max, r.Mean = &lo, &hi, &mean
	return r, nil
}
