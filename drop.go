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
	Samples       int     `json:"samples"` // that it was evaluated on
	Drop          float64 `json:"drop"`
}

const (
	// maxTrials bounds how many models are evaluated, at first and after each that was evaluated on all of the data, and maxVerdicts
	// how many are the latter.
	maxTrials, moreTrials = 6, 2
	maxVerdicts           = 3
	// sizeTolerance is the share of a model's size that is not worth another trial.
	sizeTolerance = 0.01
)

// checkDrop refuses a loss that nothing can be measured against; nil is none.
func checkDrop(allowed *float64) error {
	if allowed != nil && !(*allowed >= 0 && *allowed < math.Inf(1)) {
		return usage(fmt.Errorf("--max-drop %v is no drop", *allowed), "give a number from 0, which allows no loss at all")
	}
	return nil
}

// search returns the smallest point of the frontier whose model, evaluated on the data, drops by no more than MaxDrop. It
// counts on the drop getting smaller with the size, and aims by the losses that were measured layer by layer. Where the data
// is large, points are tried on a part of it. What all of it then says of the point found corrects the trials, since the part errs
// alike for models that are alike, and the search goes on from there.
func (a *allocator) search(ctx context.Context) (int, error) {
	last := a.frontier.Len() - 1
	a.tried = map[int]float64{}
	a.trials = maxTrials
	best, verdicts := last+1, map[int]float64{}
	for len(verdicts) < maxVerdicts {
		at, err := a.narrow(ctx)
		if err != nil {
			return 0, err
		}
		if _, known := verdicts[at]; known {
			break
		}
		if verdicts[at], err = a.verdict(ctx, at); err != nil {
			return 0, err
		}
		a.correction = verdicts[at] - a.tried[at]
		a.trials += moreTrials
		if verdicts[at] <= *a.o.MaxDrop {
			best = min(best, at)
		}
	}
	if best > last { // the part of the data was mistaken every time
		best = last
		var err error
		if verdicts[best], err = a.verdict(ctx, best); err != nil {
			return 0, err
		}
	}
	drop := verdicts[best]
	a.report.Drop = &drop
	return best, nil
}

// verdict is what a point drops on all of the data. It is an error where even the last point drops by more than MaxDrop.
func (a *allocator) verdict(ctx context.Context, at int) (drop float64, err error) {
	drop, known := a.tried[at]
	if !known || a.samples > a.trial {
		if drop, err = a.drop(ctx, at, a.samples); err != nil {
			return 0, err
		}
	}
	if at == a.frontier.Len()-1 && drop > *a.o.MaxDrop {
		return 0, fail(Quality, fmt.Errorf("--max-drop %v cannot be met: with %s throughout the model drops by %.4g %s (from %.4f)",
			*a.o.MaxDrop, a.candidates[len(a.candidates)-1], drop, unitOf(metricOf(a.task)), a.report.FloatMetric),
			"allow more, --exclude the layers that `cosetq compare` finds worst, or see docs/finetuning.md")
	}
	return drop, nil
}

// narrow tries points until the smallest that drops by no more than MaxDrop is known well enough, or the last point where none does.
func (a *allocator) narrow(ctx context.Context) (int, error) {
	for {
		above, below := a.bracket()
		_, known := a.tried[above.at]
		next := trial{at: above.at}
		switch {
		case !known:
		case above.drop > *a.o.MaxDrop || above.at-below.at <= 1 || len(a.tried) >= a.trials || a.alike(below, above):
			return above.at, nil
		default:
			next.at = min(max(a.aim(below, above), below.at+1), above.at-1)
		}
		var err error
		if a.tried[next.at], err = a.drop(ctx, next.at, a.trial); err != nil {
			return 0, err
		}
	}
}

// bracket returns the smallest point known to drop by no more than MaxDrop, or the last, and the largest below it that drops by
// more; −1 where none is known.
func (a *allocator) bracket() (above, below trial) {
	above, below = trial{at: a.frontier.Len() - 1}, trial{at: -1}
	above.drop = a.tried[above.at] + a.correction
	for at, drop := range a.tried {
		if drop += a.correction; drop <= *a.o.MaxDrop && at < above.at {
			above = trial{at, drop}
		}
	}
	for at, drop := range a.tried {
		if drop += a.correction; drop > *a.o.MaxDrop && at > below.at && at < above.at {
			below = trial{at, drop}
		}
	}
	return above, below
}

// alike tells whether two points are about as large.
func (a *allocator) alike(below, above trial) bool {
	if below.at < 0 {
		return false
	}
	smaller, larger := a.frontier.Point(below.at).Bytes, a.frontier.Point(above.at).Bytes
	return float64(larger-smaller) < sizeTolerance*float64(larger)
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
	case above.drop <= 0 || len(a.tried)%3 == 0:
		return a.frontier.Within(low.Bytes + (high.Bytes-low.Bytes)/2)
	case below.at < 0:
		return a.frontier.Below(high.Loss * *a.o.MaxDrop / above.drop)
	}
	power := math.Log(low.Loss/high.Loss) / math.Log(below.drop/above.drop)
	return a.frontier.Below(high.Loss * math.Pow(*a.o.MaxDrop/above.drop, power))
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

// drop quantizes the model with the codecs of a point, evaluates the file on so many samples, and returns how much worse than
// float it is.
func (a *allocator) drop(ctx context.Context, at, samples int) (float64, error) {
	codecs := codecOf{}
	for i, codec := range a.codecsAt(at) {
		codecs[a.weights[i].Weight] = codec
	}
	coded, err := a.o.quantizeAll(ctx, a.r, "trying codecs", codecs, a.weights, a.h, a.j)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(a.j.Dir(), ".trial-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "trial.onnx")
	bits, err := a.save(ctx, path, coded)
	if err != nil {
		return 0, err
	}
	if a.float[samples] == nil {
		if a.float[samples], err = a.evaluate(ctx, "evaluating float", a.m.Path(), samples); err != nil {
			return 0, err
		}
	}
	a.report.Metric = metricOf(a.task)
	a.report.FloatMetric = valueOf(a.float[samples])
	metrics, err := a.evaluate(ctx, fmt.Sprintf("evaluating %.2f bits", bits), path, samples)
	if err != nil {
		return 0, err
	}
	drop := dropOf(a.float[samples], metrics)
	a.report.Trials = append(a.report.Trials, DropTrial{bits, a.frontier.Point(at).Loss, samples, drop})
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

// evaluate evaluates a model on some samples of the data.
func (a *allocator) evaluate(ctx context.Context, stage, path string, samples int) (metrics any, err error) {
	models := []string{path}
	if a.task == eval.TaskAgreement {
		models = []string{a.m.Path(), path}
	}
	o := EvaluateOptions{Samples: samples, Seed: a.o.Seed, Session: a.o.session()}
	if a.o.Progress != nil {
		o.Progress = func(_ string, done, total int64) { a.o.Progress(stage, done, total) }
	}
	r, err := Evaluate(ctx, a.task, a.o.Data, models, o)
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
	if c, ok := metrics.(eval.Classification); ok {
		// From the counts: a difference of shares is off by rounding, and who allows one point would be told of a drop by one.
		return 100 * float64(reference.(eval.Classification).Correct-c.Correct) / float64(c.Count)
	}
	return valueOf(metrics) - valueOf(reference)
}

// errorShare is the share of error in the energy of the outputs.
func errorShare(m eval.Agreement) float64 { return math.Pow(10, -float64(m.SQNR)/10) }
