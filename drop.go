package cosetq

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/rewrite"
)

// DropTrial is a quantized model that was evaluated on the way to [QuantizeOptions.MaxDrop].
type DropTrial struct {
	BitsPerWeight float64 `json:"bits_per_weight"`
	PredictedLoss float64 `json:"predicted_loss"`
	Drop          float64 `json:"drop"`
}

const (
	// maxTrials bounds how many models are evaluated: each takes a pass over the data.
	maxTrials = 8
	// sizeTolerance is the share of a model's size that is not worth another trial.
	sizeTolerance = 0.005
)

// search returns the smallest point of the frontier whose model, evaluated on the data, drops by no more than MaxDrop. It
// counts on the drop getting smaller with the size, and aims by the losses that were measured layer by layer.
func (a *allocator) search(ctx context.Context) (int, error) {
	last := a.frontier.Len() - 1
	drop, err := a.drop(ctx, last)
	if err != nil {
		return 0, err
	}
	if drop > a.o.MaxDrop {
		return 0, fail(Quality, fmt.Errorf("--max-drop %v cannot be met: with %s throughout the model drops by %.4g %s (from %.4f)",
			a.o.MaxDrop, a.candidates[len(a.candidates)-1], drop, unitOf(metricOf(a.task)), a.report.FloatMetric),
			"allow more, --exclude the layers that `cosetq compare` finds worst, or see docs/finetuning.md")
	}
	above, below := trial{last, drop}, trial{at: -1}
	for len(a.report.Trials) < maxTrials && above.at-below.at > 1 {
		smaller := a.frontier.Point(max(below.at, 0)).Bytes
		if below.at >= 0 && float64(a.frontier.Point(above.at).Bytes-smaller) < sizeTolerance*float64(a.frontier.Point(above.at).Bytes) {
			break
		}
		next := trial{at: min(max(a.aim(below, above), below.at+1), above.at-1)}
		if next.drop, err = a.drop(ctx, next.at); err != nil {
			return 0, err
		}
		if next.drop <= a.o.MaxDrop {
			above = next
		} else {
			below = next
		}
	}
	a.report.Drop = &above.drop
	return above.at, nil
}

// trial is a point of the frontier and how much its model drops.
type trial struct {
	at   int
	drop float64
}

// aim guesses the point at which the drop is what is allowed: it is taken as proportional to a power of the predicted loss, 1 as
// long as nothing is known below. Every third time the middle is taken, so that bad guesses cost little.
func (a *allocator) aim(below, above trial) int {
	high, low := a.frontier.Point(above.at), a.frontier.Point(max(below.at, 0))
	switch {
	case below.at < 0 && above.drop <= 0:
		return 0
	case above.drop <= 0 || len(a.report.Trials)%3 == 0:
		return a.frontier.Within(low.Bytes + (high.Bytes-low.Bytes)/2)
	case below.at < 0:
		return a.frontier.Below(high.Loss * a.o.MaxDrop / above.drop)
	}
	power := math.Log(low.Loss/high.Loss) / math.Log(below.drop/above.drop)
	return a.frontier.Below(high.Loss * math.Pow(a.o.MaxDrop/above.drop, power))
}

// What losses and drops are measured in.
const (
	metricKL    = "kl" // nats
	metricBits  = "bits_per_token"
	metricTop1  = "top1_points"  // of a hundred
	metricError = "output_error" // as a share of the outputs' energy
)

// metricOf is the metric that a task is judged by.
func metricOf(task string) string {
	switch task {
	case eval.TaskPerplexity:
		return metricBits
	case eval.TaskClassification:
		return metricTop1
	}
	return metricError
}

// unitOf says what a metric counts, for people.
func unitOf(metric string) string {
	switch metric {
	case metricKL:
		return "nats of divergence"
	case metricBits:
		return "bits per token"
	case metricTop1:
		return "points of top-1 accuracy"
	}
	return "of the outputs' energy"
}

// LossUnit says what the losses are in, as in "0.01 nats of divergence".
func (a *Allocation) LossUnit() string { return unitOf(a.Measure) }

// DropUnit says what the drops are in.
func (a *Allocation) DropUnit() string { return unitOf(a.Metric) }

// drop quantizes the model with the codecs of a point, evaluates the file, and returns how much worse than float it is.
func (a *allocator) drop(ctx context.Context, at int) (float64, error) {
	codecs := codecOf{}
	for i, codec := range a.codecsAt(at) {
		codecs[a.weights[i].Weight] = codec
	}
	coded, err := a.o.quantizeAll(ctx, a.r, "trying codecs", codecs, a.weights, a.h, a.j)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(a.j.Dir(), "trial-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "trial.onnx")
	bits, err := a.save(ctx, path, coded)
	if err != nil {
		return 0, err
	}
	if a.float == nil {
		if a.float, err = a.evaluate(ctx, a.m.Path()); err != nil {
			return 0, err
		}
		a.report.Metric = metricOf(a.task)
		a.report.FloatMetric = valueOf(a.float)
	}
	metrics, err := a.evaluate(ctx, path)
	if err != nil {
		return 0, err
	}
	drop := dropOf(a.float, metrics)
	a.report.Trials = append(a.report.Trials, DropTrial{bits, a.frontier.Point(at).Loss, drop})
	return drop, nil
}

// save writes the model with its codes and returns its bits per weight.
func (a *allocator) save(ctx context.Context, path string, coded map[*rewrite.Weight]*codedWeight) (bits float64, err error) {
	m, err := OpenModel(a.m.Path())
	if err != nil {
		return 0, err
	}
	defer m.Close()
	numbered := map[int]*codedWeight{}
	for _, w := range a.weights {
		if c := coded[w.Weight]; c.matrix != nil {
			numbered[w.number] = c
		}
	}
	done, err := applyTo(m, a.o.Sites, numbered)
	if err != nil {
		return 0, err
	}
	options := saveOptions()
	options.Context = ctx
	_, err = m.Save(path, options)
	return done.BitsPerWeight(), err
}

// evaluate evaluates a model on all of the data.
func (a *allocator) evaluate(ctx context.Context, path string) (metrics any, err error) {
	models := []string{path}
	if a.task == eval.TaskAgreement {
		models = []string{a.m.Path(), path}
	}
	r, err := Evaluate(ctx, a.task, a.o.Data, models, EvaluateOptions{Samples: a.o.Samples, Seed: a.o.Seed, Session: a.o.session(), Progress: a.o.Progress})
	if err != nil {
		return nil, err
	}
	return r.Models[len(models)-1].Metrics, nil
}

// valueOf is the value of the metric of a task.
func valueOf(metrics any) float64 {
	switch m := metrics.(type) {
	case eval.Perplexity:
		return m.BitsPerToken
	case eval.Classification:
		return 100 * m.Top1
	case eval.Agreement:
		return errorShare(m)
	}
	return math.NaN()
}

// dropOf is by how much a model is worse than the reference.
func dropOf(reference, metrics any) float64 {
	if _, ok := metrics.(eval.Classification); ok {
		return valueOf(reference) - valueOf(metrics)
	}
	return valueOf(metrics) - valueOf(reference)
}

// errorShare is the share of error in the energy of the outputs.
func errorShare(m eval.Agreement) float64 { return math.Pow(10, -float64(m.SQNR)/10) }
