package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// judged is what a model made of samples.
type judged struct {
	model   eval.Model                        // without its session
	outputs map[int]map[string]*tensor.Tensor // of images, by the place of the sample
	of      *score                            // of anything else
}

// score is how well a model does: bits per byte, or images that are right and how far their probabilities are from the float model's.
type score struct {
	score, kl float64
	judged    int
}

// judge runs a model on some samples, or on all. Images go one by one, so that what they gave serves any division of them.
func (m *measurement) judge(ctx context.Context, path string, only []int, threads int) (*judged, error) {
	loaded, err := cosetq.Load(path, ort.SessionOptions{OpsLibrary: m.library, Threads: threads,
		Config: map[string]string{cudaops.ConfigAccuracy: strconv.Itoa(cudaops.AccuracyAccurate)}}) // as the peers'
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	if m.samples == nil {
		if m.samples, err = read(*data, loaded.Inputs); err != nil {
			return nil, err
		}
	}
	j := &judged{model: eval.Model{Path: path, Inputs: loaded.Inputs, Outputs: loaded.Outputs}}
	if *task == eval.TaskClassification {
		j.outputs = map[int]map[string]*tensor.Tensor{}
		for i, s := range m.samples {
			if only != nil && !slices.Contains(only, i) {
				continue
			}
			if j.outputs[i], err = loaded.Session.Run(ctx, s.Inputs); err != nil {
				return nil, err
			}
		}
		return j, nil
	}
	with := j.model
	with.Runner = loaded.Session
	report, err := eval.Run(ctx, *task, []eval.Model{with}, kept(m.samples), eval.Options{})
	if err != nil {
		return nil, err
	}
	s, ok := report.Models[0].Metrics.(eval.Perplexity)
	if !ok {
		return nil, fmt.Errorf("the task %s has no score", *task)
	}
	j.of = &score{score: s.BitsPerToken, judged: s.Tokens}
	return j, nil
}

// score is that of the samples at some places.
func (m *measurement) score(ctx context.Context, j *judged, places []int) (*score, error) {
	if j.of != nil {
		return j.of, nil
	}
	var samples kept
	for _, i := range places {
		samples = append(samples, m.samples[i])
	}
	one := eval.Options{Batch: 1}
	report, err := eval.Run(ctx, eval.TaskClassification, []eval.Model{j.again(places)}, samples, one)
	if err != nil {
		return nil, err
	}
	c := report.Models[0].Metrics.(eval.Classification)
	s := &score{score: float64(c.Correct), judged: c.Count}
	if j == m.float {
		return s, nil
	}
	if report, err = eval.Run(ctx, eval.TaskAgreement, []eval.Model{m.float.again(places), j.again(places)}, samples, one); err != nil {
		return nil, err
	}
	s.kl = report.Models[1].Metrics.(eval.Agreement).KL
	return s, nil
}

// again is the model that gives what it gave before, for the samples at some places one by one.
func (j *judged) again(places []int) eval.Model {
	again := j.model
	r := &replay{}
	for _, i := range places {
		r.outputs = append(r.outputs, j.outputs[i])
	}
	again.Runner = r
	return again
}

// replay gives outputs in their order.
type replay struct{ outputs []map[string]*tensor.Tensor }

func (r *replay) Run(context.Context, map[string]*tensor.Tensor) (outputs map[string]*tensor.Tensor, err error) {
	outputs, r.outputs = r.outputs[0], r.outputs[1:]
	return outputs, nil
}

// kept is data that was read once for all forms: decoding images takes longer than running a small model on them.
type kept []*calib.Sample

func (k kept) Len() int                            { return len(k) }
func (k kept) Sample(i int) (*calib.Sample, error) { return k[i], nil }
func (k kept) Random() bool                        { return false }
func (k kept) Close() error                        { return nil }

func read(data string, inputs []tensor.Spec) (kept, error) {
	reader, err := calib.Open(data, inputs, calib.Options{Limit: *limit})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var all kept
	for i := range reader.Len() {
		s, err := reader.Sample(i)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
