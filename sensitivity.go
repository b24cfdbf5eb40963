package cosetq

import (
	"context"
	"maps"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

const (
	// sensitivityRows is the number of rows of outputs (tokens, images) that a divergence is measured on, and
	// sensitivitySamples bounds the samples they come from.
	sensitivityRows    = 1024
	sensitivitySamples = 128
	// keptBytes bounds what is kept in memory of the data, and of the float model's outputs, to be read again.
	keptBytes = 256 << 20
	// trialRows and trialSamples likewise bound what whole models are compared on before all of the data has the last word.
	trialRows    = 8192
	trialSamples = 128
	// judgedBytes bounds the models that are loaded together, by the numbers in their weights.
	judgedBytes = 1 << 30
)

// judge compares models with the float one by their outputs, on the same data.
type judge struct {
	input     string // path of the float model
	session   ort.SessionOptions
	runtime   *ort.Runtime
	reader    calib.Reader
	reference *Loaded
	kept      *keptRunner
	samples   int    // there are in all
	few       int    // of them that layers are judged by
	trial     int    // and whole models, at first
	together  int    // models that may be run at the same time, on the threads of session each
	task      string // that the data is for: where it has neither labels nor tokens, agreement
}

// newJudge loads the float model and opens the data.
func (o *QuantizeOptions) newJudge(input string, weights []numbered) (*judge, error) {
	jd := &judge{input: input, session: o.session()}
	jd.shareThreads(o, weights)
	err := jd.open(o)
	if err != nil {
		jd.close()
		return nil, err
	}
	return jd, nil
}

// session says how to run models: without the native library on the portable path.
func (o *QuantizeOptions) session() ort.SessionOptions {
	s := ort.SessionOptions{Threads: o.Threads, Config: withoutSpinning()}
	s.OpsLibrary, _ = cudaops.FindLibrary("")
	return accurately(s)
}

// accurately keeps activations closely on every processor, unless the options say otherwise: what is measured then is what the
// codes lose.
func accurately(s ort.SessionOptions) ort.SessionOptions {
	config := map[string]string{cudaops.ConfigAccuracy: strconv.Itoa(cudaops.AccuracyAccurate)}
	maps.Copy(config, s.Config)
	s.Config = config
	return s
}

func (jd *judge) open(o *QuantizeOptions) (err error) {
	if jd.runtime, err = ort.Open(ort.Options{}); err != nil {
		return err
	}
	if jd.reference, err = Load(jd.input, jd.session); err != nil {
		return err
	}
	jd.kept = &keptRunner{runner: jd.reference.Session}
	reader, err := openSamples(o.Data, jd.reference.Inputs, calib.Options{Limit: o.Samples, Seed: o.Seed})
	if err != nil {
		return err
	}
	jd.reader, jd.samples = reader, reader.Len()
	first, err := reader.Sample(0)
	if err != nil {
		return err
	}
	switch {
	case first.Targets != nil:
		jd.task = eval.TaskPerplexity
	case first.Label >= 0:
		jd.task = eval.TaskClassification
	default:
		jd.task = eval.TaskAgreement
	}
	jd.few, jd.trial = min(sensitivitySamples, jd.samples), min(trialSamples, jd.samples)
	if n := len(first.Targets); n > 0 {
		jd.few, jd.trial = min(jd.few, (sensitivityRows+n-1)/n), min(jd.trial, (trialRows+n-1)/n)
	}
	_ = jd.reader.Close()
	jd.reader, err = jd.read(o)
	return err
}

// read opens the samples that layers are judged by.
func (jd *judge) read(o *QuantizeOptions) (calib.Reader, error) {
	reader, err := calib.Open(o.Data, jd.reference.Inputs, calib.Options{Limit: jd.few, Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	return &keptReader{Reader: reader}, nil
}

// shareThreads decides how many models are run at the same time: much of the work on one, and all of loading it, has no use for a
// second thread. Weights are left as they are in the file, so that models share them.
func (jd *judge) shareThreads(o *QuantizeOptions, weights []numbered) {
	threads := o.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	bytes := 1
	for _, w := range weights {
		n, k := w.Dims()
		bytes += 4 * n * k
	}
	jd.together = max(1, min(threads, len(weights), judgedBytes/bytes))
	jd.session.Threads = threads / jd.together
	jd.session.Config["session.disable_prepacking"] = "1"
}

// again returns another judge by the same data, for another goroutine. Only its reader is its own to close.
func (jd *judge) again(o *QuantizeOptions) (*judge, error) {
	other := *jd
	other.kept = &keptRunner{runner: jd.reference.Session}
	var err error
	other.reader, err = jd.read(o)
	return &other, err
}

func (jd *judge) close() {
	if jd.reader != nil {
		_ = jd.reader.Close()
	}
	if jd.reference != nil {
		_ = jd.reference.Close()
	}
}

// loss is what coding some weights costs the outputs of the model: the divergence of what it predicts, in nats, or where the
// data tells of no classes the share of error in the outputs' energy. Both add up over layers whose errors are independent.
// coded holds the codes by the number of the weight.
func (jd *judge) loss(ctx context.Context, o *QuantizeOptions, coded map[int]*codedWeight) (float64, error) {
	s, err := jd.load(o, coded)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	jd.kept.next = 0
	report, err := eval.Run(ctx, eval.TaskAgreement, []eval.Model{
		{Path: jd.input, Runner: jd.kept, Inputs: jd.reference.Inputs, Outputs: jd.reference.Outputs},
		{Path: jd.input + " with quantized layers", Runner: s, Inputs: jd.reference.Inputs, Outputs: jd.reference.Outputs},
	}, jd.reader, eval.Options{})
	if err != nil {
		return 0, err
	}
	a := report.Models[1].Metrics.(eval.Agreement)
	if jd.measure() == metricKL {
		return a.KL, nil
	}
	return errorShare(a), nil
}

// measure is what losses are in: see Allocation.Measure.
func (jd *judge) measure() string {
	if jd.task == eval.TaskAgreement {
		return metricError
	}
	return metricKL
}

// load loads the model with some of its weights coded. No file is written.
func (jd *judge) load(o *QuantizeOptions, coded map[int]*codedWeight) (*ort.Session, error) {
	m, err := OpenModel(jd.input)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if _, err := applyTo(m, o.Sites, coded); err != nil {
		return nil, err
	}
	m.ReferToFile(pageSize)
	encoded, err := m.Marshal()
	if err != nil {
		return nil, fail(BadModel, err, "")
	}
	folder, err := filepath.Abs(filepath.Dir(jd.input))
	if err != nil {
		return nil, err
	}
	return jd.runtime.NewSessionFromBytes(encoded, folder, jd.session)
}

// applyTo replaces weights of a model that was just opened by their codes, given by the number of the weight.
func applyTo(m *onnx.Model, patterns rewrite.Options, coded map[int]*codedWeight) (*rewrite.Result, error) {
	sites, err := rewrite.FindSites(m, patterns)
	if err != nil {
		return nil, err
	}
	number := map[*rewrite.Weight]int{}
	for i, w := range weightsOf(sites) {
		number[w] = i
	}
	var replacements []rewrite.Replacement
	for i := range sites {
		s := &sites[i]
		if s.Status != rewrite.Candidate {
			continue
		}
		if c := coded[number[s.Weight]]; c != nil {
			replacements = append(replacements, rewrite.Replacement{Site: *s, Matrix: c.matrix, Correction: c.Correction})
		}
	}
	done, err := rewrite.Apply(m, replacements, Version())
	if err != nil {
		return nil, fail(BadModel, err, "")
	}
	return done, nil
}

// keptReader keeps samples in memory as long as they are few enough.
type keptReader struct {
	calib.Reader
	samples []*calib.Sample
	bytes   int
}

// Sample reads a sample, or returns the one it has. It is meant for one goroutine that reads them in order, again and again.
func (k *keptReader) Sample(i int) (*calib.Sample, error) {
	if i < len(k.samples) {
		return k.samples[i], nil
	}
	s, err := k.Reader.Sample(i)
	if err != nil || i > len(k.samples) {
		return s, err
	}
	if k.bytes += tensorBytes(s.Inputs); k.bytes <= keptBytes {
		k.samples = append(k.samples, s)
	}
	return s, nil
}

// keptRunner runs a model over the same batches again and again, and keeps the outputs as long as they are few enough.
type keptRunner struct {
	runner  eval.Runner
	outputs []map[string]*tensor.Tensor
	bytes   int
	next    int // the number of the next batch; set to 0 before the first
}

func (k *keptRunner) Run(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	i := k.next
	k.next++
	if i < len(k.outputs) {
		return k.outputs[i], nil
	}
	outputs, err := k.runner.Run(ctx, inputs)
	if err != nil || i > len(k.outputs) {
		return outputs, err
	}
	if k.bytes += tensorBytes(outputs); k.bytes <= keptBytes {
		k.outputs = append(k.outputs, outputs)
	}
	return outputs, nil
}

func tensorBytes(values map[string]*tensor.Tensor) (bytes int) {
	for _, t := range values {
		bytes += len(t.Data)
	}
	return bytes
}
