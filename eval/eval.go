// Package eval judges models by their outputs: accuracy, perplexity, and agreement with another model.
//
// It takes anything that can run a model (a [Runner]) and a reader of data; it loads no model, knows no runtime and no
// quantization. Data is streamed: a batch is read, every model runs it, the metrics take what they need, and the outputs
// are dropped, so memory does not grow with the amount of data.
package eval

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/suggest"
	"github.com/cosetq/cosetq/tensor"
)

// Runner runs a model once: inputs by name in, outputs by name out. An ort.Session is one.
type Runner interface {
	Run(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error)
}

// Model is a model under judgement.
type Model struct {
	Path    string // how reports and errors name it
	Runner  Runner
	Inputs  []tensor.Spec // as the model declares them
	Outputs []tensor.Spec // in declared order; metrics judge the first float one unless Options.Output names another
}

// The tasks.
const (
	TaskClassification = "classification" // metrics: [Classification]
	TaskPerplexity     = "perplexity"     // metrics: [Perplexity]
	TaskAgreement      = "agreement"      // metrics: [Agreement], of every model with the first
)

// Tasks lists the tasks.
func Tasks() []string { return []string{TaskClassification, TaskPerplexity, TaskAgreement} }

// Options say how to evaluate. The zero value is fine.
type Options struct {
	// Batch is how many samples to run at once where the model's batch is dynamic. 0: 8, and 1 for perplexity, whose
	// outputs are large.
	Batch int
	// Output names the output to judge; empty takes the first float output.
	Output string
	// Progress, when not nil, is called after every batch with the samples done and all there are.
	Progress func(done, total int)
}

// Report is the outcome; as JSON it is the object that `cosetq eval --json` prints.
type Report struct {
	Schema  string   `json:"schema"` // cosetq/v1/eval
	Task    string   `json:"task"`
	Samples int      `json:"samples"`
	Random  bool     `json:"random,omitempty"` // the data was made up
	Models  []Result `json:"models"`
}

// Result is what one model achieved.
type Result struct {
	Path    string  `json:"path"`
	Metrics any     `json:"metrics"` // [Classification], [Perplexity] or [Agreement]
	Seconds float64 `json:"seconds"` // spent in runs alone, without reading data and computing metrics
}

// task collects what it needs of the outputs of every batch. Models come in order for each batch.
type task interface {
	add(model int, b *batch, outputs map[string]*tensor.Tensor) error
	metrics(model int) (any, error)
}

// batch is a batch of data with the number of samples that it was padded to.
type batch struct {
	*calib.Batch
	size int
}

// Run evaluates the models on all samples of the data. What the data lacks for the task, or labels that the model does
// not know, come back as a [*calib.RecipeError]; outputs that are no numbers as a [*NonFiniteError], and models that the task does not fit as a [*FitError].
func Run(ctx context.Context, name string, models []Model, data calib.Reader, o Options) (*Report, error) {
	if len(models) == 0 {
		return nil, fmt.Errorf("evaluation of no models")
	}
	size := o.Batch
	if size == 0 {
		size = 8
	}
	var t task
	switch name {
	case TaskClassification:
		t = newClassification(models, o)
	case TaskPerplexity:
		t = newPerplexity(models, o)
		if o.Batch == 0 {
			size = 1
		}
	case TaskAgreement:
		t = newAgreement(models, o)
	default:
		hint := suggest.DidYouMean(name, Tasks())
		return nil, fmt.Errorf("unknown task %q%s; the tasks are %s", name, hint, strings.Join(Tasks(), ", "))
	}
	size, full, err := batchSize(models, data, size)
	if err != nil {
		return nil, err
	}
	seconds, err := drive(ctx, t, models, data, size, full, o.Progress)
	if err != nil {
		return nil, err
	}
	report := &Report{Schema: "cosetq/v1/eval", Task: name, Samples: data.Len(), Random: data.Random()}
	for i, m := range models {
		metrics, err := t.metrics(i)
		if err != nil {
			return nil, err
		}
		report.Models = append(report.Models, Result{Path: m.Path, Metrics: metrics, Seconds: seconds[i].Seconds()})
	}
	return report, nil
}

// batchSize is the largest batch up to want that every model takes, and whether batches must be filled up to it.
func batchSize(models []Model, data calib.Reader, want int) (size int, full bool, err error) {
	if data.Len() == 0 {
		return 0, false, &calib.RecipeError{Msg: "holds no samples; there is nothing to evaluate"}
	}
	first, err := data.Sample(0)
	if err != nil {
		return 0, false, err
	}
	const dynamic = math.MaxInt
	size = dynamic
	for _, m := range models {
		s, fixed := calib.BatchSize(m.Inputs, first, dynamic)
		if s != dynamic && size != dynamic && s != size {
			return 0, false, unfit("%s takes batches of %d samples and a model before it batches of %d; evaluate them apart", m.Path, s, size)
		}
		size, full = min(size, s), full || fixed
	}
	if size == dynamic {
		size = max(want, 1)
	}
	return size, full, nil
}

// drive runs every batch through every model and hands the outputs to the task.
func drive(ctx context.Context, t task, models []Model, data calib.Reader, size int, full bool, progress func(done, total int)) ([]time.Duration, error) {
	spent := make([]time.Duration, len(models))
	for b, err := range calib.Batches(data, size, full) {
		if err != nil {
			return nil, err
		}
		joined := &batch{Batch: b, size: len(b.Samples)}
		if full {
			joined.size = size
		}
		for i, m := range models {
			inputs, err := m.inputs(b.Inputs)
			if err != nil {
				return nil, err
			}
			start := time.Now()
			outputs, err := m.Runner.Run(ctx, inputs)
			spent[i] += time.Since(start)
			if err != nil {
				return nil, fmt.Errorf("%s, sample %d: %w", m.Path, b.First, err)
			}
			if err := t.add(i, joined, outputs); err != nil {
				return nil, err
			}
		}
		if progress != nil {
			progress(b.First+len(b.Samples), data.Len())
		}
	}
	return spent, nil
}
