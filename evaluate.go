package cosetq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/internal/suggest"
	"github.com/cosetq/cosetq/ort"
)

// EvaluateOptions say how to judge models.
type EvaluateOptions struct {
	Samples  int    // number of samples, 0 all; token windows are spread evenly
	Batch    int    // samples per run where the model allows it; 0 leaves the choice to the task
	Seed     uint64 // of random data
	Session  ort.SessionOptions
	Progress Progress // may be nil

	// MaxDrop, unless nil, makes it a failure of kind [Quality] when a model is worse than the first by more than this: bits per
	// token, points of top-1 accuracy, or for [eval.TaskAgreement] the share of error in the outputs' energy. 0 allows no loss.
	MaxDrop *float64
}

// Evaluate runs models over the same data, a recipe or random:N, and measures how well they do the task, one of [eval.Tasks].
// A failure of MaxDrop comes with the report.
func Evaluate(ctx context.Context, task, data string, paths []string, o EvaluateOptions) (*eval.Report, error) {
	if err := oneOf("task", task, eval.Tasks()...); err != nil {
		return nil, err
	}
	switch {
	case data == "":
		return nil, usage(errors.New("--data is missing"), "give a data recipe, or random:N for made-up inputs")
	case o.Samples < 0:
		return nil, usage(fmt.Errorf("--limit %d is negative", o.Samples), "0 takes all samples")
	case o.Batch < 0:
		return nil, usage(fmt.Errorf("--batch %d is negative", o.Batch), "0 leaves the choice to the task")
	case o.MaxDrop != nil && len(paths) < 2:
		return nil, usage(errors.New("--max-drop compares with the first model, and there is no second"), "name the float model first and the quantized one after it")
	case len(paths) == 0:
		return nil, usage(errors.New("no model is given"), "name one or more")
	}
	if err := checkDrop(o.MaxDrop); err != nil {
		return nil, err
	}
	models, err := loadAll(ctx, paths, o.Session)
	if err != nil {
		return nil, err
	}
	defer closeAll(models)
	reader, err := calib.Open(data, models[0].Inputs, calib.Options{Limit: o.Samples, Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var list []eval.Model
	for _, m := range models {
		list = append(list, m.judged())
	}
	report, err := eval.Run(ctx, task, list, reader, eval.Options{Batch: o.Batch, Progress: func(done, total int) {
		if o.Progress != nil {
			o.Progress(task, int64(done), int64(total))
		}
	}})
	if err != nil {
		return nil, ofData(err, data)
	}
	return report, o.gate(report)
}

// gate fails when a model is worse than the first by more than MaxDrop.
func (o *EvaluateOptions) gate(r *eval.Report) error {
	if o.MaxDrop == nil {
		return nil
	}
	for _, m := range r.Models[1:] {
		if drop := dropOf(r.Models[0].Metrics, m.Metrics); !(drop <= *o.MaxDrop) {
			return fail(Quality, fmt.Errorf("%s is worse than %s by %.4g %s (%.4f against %.4f), --max-drop allows %v",
				m.Path, r.Models[0].Path, drop, unitOf(metricOf(r.Task)), valueOf(m.Metrics), valueOf(r.Models[0].Metrics), *o.MaxDrop),
				"use more bits or data; `cosetq compare` shows which layers to blame, `cosetq quantize --max-drop` finds the smallest file that passes")
		}
	}
	return nil
}

// oneOf checks an option that has a few values.
func oneOf(option, value string, allowed ...string) error {
	err := suggest.OneOf(option, value, allowed)
	if err == nil {
		return nil
	}
	return usage(err, "it is one of: %s", strings.Join(allowed, ", "))
}
