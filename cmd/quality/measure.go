package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// measurement makes and judges the forms of one model.
type measurement struct {
	table
	dir        string
	library    string
	statistics string
	float      *judged
	samples    kept // to judge on
}

// form makes a form of the model in a folder and judges it.
type form func(ctx context.Context, dir string) (result, error)

// run measures all forms side by side, most on one thread each, because the models are small.
func (m *measurement) run(ctx context.Context) error {
	var err error
	if m.library, err = cudaops.FindLibrary(""); err != nil {
		return err
	}
	m.Program = cosetq.Version()
	if m.float, err = m.judge(ctx, *model, *threads); err != nil {
		return err
	}
	m.Float, m.Judged = m.float.score, m.float.judged
	m.statistics = filepath.Join(m.dir, "statistics.cqs")
	c, err := cosetq.Calibrate(ctx, *model, *calibData, cosetq.CalibrateOptions{Output: m.statistics, Samples: *samples, Threads: *threads})
	if err != nil {
		return err
	}
	m.Samples = c.Data[0].Samples
	fmt.Printf("calibrated in %.1f s\n", c.Seconds)
	forms, err := m.forms()
	if err != nil {
		return err
	}
	m.Results = make([]result, len(forms))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce())
	var written sync.Mutex
	for i := len(forms) - 1; i >= 0; i-- { // those allocated, which take longest, first
		group.Go(func() error {
			dir, err := os.MkdirTemp(m.dir, "form-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			r, err := forms[i](ctx, dir)
			if err != nil {
				return err
			}
			written.Lock()
			defer written.Unlock()
			m.Results[i] = r
			return m.add(r)
		})
	}
	return group.Wait()
}

// atOnce is how many threads there are to be used.
func atOnce() int {
	if *threads > 0 {
		return *threads
	}
	return runtime.NumCPU()
}

// forms lists what is to be measured, in the order of the table.
func (m *measurement) forms() (forms []form, err error) {
	for _, block := range []int{128, 32} {
		forms = append(forms, m.int4(block))
	}
	for _, p := range others {
		part := strings.SplitN(p, "=", 3)
		if len(part) != 3 {
			return nil, fmt.Errorf("-peer %q is not NAME=BITS=PATH", p)
		}
		bits, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return nil, err
		}
		forms = append(forms, func(ctx context.Context, _ string) (result, error) {
			return m.judgeForm(ctx, part[2], result{Form: part[0], Method: "peer", Bits: bits})
		})
	}
	for _, codec := range list(*codecs) {
		for _, method := range []string{cosetq.RTN, cosetq.LDLQ} {
			o := cosetq.QuantizeOptions{Method: method, Codec: codec}
			if bits, err := strconv.Atoi(codec); err == nil {
				o.Codec, o.Bits = "", bits
			}
			forms = append(forms, m.quantized(o))
		}
	}
	for _, rate := range list(*rates) {
		bits, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			return nil, err
		}
		forms = append(forms, m.quantized(cosetq.QuantizeOptions{Method: cosetq.LDLQ, TargetBits: bits}))
	}
	return forms, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' })
}

// quantized is the model with these options.
func (m *measurement) quantized(o cosetq.QuantizeOptions) form {
	return func(ctx context.Context, dir string) (result, error) {
		if o.Method == cosetq.LDLQ {
			o.Statistics = m.statistics
		}
		o.Output, o.Threads = filepath.Join(dir, "q.onnx"), 1
		if o.TargetBits > 0 {
			o.Data, o.Samples = *calibData, *samples               // what a layer costs is measured on them
			o.Threads = (atOnce()-1)/max(len(list(*rates)), 1) + 1 // or the others would be done long before
		}
		r, err := cosetq.Quantize(ctx, *model, o)
		if err != nil {
			return result{}, err
		}
		made := result{Form: r.Codec, Method: o.Method, Bits: r.BitsPerWeight}
		if o.TargetBits > 0 {
			made.Form = fmt.Sprintf("allocated, %v bits", o.TargetBits)
		}
		return m.judgeForm(ctx, o.Output, made)
	}
}

