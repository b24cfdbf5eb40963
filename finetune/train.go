package finetune

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/quant"
)

// Options say how to train. [Options.Steps] or [Options.MaxTime] must be set; other zeros take the defaults below.
type Options struct {
	Steps   int           // steps of the optimizer
	MaxTime time.Duration // or as many as fit into this time; then the result depends on the machine

	Batch      int       // samples of a pass
	Accumulate int       // passes whose gradients make a step
	Loss       grad.Loss // KL and MSE take a teacher, CrossEntropy labels
	Rate       float64   // peak learning rate, relative to the rms distance of weights from their codes. 0: see [DefaultRate]
	WarmUp     float64   // share of the training over which the rate rises
	Clip       float64   // bound on the norm of the gradient
	HeldOut    int       // samples to judge by, never trained on
	Samples    int       // samples that TrainBlocks keeps the activations of
	Every      int       // steps between judgements
	Seed       uint64    // of the order of the samples

	Threads    int           // that move the weights and code them; 0 takes all cores. The result does not depend on it
	MaxMemory  int64         // bytes; above it activations are computed again instead of being kept. 0: no bound
	Checkpoint string        // file for the state of the training; "" writes none
	Resume     bool          // go on from Checkpoint
	Save       time.Duration // time between checkpoints
	// Sources tell apart what the training learns from: whoever goes on from Checkpoint must have the same. The keys are what an error
	// calls them.
	Sources map[string]string

	Plan   func(Plan)  // told what the training will hold, before it begins; may be nil
	Report func(Event) // follows the training; may be nil
}

// Plan is what a training sets out to do.
type Plan struct {
	Weights, Parameters int // tensors to train
	Train, HeldOut      int // samples
	Memory              Memory
}

// Defaults of [Options].
const (
	DefaultWarmUp  = 0.05
	DefaultClip    = 1
	DefaultHeldOut = 32
	DefaultEvery   = 50
	DefaultSave    = 5 * time.Minute
)

// ErrNotFinite says that there is nothing to learn: the loss is NaN or infinite before training.
var ErrNotFinite = errors.New("numbers that are not finite")

// OptionError is an option that makes no sense, asks for more data than there is, or at which every training diverges.
type OptionError struct{ Msg string }

func (e *OptionError) Error() string { return "finetune: " + e.Msg }

func (o *Options) fill() error {
	if o.Steps < 0 || o.MaxTime < 0 || (o.Steps == 0) == (o.MaxTime == 0) {
		return &OptionError{"give a number of steps or a time, one of them"}
	}
	setDefault(&o.Accumulate, 1)
	setDefault(&o.WarmUp, DefaultWarmUp)
	setDefault(&o.Clip, DefaultClip)
	setDefault(&o.HeldOut, DefaultHeldOut)
	setDefault(&o.Every, DefaultEvery)
	setDefault(&o.Save, DefaultSave)
	switch {
	case o.Batch < 1 || o.Accumulate < 1:
		return &OptionError{fmt.Sprintf("a batch of %d, %d of them in a step: both must be positive", o.Batch, o.Accumulate)}
	case !(o.Rate >= 0 && o.Rate < math.Inf(1)):
		return &OptionError{fmt.Sprintf("a learning rate of %v: it must be positive", o.Rate)}
	case !(o.Clip > 0):
		return &OptionError{fmt.Sprintf("a bound of %v on the gradient: it must be positive", o.Clip)}
	case !(o.WarmUp >= 0 && o.WarmUp < 1):
		return &OptionError{fmt.Sprintf("a warm-up of %v: it is a share of the training, from 0 to less than 1", o.WarmUp)}
	case o.HeldOut < 1 || o.Every < 1:
		return &OptionError{fmt.Sprintf("%d samples held out, judged by every %d steps: both must be positive", o.HeldOut, o.Every)}
	}
	return nil
}

func setDefault[T comparable](x *T, otherwise T) {
	var zero T
	if *x == zero {
		*x = otherwise
	}
}

// DefaultRate is the peak learning rate for steps that see at least DefaultRateRows rows of outputs (tokens, images), of a training of
// DefaultRateSteps steps at most. With fewer rows the gradient is noisier, with more steps codes stray further from what LDLQ found before
// the rate falls: the rate then is less by the square root of either.
const (
	DefaultRate      = 0.04
	DefaultRateRows  = 1024
	DefaultRateSteps = 350
)

// Event is one line of the progress: a judgement on the samples held out.
type Event struct {
	Block, Blocks int           // from 1; 0 when the whole model is trained
	Step, Steps   int           // Steps is 0 when a time was given
	Elapsed       time.Duration // of training, without what came before a checkpoint
	Train         float64       // mean loss of the steps since the last event; NaN where there were none
	HeldOut       float64       // loss on the samples held out
	Agreement     float64       // share of their rows whose largest output is where the target's is
	Best          bool          // the least so far
	Diverged      bool          // far above that of the start, or not finite: the training goes back to the best, at half the rate
}

// Result is a trained model.
type Result struct {
	Matrices    map[string]*quant.Matrix // of every trained weight, by graph input
	Parameters  map[string][]float32     // trained biases and parameters of normalisations, by name
	HeldOut     int                      // samples judged by, and never trained on
	Start       float64                  // their loss before training
	Best        float64                  // and that of the result
	BestStep    int                      // 0 when no step was better than the start
	Last        float64                  // and that at the end, which may be worse
	Retreats    int                      // times the training diverged and went back to the best, at half the rate
	Rate        float64                  // peak learning rate at the end
	Steps       int                      // steps taken
	Seconds     float64
	Memory      Memory
	Interrupted bool // the context ended the training early

	// Keep writes the state to Options.Checkpoint, whence Options.Resume gives this result again: for a caller who cannot save
	// it. TrainBlocks has none.
	Keep func() error
}

// Train trains a model on the data, against the teacher's outputs or, without a teacher, the labels.
func Train(ctx context.Context, m *Model, data calib.Reader, teacher *Teacher, o Options) (*Result, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	split, err := newOrder(data.Len(), o.Batch, o.HeldOut, o.Seed)
	if err != nil {
		return nil, err
	}
	t := &trainer{opt: o, order: split}
	defer t.close()
	g, err := t.trace(ctx, m, data)
	if err != nil {
		return nil, err
	}
	like, err := judged(g, o.Batch)
	if err != nil {
		return nil, err
	}
	for _, name := range parameters(m.Graph) {
		if err := t.addParameter(g, m.Graph.Graph.Initializer(name)); err != nil {
			return nil, err
		}
	}
	target, err := t.build(g, like, m.Load)
	if err != nil {
		return nil, err
	}
	t.source = &taught{reader: data, teacher: teacher, target: target}
	return t.run(ctx)
}

// judged returns the output of the model that the loss is of: its first of floating-point numbers.
func judged(g *grad.Graph, batch int) (*grad.Value, error) {
	for _, name := range g.Outputs() {
		v := g.Value(name)
		if !v.IsFloat() {
			continue
		}
		if len(v.Shape) == 0 {
			return nil, &OptionError{fmt.Sprintf("output %q is a single number, without an axis to tell samples apart by", v.Name)}
		}
		if v.Shape[0]%int64(batch) != 0 {
			return nil, &OptionError{fmt.Sprintf("output %q has shape %v for a batch of %d: the model does not keep samples apart; train with a batch of 1, and accumulate",
				v.Name, v.Shape, batch)}
		}
		return v, nil
	}
	return nil, errors.New("finetune: the model has no output of floating-point numbers to judge")
}
