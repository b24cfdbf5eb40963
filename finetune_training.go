package cosetq

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// training is what a run needs.
type training struct {
	options   FinetuneOptions
	quantized *onnx.Model // as it was read, to be saved with new codes
	graph     *onnx.Model // the same with its weights as inputs
	exposed   []rewrite.Exposed
	float     *onnx.Model
	reader    calib.Reader
	declared  int // batch that the model is made for, that of the options where it takes any
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
	o.Train.Threads = o.Threads
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
	if err := t.checkPair(float, quantized); err != nil {
		return err
	}
	if err := t.openData(); err != nil {
		return err
	}
	if err := t.identifySources(); err != nil {
		return err
	}
	t.graph.ReferToFile(pageSize)
	load, err := t.loader(quantized)
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

// checkPair makes it an error when the two models do not take and give the same values.
func (t *training) checkPair(float, quantized string) error {
	var values [2][]string
	for i, m := range []*onnx.Model{t.float, t.quantized} {
		inputs, outputs, err := ort.Signature(m)
		if err != nil {
			return err
		}
		for _, s := range slices.Concat(inputs, outputs) { // sizes may have been fixed in one of them
			values[i] = append(values[i], s.Name+" "+s.Type.String())
		}
	}
	if !slices.Equal(values[0], values[1]) {
		return usage(fmt.Errorf("%s was not made from %s: the inputs and outputs of one are %s, of the other %s",
			quantized, float, strings.Join(values[1], ", "), strings.Join(values[0], ", ")),
			"give the float model first and the one that was made from it second")
	}
	return nil
}

// identifySources tells the training what its checkpoint must not be resumed without.
func (t *training) identifySources() error {
	float, err := fingerprint(t.float)
	if err != nil {
		return err
	}
	data := t.options.Data
	if !isRandom(data) {
		if data, err = calib.FingerprintData(data, 0); err != nil {
			return err
		}
	}
	t.options.Train.Sources = map[string]string{"the float model": float, "the data": data}
	return nil
}

// openData opens the data and chooses the batch.
func (t *training) openData() error {
	inputs, _, err := ort.Signature(t.float)
	if err != nil {
		return fail(BadModel, err, "")
	}
	t.reader, err = openSamples(t.options.Data, inputs, calib.Options{Seed: t.options.Train.Seed})
	if err != nil {
		return err
	}
	first, err := t.reader.Sample(0)
	if err != nil {
		return err
	}
	o := &t.options.Train
	if o.Batch > 0 {
		t.declared, _ = calib.BatchSize(inputs, first, o.Batch)
		return nil
	}
	want := defaultBatch
	if first.Targets != nil {
		want = defaultBatchTokens
	}
	t.declared, _ = calib.BatchSize(inputs, first, want)
	o.Batch = t.declared
	if o.Accumulate == 0 {
		o.Accumulate = max(1, want/o.Batch)
	}
	return nil
}

// ofBatch tells of an error of ONNX Runtime that it was asked for another batch than the model declares.
func (t *training) ofBatch(err error) error {
	if t.options.Train.Batch == t.declared || !errors.Is(err, ort.ErrModel) && !errors.Is(err, ort.ErrRun) {
		return err
	}
	return usage(fmt.Errorf("%s takes batches of %d, and not the %d asked for: %w", t.float.Path(), t.declared, t.options.Train.Batch, err),
		"leave --batch out, and let --accumulate make steps of several batches")
}

// loader loads graphs whose external data lie beside the file at path.
func (t *training) loader(path string) (grad.Loader, error) {
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	o := ort.SessionOptions{Threads: t.options.Threads, Config: withoutSpinning()}
	o.Config["session.use_deterministic_compute"] = "1"
	if t.options.Device == CUDA {
		if o.Provider, err = GPULibrary(); err != nil {
			return nil, err
		}
	}
	return loaderOf(rt, dir, o), nil
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
	if t.options.Blocks {
		t.options.Train.Loss = grad.MSE // which finetune.TrainBlocks takes
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
		return fail(BadModel, fmt.Errorf("%s has no output of floating-point numbers to learn from", path), "export the model without the last steps, as ArgMax")
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
		load, err := t.loader(t.float.Path())
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
	t.noteTraining(r)
	rewrite.JoinBatches(t.quantized) // of layers that were left float
	saved, err := t.quantized.Save(output, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize, Overwrite: t.options.Overwrite || t.options.Train.Resume})
	if err != nil {
		return nil, err
	}
	files, _ := savedFiles(saved)
	return files, nil
}

// noteTraining says in the model's recipe that it gives these bytes no more, and what came after.
func (t *training) noteTraining(r *finetune.Result) {
	recipe, ok := t.quantized.Metadata(rewrite.MetadataRecipe)
	if !ok {
		return
	}
	o := t.options.Train
	how := o.Loss.String()
	if t.options.Blocks {
		how = "block by block"
	}
	t.quantized.SetMetadata(rewrite.MetadataRecipe, fmt.Sprintf("# The codes were trained since, by cosetq finetune: %s, %d steps of %d samples of %q, rate %.3g, seed %d\n%s",
		how, r.Steps, o.Batch*max(o.Accumulate, 1), filepath.Base(t.options.Data), r.Rate, o.Seed, recipe))
}
