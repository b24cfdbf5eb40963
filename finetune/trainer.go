package finetune

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// trainer is the state of a training: latent weights and parameters, the graphs that a step runs, and the best so far.
type trainer struct {
	opt        Options
	order      *order
	source     source
	latents    []*latent
	parts      []stretch
	parameters []*parameter
	graphs     graphs
	memory     Memory
	step, eval *bound

	chosen   bool    // the rate, as none was given
	done     int     // steps
	judged   int     // of them when the samples held out were last judged
	start    float64 // loss of the samples held out before the first step
	last     float64 // and at the last judgement
	best     snapshot
	identity []setting // see identify; nil where no checkpoint is written
	retreats int       // times the training diverged and went back to the best
	resumed  restart   // of the last of them
}

// graphs names the values that the graphs of a training exchange.
type graphs struct {
	loss, output, target string
	sums                 map[string][]float32      // of the gradients of a step, which latents and parameters read
	into                 map[string]*tensor.Tensor // those that the runtime writes there itself, as it has them in float32
}

// bound is a session with the names of the inputs it takes.
type bound struct {
	session grad.Session
	inputs  []string
}

func bind(m *onnx.Model, load grad.Loader) (*bound, error) {
	s, err := load(m, false)
	if err != nil {
		return nil, err
	}
	b := &bound{session: s}
	for _, in := range m.Graph.Inputs {
		b.inputs = append(b.inputs, in.Name)
	}
	return b, nil
}

// run feeds what the session takes of all. Outputs named in into are written there.
func (b *bound) run(ctx context.Context, all, into map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	fed := map[string]*tensor.Tensor{}
	for _, name := range b.inputs {
		fed[name] = all[name]
	}
	return b.session.RunInto(ctx, fed, into)
}

func (b *bound) close() {
	if b != nil {
		_ = b.session.Close()
	}
}

func (t *trainer) close() {
	t.step.close()
	t.eval.close()
}

// trace sets up the latent weights and fixes the graph to the shape of a batch.
func (t *trainer) trace(ctx context.Context, m *Model, data calib.Reader) (*grad.Graph, error) {
	for _, w := range m.Weights {
		l, err := newLatent(w)
		if err != nil {
			return nil, err
		}
		t.latents = append(t.latents, l)
	}
	t.parts = stretches(t.latents)
	inputs, _, err := readSamples(data, t.order.batch(0))
	if err != nil {
		return nil, err
	}
	return grad.Trace(ctx, m.Graph, m.Load, t.feed(inputs))
}

// addParameter trains an initializer of the graph.
func (t *trainer) addParameter(g *grad.Graph, init *onnx.Tensor) error {
	p, err := newParameter(init)
	if err != nil {
		return err
	}
	t.parameters = append(t.parameters, p)
	return g.Release(init.Name)
}

// build adds loss and gradients to the graph and loads it. It returns the input for the target.
func (t *trainer) build(g *grad.Graph, like *grad.Value, load grad.Loader) (*grad.Value, error) {
	if t.opt.Rate == 0 {
		rows := float64(t.opt.Accumulate) * float64(like.Count()) / float64(like.Shape[len(like.Shape)-1])
		t.opt.Rate, t.chosen = DefaultRate*min(1, math.Sqrt(rows/DefaultRateRows)), true
	}
	loss, target, err := g.AddLoss(t.opt.Loss, like.Name)
	if err != nil {
		return nil, err
	}
	t.graphs = graphs{loss: loss.Name, output: like.Name, target: target.Name}
	var wrt []string
	for _, l := range t.latents {
		if !l.Frozen {
			wrt = append(wrt, l.Input)
		}
	}
	for _, p := range t.parameters {
		wrt = append(wrt, p.name)
	}
	judge := g.Model(loss, like)
	plan, outputs, err := t.backward(g, loss, wrt)
	if err != nil {
		return nil, err
	}
	t.holdGradients(outputs[1:])
	if t.opt.Plan != nil {
		t.opt.Plan(Plan{Weights: len(wrt) - len(t.parameters), Parameters: len(t.parameters), Train: len(t.order.train), HeldOut: len(t.order.heldOut), Memory: t.memory})
	}
	if t.eval, err = bind(judge, load); err != nil {
		return nil, fmt.Errorf("finetune: load the graph that judges: %w", err)
	}
	if t.step, err = bind(plan.Model(outputs...), load); err != nil {
		return nil, fmt.Errorf("finetune: load the graph of a step: %w", err)
	}
	return target, nil
}

