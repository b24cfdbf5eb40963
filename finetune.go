package cosetq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// FinetuneOptions say how to train a quantized model.
type FinetuneOptions struct {
	Output    string // file to write; "" is the quantized input's name ending in .ft.onnx
	Overwrite bool   // replace the output if it exists

	Data   string // recipe of the data to train on, or random:N
	Labels bool   // learn the labels of the data, or the next tokens, instead of the float model's outputs
	Blocks bool   // train one block after the other, each against its own outputs in the float model
	Train  finetune.Options

	// Quantize says how to make the quantized model where none is given.
	Quantize QuantizeOptions

	Threads int // of the runtime; 0 takes all cores
}

// FinetuneReport is the outcome of [Finetune].
type FinetuneReport struct {
	Schema      string          `json:"schema"`
	Float       string          `json:"float"`
	Quantized   string          `json:"quantized,omitempty"`
	Loss        string          `json:"loss"`
	HeldOut     int             `json:"held_out"`
	Start       float64         `json:"held_out_loss_before"`
	Best        float64         `json:"held_out_loss_after"`
	Last        float64         `json:"held_out_loss_at_the_end"`
	BestStep    int             `json:"best_step"`
	Steps       int             `json:"steps"`
	Rate        float64         `json:"rate"`
	Retreats    int             `json:"retreats,omitempty"`
	Weights     int             `json:"weights"`
	Parameters  int             `json:"parameters"`
	Memory      finetune.Memory `json:"memory"`
	Interrupted bool            `json:"interrupted,omitempty"`
	Checkpoint  string          `json:"checkpoint,omitempty"`
	Notes       []string        `json:"notes,omitempty"`
	Files       []File          `json:"files"`
	Seconds     float64         `json:"seconds"`
	CPUSeconds  float64         `json:"cpu_seconds"`
	PeakRSS     int64           `json:"peak_rss_bytes"`
}

// defaultBatch is how many samples a pass takes: four windows of tokens fill a machine, of images it takes more.
const (
	defaultBatchTokens = 4
	defaultBatch       = 64
)

// Finetune trains the quantized weights of a model to do what its float form does, or what labels ask for, and writes the
// result. With quantized "", the float model is quantized first. When ctx ends the training early, the best state so far is
// written all the same, and the report says so.
func Finetune(ctx context.Context, float, quantized string, o FinetuneOptions) (*FinetuneReport, error) {
	start := time.Now()
	if o.Data == "" {
		return nil, usage(errors.New("--data is missing"), "give a data recipe")
	}
	if (o.Train.Steps > 0) == (o.Train.MaxTime > 0) {
		return nil, usage(errors.New("give either --steps or --max-time"), "--max-time 30m trains as long, --steps 1000 gives the same result on every run")
	}
	input := quantized
	if input == "" {
		input = float
	}
	output, err := OutputPath(o.Output, input, ".ft.onnx", o.Overwrite || o.Train.Resume)
	if err != nil {
		return nil, err
	}
	if quantized == "" {
		temporary, remove, err := quantizeFirst(ctx, float, output, o)
		if err != nil {
			return nil, err
		}
		defer remove()
		quantized = temporary
	}
	t, err := newTraining(float, quantized, o)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if o.Train.Checkpoint == "" {
		t.options.Train.Checkpoint = output + ".training"
	}
	result, err := t.run(ctx)
	if err != nil {
		return nil, err
	}
	r := &FinetuneReport{
		Schema: "cosetq/v1/finetune", Float: float, Quantized: input, Loss: t.options.Train.Loss.String(), HeldOut: t.options.Train.HeldOut,
		Start: result.Start, Best: result.Best, Last: result.Last, BestStep: result.BestStep, Steps: result.Steps, Rate: result.Rate, Retreats: result.Retreats,
		Weights: len(result.Matrices), Parameters: len(result.Parameters), Memory: result.Memory, Interrupted: result.Interrupted,
	}
	if t.reader.Random() {
		r.Notes = append(r.Notes, "the data was made up; what was learned from it means nothing")
	}
	if o.Blocks {
		r.Notes = append(r.Notes, "no block has seen what its errors do to the model's output: compare with the model you started from, by `cosetq eval --task agreement`")
	}
	if note := trainingNote(result); note != "" {
		r.Notes = append(r.Notes, note)
	}
	if r.Files, err = t.save(output, result); err != nil {
		return nil, err
	}
	if result.Interrupted {
		r.Checkpoint = t.options.Train.Checkpoint
	} else if err := os.Remove(t.options.Train.Checkpoint); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	r.Seconds, r.CPUSeconds, r.PeakRSS = time.Since(start).Seconds(), cpuSeconds(), PeakRSS()
	return r, nil
}

