package cosetq

import (
	"context"
	"errors"
	"fmt"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// watched returns the float model with all layers of the other beside its own, and the other model, both with the values of
// all layers among their outputs; local[i] names the value that grafted layer i computes.
func (c *comparison) watched(ctx context.Context) (float, other *running, local []string, err error) {
	m, err := OpenModel(c.float)
	if err != nil {
		return nil, nil, nil, err
	}
	defer m.Close()
	outputs := len(m.Graph.Outputs)
	if local, err = rewrite.Graft(m, c.other, c.pairs, true); err != nil {
		return nil, nil, nil, fail(BadModel, err, "")
	}
	for i, p := range c.pairs {
		rewrite.Tap(m, c.sites[p.Site].DType, p.Output, local[i])
	}
	if float, err = c.load(ctx, m, "float.onnx"); err != nil {
		return nil, nil, nil, err
	}
	tapped, err := OpenModel(c.other.Path())
	if err != nil {
		return nil, nil, nil, errors.Join(err, float.session.Close())
	}
	defer tapped.Close()
	for _, p := range c.pairs {
		rewrite.Tap(tapped, c.sites[p.Site].DType, p.Output)
	}
	if other, err = c.load(ctx, tapped, "other.onnx"); err != nil {
		return nil, nil, nil, errors.Join(err, float.session.Close())
	}
	float.outputs, other.outputs = float.outputs[:outputs], other.outputs[:outputs]
	return float, other, local, nil
}

// measure fills in the layers and the outputs.
func (c *comparison) measure(ctx context.Context, r *CompareReport) error {
	float, other, local, err := c.watched(ctx)
	if err != nil {
		return err
	}
	defer float.session.Close()
	defer other.session.Close()
	judge := &watch{c: c, float: float, local: local, localErr: make([]eval.Deviation, len(c.pairs)), accumulated: make([]eval.Deviation, len(c.pairs))}
	step := c.options.Progress.stage("comparing", int64(c.reader.Len()))
	done := 0
	report, err := eval.Run(ctx, eval.TaskAgreement, []eval.Model{
		{Path: c.float, Runner: judge.reference(), Inputs: float.inputs, Outputs: float.outputs},
		{Path: c.other.Path(), Runner: judge.judged(other.session), Inputs: other.inputs, Outputs: other.outputs},
	}, c.reader, eval.Options{Batch: 1, Progress: func(d, _ int) {
		step(d - done)
		done = d
	}})
	if err != nil {
		return err
	}
	r.Output = report.Models[1].Metrics.(eval.Agreement)
	for i, p := range c.pairs {
		s := &c.sites[p.Site]
		l := ComparedLayer{Node: s.Name, Initializer: s.Initializer, Op: s.Op, K: s.K, N: s.N, Codec: p.Codec(), FloatBytes: s.Weights * int64(s.DType.Bits()/8),
			Local: judge.localErr[i].SQNR(), LocalCosine: eval.Number(judge.localErr[i].Cosine()),
			SQNR: judge.accumulated[i].SQNR(), Cosine: eval.Number(judge.accumulated[i].Cosine()), MaxAbsErr: eval.Number(judge.accumulated[i].MaxAbsErr())}
		same := c.without(func(o *rewrite.Site) bool { return o.Weight != s.Weight })
		for _, t := range p.Tensors(c.other, same) {
			size, err := t.ByteSize()
			if err != nil {
				return fail(BadModel, err, "")
			}
			l.Bytes += size
		}
		r.Layers = append(r.Layers, l)
	}
	return nil
}

// watch runs the two models of a comparison and looks at what the layers compute.
type watch struct {
	c                     *comparison
	float                 *running
	local                 []string
	localErr, accumulated []eval.Deviation
	last                  map[string]*tensor.Tensor // what the float model computed for the sample at work
}

type runnerFunc func(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error)

func (f runnerFunc) Run(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	return f(ctx, inputs)
}

// reference runs the float model and compares the layers that stand beside its own.
func (w *watch) reference() eval.Runner {
	return runnerFunc(func(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
		outputs, err := w.float.session.Run(ctx, inputs)
		if err != nil {
			return nil, err
		}
		w.last = outputs
		return outputs, w.add(w.localErr, func(i int) *tensor.Tensor { return outputs[w.local[i]] })
	})
}

// judged runs the other model and compares its layers with those of the float model on the same sample.
func (w *watch) judged(session *ort.Session) eval.Runner {
	return runnerFunc(func(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
		outputs, err := session.Run(ctx, inputs)
		if err != nil {
			return nil, err
		}
		return outputs, w.add(w.accumulated, func(i int) *tensor.Tensor { return outputs[w.c.pairs[i].Output] })
	})
}

func (w *watch) add(sums []eval.Deviation, value func(layer int) *tensor.Tensor) error {
	for i, p := range w.c.pairs {
		if err := sums[i].Add(w.last[p.Output], value(i)); err != nil {
			return fmt.Errorf("layer %s: %w", w.c.sites[p.Site].Name, err)
		}
	}
	return nil
}