// int4 is the MatMulNBits form with blocks of so many columns; a scale counts 16 bits, though the file holds 32.
func (m *measurement) int4(block int) form {
	return func(ctx context.Context, dir string) (result, error) {
		out := filepath.Join(dir, "int4.onnx")
		o := cosetq.ExportOptions{Output: out, Format: rewrite.MatMulNBits, NBits: rewrite.NBitsOptions{Block: block, AccuracyLevel: 1}}
		if _, err := cosetq.Export(ctx, *model, o); err != nil {
			return result{}, err
		}
		return m.judgeForm(ctx, out, result{Form: fmt.Sprintf("int4, block %d", block), Method: cosetq.RTN, Bits: 4 + 16/float64(block)})
	}
}

// judgeForm fills in what a form that was made achieves.
func (m *measurement) judgeForm(ctx context.Context, path string, r result) (result, error) {
	j, err := m.judge(ctx, path, 1)
	if err != nil {
		return result{}, err
	}
	r.Score, r.KL = j.score, j.kl
	return r, nil
}

// judged is how well a model does: bits per byte, or images that are right and how far their probabilities are from the float
// model's.
type judged struct {
	score, kl float64
	judged    int
	model     eval.Model // with the outputs of the images, to be compared with
}

// judge runs the task.
func (m *measurement) judge(ctx context.Context, path string, threads int) (*judged, error) {
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
	reader := m.samples
	runs := &recorder{from: loaded.Session, keep: *task == eval.TaskClassification}
	j := &judged{model: eval.Model{Path: path, Runner: runs, Inputs: loaded.Inputs, Outputs: loaded.Outputs}}
	report, err := eval.Run(ctx, *task, []eval.Model{j.model}, reader, eval.Options{})
	if err != nil {
		return nil, err
	}
	switch s := report.Models[0].Metrics.(type) {
	case eval.Perplexity:
		j.score, j.judged = s.BitsPerToken, s.Tokens
		return j, nil
	case eval.Classification:
		j.score, j.judged = float64(s.Correct), s.Count
	default:
		return nil, fmt.Errorf("the task %s has no score", *task)
	}
	j.model.Runner = runs.again()
	if m.float == nil {
		return j, nil
	}
	float := m.float.model
	float.Runner = float.Runner.(*recorder).again()
	report, err = eval.Run(ctx, eval.TaskAgreement, []eval.Model{float, j.model}, reader, eval.Options{})
	if err != nil {
		return nil, err
	}
	j.kl = report.Models[1].Metrics.(eval.Agreement).KL
	return j, nil
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

// recorder runs a model and keeps the outputs, or gives those kept, so that two tasks take one pass.
type recorder struct {
	from    eval.Runner // nil: what was kept
	keep    bool
	outputs []map[string]*tensor.Tensor
}

func (r *recorder) Run(ctx context.Context, inputs map[string]*tensor.Tensor) (outputs map[string]*tensor.Tensor, err error) {
	if r.from == nil {
		outputs, r.outputs = r.outputs[0], r.outputs[1:]
		return outputs, nil
	}
	outputs, err = r.from.Run(ctx, inputs)
	if r.keep {
		r.outputs = append(r.outputs, outputs)
	}
	return outputs, err
}

// again gives what was kept from the first batch on.
func (r *recorder) again() *recorder { return &recorder{outputs: r.outputs} }

// dumpSamples writes what the model is calibrated on, an array for each input.
func dumpSamples(path string) error {
	m, err := onnx.Open(*model)
	if err != nil {
		return err
	}
	defer m.Close()
	inputs, _, err := ort.Signature(m)
	if err != nil {
		return err
	}
	reader, err := calib.Open(*calibData, inputs, calib.Options{Limit: *samples})
	if err != nil {
		return err
	}
	defer reader.Close()
	for b, err := range calib.Batches(reader, reader.Len(), false) {
		if err != nil {
			return err
		}
		return tensor.SaveNPZ(path, inputs, b.Inputs)
	}
	return fmt.Errorf("%s has no samples", *calibData)
}