// trainingNote says what went wrong in a training; "" when all went well.
func trainingNote(r *finetune.Result) string {
	diverged := ""
	if r.Retreats > 0 {
		diverged = fmt.Sprintf("the training diverged %d times, went back to its best codes each time, and ended at a rate of %.3g; ", r.Retreats, r.Rate)
	}
	switch {
	case r.BestStep == 0:
		return diverged + "no step was better on the samples held out than the start, so the codes are those of the start: try a lower --rate, or more data"
	case r.Last > r.Start:
		return diverged + fmt.Sprintf("the loss of the samples held out ended at %.5f, above the %.5f of the start; the codes are those of step %d: try a lower --rate", r.Last, r.Start, r.BestStep)
	case r.Retreats > 0:
		return diverged + "give that as --rate to begin with"
	}
	return ""
}

// quantizeFirst quantizes the float model to a temporary file beside the output, by LDLQ on the data unless another method is
// asked for.
func quantizeFirst(ctx context.Context, float, output string, o FinetuneOptions) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp(filepath.Dir(output), ".cosetq-*")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	q := o.Quantize
	q.Output = filepath.Join(dir, "start.onnx")
	if q.Data == "" && q.Statistics == "" && q.Method != RTN {
		q.Data, q.Samples = o.Data, DefaultSamples
	}
	if _, err := Quantize(ctx, float, q); err != nil {
		remove()
		return "", nil, err
	}
	return q.Output, remove, nil
}

// training is what a run needs.
type training struct {
	options   FinetuneOptions
	quantized *onnx.Model // as it was read, to be saved with new codes
	graph     *onnx.Model // the same with its weights as inputs
	exposed   []rewrite.Exposed
	float     *onnx.Model
	reader    calib.Reader
	model     *finetune.Model
	teacher   *finetune.Teacher
	session   floatSession
}

func (t *training) close() {
	if t.session.session != nil {
		_ = t.session.session.Close()
	}
	if t.reader != nil {
		_ = t.reader.Close()
	}
	for _, m := range []*onnx.Model{t.quantized, t.graph, t.float} {
		if m != nil {
			_ = m.Close()
		}
	}
}