// holdGradients makes room for the gradients of a step.
func (t *trainer) holdGradients(gradients []*grad.Value) {
	t.graphs.sums, t.graphs.into = map[string][]float32{}, map[string]*tensor.Tensor{}
	for _, d := range gradients { // one may be that of several
		if t.graphs.sums[d.Name] != nil {
			continue
		}
		sum := make([]float32, d.Count())
		t.graphs.sums[d.Name] = sum
		if d.Type == onnx.Float {
			t.graphs.into[d.Name] = tensor.Of(sum, d.Shape...)
		}
	}
	for _, l := range t.latents {
		if !l.Frozen {
			l.g, gradients = t.graphs.sums[gradients[0].Name], gradients[1:]
		}
	}
	for _, p := range t.parameters {
		p.g, gradients = t.graphs.sums[gradients[0].Name], gradients[1:]
	}
}

// feed adds the values of weights and parameters to the inputs of a batch.
func (t *trainer) feed(inputs map[string]*tensor.Tensor) map[string]*tensor.Tensor {
	all := maps.Clone(inputs)
	for _, l := range t.latents {
		all[l.Input] = l.values
	}
	for _, p := range t.parameters {
		all[p.name] = p.value
	}
	return all
}

// pass runs a session on a batch and returns its outputs, some of them written where into says, with the target.
func (t *trainer) pass(ctx context.Context, s *bound, samples []int, into map[string]*tensor.Tensor) (out map[string]*tensor.Tensor, target *tensor.Tensor, err error) {
	inputs, err := t.source.batch(ctx, samples)
	if err != nil {
		return nil, nil, err
	}
	out, err = s.run(ctx, t.feed(inputs), into)
	return out, inputs[t.graphs.target], err
}

// judge measures the samples held out.
func (t *trainer) judge(ctx context.Context) (loss, agree float64, err error) {
	same, rows, passes := 0, 0, 0
	for part := range slices.Chunk(t.order.heldOut, t.order.size) {
		out, target, err := t.pass(ctx, t.eval, part, nil)
		if err != nil {
			return 0, 0, err
		}
		l, err := floats(out[t.graphs.loss])
		if err != nil {
			return 0, 0, err
		}
		s, r, err := agreement(out[t.graphs.output], target)
		if err != nil {
			return 0, 0, err
		}
		loss += float64(l[0])
		same, rows, passes = same+s, rows+r, passes+1
	}
	return loss / float64(passes), float64(same) / float64(rows), nil
}

// accumulate runs the passes of a step and sums their gradients. It returns the mean loss.
func (t *trainer) accumulate(ctx context.Context) (loss float64, err error) {
	for i := range t.opt.Accumulate {
		into := t.graphs.into
		if i > 0 {
			into = nil
		}
		out, _, err := t.pass(ctx, t.step, t.order.batch(t.done*t.opt.Accumulate+i), into)
		if err != nil {
			return 0, err
		}
		l, err := floats(out[t.graphs.loss])
		if err != nil {
			return 0, err
		}
		loss += float64(l[0]) / float64(t.opt.Accumulate)
		for name, sum := range t.graphs.sums {
			if into[name] != nil {
				continue
			}
			g, err := floats(out[name])
			if err != nil {
				return 0, err
			}
			if i == 0 {
				clear(sum)
			}
			for j, x := range g {
				sum[j] += x
			}
		}
	}
	return loss, nil
}

// move takes one step with the gradients at hand. It takes none, and returns errNotFinite, when they are not finite.
func (t *trainer) move(rate float64) error {
	if err := t.parallel(func(s stretch) error { s.measure(); return nil }); err != nil {
		return err
	}
	var square float64
	for _, l := range t.latents {
		for _, q := range l.square {
			square += q
		}
	}
	for _, p := range t.parameters {
		for _, g := range p.g {
			square += float64(g) * float64(g)
		}
	}
	factor := 1 / float64(t.opt.Accumulate)
	norm := math.Sqrt(square) * factor
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return errNotFinite
	}
	if norm > t.opt.Clip {
		factor *= t.opt.Clip / norm
	}
	step := t.done + 1 - t.resumed.Step
	var blur float64 // of the finest codec in training: parameters serve all
	for _, l := range t.latents {
		if !l.Frozen {
			l.moveScales(rate, factor, step)
			if blur == 0 || l.blur < blur {
				blur = l.blur
			}
		}
	}
	for _, p := range t.parameters {
		p.move(slowRate*rate*blur, factor, step)
	}
	return t.parallel(func(s stretch) error { return s.move(rate, factor, step) })
}
