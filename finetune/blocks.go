package finetune

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/tensor"
)

// DefaultBlockSamples is how many samples [TrainBlocks] keeps the activations of.
const DefaultBlockSamples = 128

// TrainBlocks trains one block of the model after the other: each is to give, on what the blocks before it give now, what it
// gives in the float model. A block is the part between two places where the model is one value wide; the loss is the squared
// error relative to the energy of the output, and for the last block too. Steps or the time are shared evenly among the blocks.
//
// It holds the training state and the activations of one block, and what passes between blocks for a limited number of samples:
// the first Options.Samples of the data. Checkpoints are not written.
func TrainBlocks(ctx context.Context, m *Model, data calib.Reader, teacher *Teacher, o Options) (*Result, error) {
	o.Loss = grad.MSE
	if err := o.fill(); err != nil {
		return nil, err
	}
	if teacher == nil {
		return nil, errors.New("finetune: blocks learn from a teacher, not from labels")
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	setDefault(&o.Samples, DefaultBlockSamples)
	o.Samples = min(o.Samples, data.Len()) / o.Batch * o.Batch
	split, err := newOrder(o.Samples, o.Batch, min(o.HeldOut, o.Samples/4), o.Seed)
	if err != nil {
		return nil, err
	}
	still := &Model{Graph: m.Graph, Load: m.Load, Weights: slices.Clone(m.Weights)} // values alone, for the shapes
	for i := range still.Weights {
		still.Weights[i].Frozen = true
	}
	g, err := (&trainer{opt: o, order: split}).trace(ctx, still, data)
	if err != nil {
		return nil, err
	}
	like, err := judged(g, o.Batch)
	if err != nil {
		return nil, err
	}
	b := &blockwise{model: m, opt: o, order: split, data: data, teacher: teacher, graph: g, weights: map[string]Weight{}}
	for _, w := range m.Weights {
		b.weights[w.Input] = w
	}
	b.blocks = g.Join(g.Segments(m.inputs(), like.Name), m.inputs(), func(cut string) bool {
		v := g.Value(cut)
		return teacher.Has(cut) && v.IsFloat() && len(v.Shape) > 0 && v.Shape[0]%int64(o.Batch) == 0
	})
	return b.run(ctx)
}

// blockwise is the state of a training block by block.
type blockwise struct {
	model   *Model
	opt     Options
	order   *order
	data    calib.Reader
	teacher *Teacher
	graph   *grad.Graph
	blocks  []grad.Segment
	weights map[string]Weight

	// Of every sample, what the trained blocks and what those of the float model give to the next one; nil in front of the first.
	entering, floats []*tensor.Tensor
	settled          map[string][]float32 // parameters that earlier blocks have trained
}

func (b *blockwise) run(ctx context.Context) (*Result, error) {
	begin := time.Now()
	total := &Result{Parameters: map[string][]float32{}}
	b.settled = total.Parameters
	for i, s := range b.blocks {
		r, err := b.train(ctx, i, s)
		if err != nil {
			return nil, fmt.Errorf("finetune: block %d of %d, up to %q: %w", i+1, len(b.blocks), s.Output, err)
		}
		if total.Matrices == nil {
			total.Matrices = r.Matrices
		}
		maps.Copy(total.Matrices, r.Matrices)
		maps.Copy(total.Parameters, r.Parameters)
		total.HeldOut = r.HeldOut
		total.Start += r.Start / float64(len(b.blocks))
		total.Best += r.Best / float64(len(b.blocks))
		total.Last += r.Last / float64(len(b.blocks))
		total.Retreats += r.Retreats
		total.Rate = r.Rate
		total.Steps += r.Steps
		total.BestStep += r.BestStep
		if r.Memory.Total() > total.Memory.Total() {
			total.Memory = r.Memory
		}
		if r.Interrupted {
			total.Interrupted = true
			break
		}
	}
	total.Seconds = time.Since(begin).Seconds()
	return total, nil
}

// train trains one block, and lets the samples through it.
func (b *blockwise) train(ctx context.Context, number int, s grad.Segment) (*Result, error) {
	g := b.graph.Clone()
	if s.Input != "" {
		g.Cut(s.Input)
	}
	o := b.opt
	o.Checkpoint = ""
	o.Steps, o.MaxTime = (o.Steps+len(b.blocks)-1)/len(b.blocks), o.MaxTime/time.Duration(len(b.blocks))
	o.Every = max(min(o.Every, o.Steps/4), 1)
	if o.Steps == 0 {
		o.Every = b.opt.Every
	}
	if report := o.Report; report != nil {
		o.Report = func(e Event) {
			e.Block, e.Blocks = number+1, len(b.blocks)
			report(e)
		}
	}
	t := &trainer{opt: o, order: b.order}
	defer t.close()
	var names []string
	for name := range b.weights {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range g.Reads(s, names) {
		l, err := newLatent(b.weights[name])
		if err != nil {
			return nil, err
		}
		t.latents = append(t.latents, l)
	}
	t.parts = stretches(t.latents)
	for _, name := range g.Reads(s, parameters(b.model.Graph)) {
		if b.settled[name] != nil {
			continue // an earlier block reads it too, and it stays as it was left there
		}
		if err := t.addParameter(g, b.model.Graph.Graph.Initializer(name)); err != nil {
			return nil, err
		}
	}
	like := g.Value(s.Output)
	if _, err := t.build(g, like, b.model.Load); err != nil {
		return nil, err
	}
	samples, err := b.samples(ctx, s)
	if err != nil {
		return nil, err
	}
	t.source = &kept{samples: samples, input: s.Input, target: t.graphs.target}
	r, err := t.run(ctx)
	if err != nil || r.Interrupted {
		return r, err
	}
	return r, b.pass(ctx, t, samples)
}

// samples reads the samples with what enters the block and what should leave it.
func (b *blockwise) samples(ctx context.Context, s grad.Segment) ([]blockSample, error) {
	var all []blockSample
	numbers := make([]int, b.opt.Samples)
	for i := range numbers {
		numbers[i] = i
	}
	for part := range slices.Chunk(numbers, b.opt.Batch) {
		inputs, raw, err := readSamples(b.data, part)
		if err != nil {
			return nil, err
		}
		if s.Input != "" {
			var entering []*calib.Sample
			for _, n := range part {
				entering = append(entering, &calib.Sample{Inputs: map[string]*tensor.Tensor{s.Input: b.floats[n]}})
			}
			joined, err := calib.Join(entering)
			if err != nil {
				return nil, err
			}
			inputs = maps.Clone(inputs)
			maps.Copy(inputs, joined)
		}
		out, err := b.teacher.Value(ctx, inputs, s.Input, s.Output)
		if err != nil {
			return nil, fmt.Errorf("the float model: %w", err)
		}
		targets, err := divide(out, len(part))
		if err != nil {
			return nil, err
		}
		for i, n := range part {
			sample := blockSample{raw: raw[i], target: targets[i]}
			if s.Input != "" {
				sample.entering = b.entering[n]
			}
			all = append(all, sample)
		}
	}
	return all, nil
}

// pass lets all samples through the trained block, at its best state, to the next one.
func (b *blockwise) pass(ctx context.Context, t *trainer, samples []blockSample) error {
	if err := t.revert(); err != nil {
		return err
	}
	leaving := make([]*tensor.Tensor, 0, len(samples))
	for first := 0; first < len(samples); first += b.opt.Batch {
		numbers := make([]int, b.opt.Batch)
		for i := range numbers {
			numbers[i] = first + i
		}
		out, _, err := t.pass(ctx, t.eval, numbers, nil)
		if err != nil {
			return err
		}
		parts, err := divide(out[t.graphs.output], b.opt.Batch)
		if err != nil {
			return err
		}
		leaving = append(leaving, parts...)
	}
	b.entering, b.floats = leaving, nil
	for _, s := range samples {
		b.floats = append(b.floats, s.target)
	}
	return nil
}

// divide cuts a tensor into n along its first dimension.
func divide(t *tensor.Tensor, n int) ([]*tensor.Tensor, error) {
	if t == nil || len(t.Shape) == 0 || t.Shape[0]%int64(n) != 0 {
		return nil, errors.New("a value between blocks does not keep samples apart")
	}
	shape := slices.Clone(t.Shape)
	shape[0] /= int64(n)
	size := len(t.Data) / n
	parts := make([]*tensor.Tensor, n)
	for i := range parts {
		parts[i] = &tensor.Tensor{Type: t.Type, Shape: shape, Data: t.Data[i*size : (i+1)*size]}
	}
	return parts, nil
}

// blockSample is what a block needs of one sample.
type blockSample struct {
	raw              *calib.Sample
	entering, target *tensor.Tensor // entering is nil for the first block
}

// kept is the source for a block: samples whose activations are kept.
type kept struct {
	samples       []blockSample
	input, target string // names of the graph inputs; input is empty for the first block
}

func (k *kept) batch(_ context.Context, numbers []int) (map[string]*tensor.Tensor, error) {
	var samples []*calib.Sample
	for _, i := range numbers {
		s := k.samples[i]
		inputs := maps.Clone(s.raw.Inputs)
		inputs[k.target] = s.target
		if s.entering != nil {
			inputs[k.input] = s.entering
		}
		samples = append(samples, &calib.Sample{Inputs: inputs})
	}
	return calib.Join(samples)
}