func newTraining(float, quantized string, o FinetuneOptions) (*training, error) {
	t := &training{options: o}
	if err := t.open(float, quantized); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// open reads the models and the data.
func (t *training) open(float, quantized string) (err error) {
	for _, m := range []struct {
		path string
		to   **onnx.Model
	}{{quantized, &t.quantized}, {quantized, &t.graph}, {float, &t.float}} {
		if *m.to, err = OpenModel(m.path); err != nil {
			return err
		}
		if err := checkModel(*m.to); err != nil {
			return err
		}
	}
	if t.exposed, err = rewrite.Expose(t.graph); err != nil {
		return fail(Nothing, fmt.Errorf("%s: %w", quantized, err), "quantize it first, or give the float model alone with --bits")
	}
	if err := t.openData(); err != nil {
		return err
	}
	t.graph.ReferToFile(pageSize)
	load, err := graphLoader(quantized, t.options.Threads)
	if err != nil {
		return err
	}
	t.model = &finetune.Model{Graph: t.graph, Load: load}
	coders := map[string]finetune.Weight{}
	for _, e := range t.exposed {
		w := finetune.Weight{Input: e.Input, Matrix: e.Matrix}
		name := e.Matrix.Codec.String()
		if c, ok := coders[name]; ok {
			w.Coder = c.Coder
		} else {
			w.Coder = coding(e.Matrix.Codec).Encoder
			coders[name] = w
		}
		t.model.Weights = append(t.model.Weights, w)
	}
	if err := t.model.Check(); err != nil {
		return err
	}
	return t.openTeacher(float)
}

// openData opens the data and chooses the batch.
func (t *training) openData() error {
	inputs, _, err := ort.Signature(t.float)
	if err != nil {
		return fail(BadModel, err, "")
	}
	t.reader, err = calib.Open(t.options.Data, inputs, calib.Options{Seed: t.options.Train.Seed})
	if err != nil {
		return err
	}
	if t.reader.Len() == 0 {
		return usage(errors.New("the data holds no samples"), "give a recipe with data")
	}
	first, err := t.reader.Sample(0)
	if err != nil {
		return err
	}
	if t.options.Train.Batch == 0 {
		t.options.Train.Batch = defaultBatch
		if first.Targets != nil {
			t.options.Train.Batch = defaultBatchTokens
		}
	}
	return nil
}

// graphLoader loads graphs whose external data lie beside the file at path.
func graphLoader(path string, threads int) (grad.Loader, error) {
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return func(m *onnx.Model, literal bool) (grad.Session, error) {
		encoded, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		o := ort.SessionOptions{Threads: threads, Config: withoutSpinning()}
		o.Config["session.use_deterministic_compute"] = "1"
		if literal {
			o.Optimization = ort.OptimizeDisabled
		}
		return rt.NewSessionFromBytes(encoded, dir, o)
	}, nil
}

// openTeacher loads the float model for the batch of the training, with the one output that teaches.
func (t *training) openTeacher(path string) error {
	if t.options.Labels {
		t.options.Train.Loss = grad.CrossEntropy
		if t.options.Blocks {
			return usage(errors.New("--blocks and --labels are both given"), "blocks learn from the float model; leave one of them out")
		}
		return nil
	}
	for _, in := range t.float.Graph.Inputs { // the batch that is fed decides
		if in.Type != nil && in.Type.Tensor != nil && in.Type.Tensor.Shape != nil && len(in.Type.Tensor.Shape.Dims) > 0 {
			in.Type.Tensor.Shape.Dims[0] = &onnx.Dim{Param: "batch"}
		}
	}
	i := slices.IndexFunc(t.float.Graph.Outputs, func(v *onnx.ValueInfo) bool {
		dt, _, ok := v.TensorType()
		return ok && dt.IsFloat()
	})
	if i < 0 {
		return fail(BadModel, fmt.Errorf("%s has no output of floating-point numbers to learn from", path), "")
	}
	output := t.float.Graph.Outputs[i].Name
	t.float.Graph.ValueInfo = nil
	t.float.ReferToFile(pageSize)
	computed := map[string]bool{}
	for _, n := range t.float.Graph.Nodes {
		for _, out := range n.Outputs {
			computed[out] = true
		}
	}
	t.teacher = &finetune.Teacher{Output: output, Value: t.floatValue, Has: func(name string) bool { return computed[name] }}
	return nil
}

// floatSession is the float model, or the part of it between two values.
type floatSession struct {
	session   grad.Session
	cut, name string
	inputs    []string
}

// floatValue runs the float model, or the part of it behind the value cut, and returns a value. The session stays open for the
// next call of the same kind.
func (t *training) floatValue(ctx context.Context, inputs map[string]*tensor.Tensor, cut, name string) (*tensor.Tensor, error) {
	if s := &t.session; s.session == nil || s.cut != cut || s.name != name {
		if s.session != nil {
			_ = s.session.Close()
			s.session = nil
		}
		load, err := graphLoader(t.float.Path(), t.options.Threads)
		if err != nil {
			return nil, err
		}
		var given *tensor.Tensor
		if cut != "" {
			given = inputs[cut]
		}
		part := between(t.float, given, cut, name)
		if s.session, err = load(part, false); err != nil {
			return nil, err
		}
		s.cut, s.name, s.inputs = cut, name, nil
		for _, in := range part.Graph.Inputs {
			s.inputs = append(s.inputs, in.Name)
		}
	}
	fed := map[string]*tensor.Tensor{}
	for _, in := range t.session.inputs {
		fed[in] = inputs[in]
	}
	out, err := t.session.session.Run(ctx, fed)
	return out[name], err
}

// between returns the part of m that computes a value, from the value cut on where that is not empty; given is one such value.
func between(m *onnx.Model, given *tensor.Tensor, cut, name string) *onnx.Model {
	part := *m
	graph := &onnx.Graph{Name: m.Graph.Name, Outputs: []*onnx.ValueInfo{{Name: name}}}
	need := map[string]bool{name: true}
	for _, n := range slices.Backward(m.Graph.Nodes) {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return need[o] && o != cut }) {
			continue
		}
		graph.Nodes = append(graph.Nodes, n)
		for _, in := range slices.Concat(n.Inputs, n.Captures()) {
			need[in] = true
		}
	}
	slices.Reverse(graph.Nodes)
	for _, in := range m.Graph.Inputs {
		if need[in.Name] {
			graph.Inputs = append(graph.Inputs, in)
		}
	}
	for _, init := range m.Graph.Initializers {
		if need[init.Name] {
			graph.Initializers = append(graph.Initializers, init)
		}
	}
	if cut != "" && need[cut] {
		dims := make([]any, len(given.Shape))
		for i, d := range given.Shape {
			dims[i] = d
		}
		dims[0] = nil
		graph.Inputs = append(graph.Inputs, onnx.NewValueInfo(cut, onnx.DataType(given.Type), dims...))
	}
	part.Graph = graph
	return &part
}

func (t *training) run(ctx context.Context) (*finetune.Result, error) {
	if t.options.Blocks {
		return finetune.TrainBlocks(ctx, t.model, t.reader, t.teacher, t.options.Train)
	}
	return finetune.Train(ctx, t.model, t.reader, t.teacher, t.options.Train)
}

// save writes the quantized model with the codes and parameters of the result.
func (t *training) save(output string, r *finetune.Result) ([]File, error) {
	linears, err := rewrite.ReadLinears(t.quantized)
	if err != nil {
		return nil, err
	}
	byCodes := map[string]*quant.Matrix{}
	for _, e := range t.exposed {
		byCodes[e.Codes] = r.Matrices[e.Input]
	}
	for _, l := range linears {
		if m := byCodes[l.Codes()]; m != nil {
			if err := l.Recode(m); err != nil {
				return nil, err
			}
		}
	}
	for name, v := range r.Parameters {
		if err := rewrite.SetFloats(t.quantized, name, v); err != nil {
			return nil, err
		}
	}
	saved, err := t.quantized.Save(output, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize, Overwrite: t.options.Overwrite || t.options.Train.Resume})
	if err != nil {
		return nil, err
	}
	files, _ := savedFiles(saved)
	return files, nil
}
