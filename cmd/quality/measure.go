package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
	dir     string
	library string
}

func (m *measurement) run(ctx context.Context) error {
	var err error
	if m.library, err = cudaops.FindLibrary(""); err != nil {
		return err
	}
	m.Program = cosetq.Version()
	float, err := m.judge(ctx, *model)
	if err != nil {
		return err
	}
	m.Float = float.Score
	statistics := filepath.Join(m.dir, "statistics.cqs")
	c, err := cosetq.Calibrate(ctx, *model, *calibData, cosetq.CalibrateOptions{Output: statistics, Samples: *samples, Threads: *threads})
	if err != nil {
		return err
	}
	m.Samples = c.Data[0].Samples
	fmt.Printf("calibrated in %.1f s\n", c.Seconds)
	for _, block := range []int{128, 32} {
		if err := m.int4(ctx, block); err != nil {
			return err
		}
	}
	for _, p := range others {
		part := strings.SplitN(p, "=", 3)
		if len(part) != 3 {
			return fmt.Errorf("-peer %q is not NAME=BITS=PATH", p)
		}
		bits, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return err
		}
		r, err := m.judge(ctx, part[2])
		if err != nil {
			return err
		}
		r.Form, r.Method, r.Bits = part[0], "peer", bits
		if err := m.add(r); err != nil {
			return err
		}
	}
	for _, codec := range list(*codecs) {
		for _, method := range []string{cosetq.RTN, cosetq.LDLQ} {
			o := cosetq.QuantizeOptions{Method: method, Codec: codec}
			if bits, err := strconv.Atoi(codec); err == nil {
				o.Codec, o.Bits = "", bits
			}
			if err := m.quantized(ctx, o, statistics); err != nil {
				return err
			}
		}
	}
	for _, rate := range list(*rates) {
		bits, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			return err
		}
		if err := m.quantized(ctx, cosetq.QuantizeOptions{Method: cosetq.LDLQ, TargetBits: bits}, statistics); err != nil {
			return err
		}
	}
	return nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' })
}

// quantized makes the model with these options and judges it.
func (m *measurement) quantized(ctx context.Context, o cosetq.QuantizeOptions, statistics string) error {
	if o.Method == cosetq.LDLQ {
		o.Statistics = statistics
	}
	if o.TargetBits > 0 {
		o.Data, o.Samples = *calibData, *samples // what a layer costs is measured on them
	}
	o.Output, o.Threads = filepath.Join(m.dir, "q.onnx"), *threads
	r, err := cosetq.Quantize(ctx, *model, o)
	if err != nil {
		return err
	}
	defer remove(r.Files)
	judged, err := m.judge(ctx, o.Output)
	if err != nil {
		return err
	}
	judged.Form, judged.Method, judged.Bits = r.Codec, o.Method, r.BitsPerWeight
	if o.TargetBits > 0 {
		judged.Form = fmt.Sprintf("allocated, %v bits", o.TargetBits)
	}
	return m.add(judged)
}

// int4 makes and judges the MatMulNBits form with blocks of so many columns; a scale counts 16 bits, though the file holds 32.
func (m *measurement) int4(ctx context.Context, block int) error {
	out := filepath.Join(m.dir, "int4.onnx")
	r, err := cosetq.Export(ctx, *model, cosetq.ExportOptions{Output: out, Format: rewrite.MatMulNBits, NBits: rewrite.NBitsOptions{Block: block, AccuracyLevel: 1}})
	if err != nil {
		return err
	}
	defer remove(r.Files)
	judged, err := m.judge(ctx, out)
	if err != nil {
		return err
	}
	judged.Form, judged.Method, judged.Bits = fmt.Sprintf("int4, block %d", block), cosetq.RTN, 4+16/float64(block)
	return m.add(judged)
}

func remove(files []cosetq.File) {
	for _, f := range files {
		_ = os.Remove(f.Path)
	}
}

// judge runs the task: bits per byte, or images that are right and how far their probabilities are from the float model's.
func (m *measurement) judge(ctx context.Context, path string) (result, error) {
	score, err := m.evaluate(ctx, *task, path)
	if err != nil {
		return result{}, err
	}
	switch s := score.(type) {
	case eval.Perplexity:
		m.Judged = s.Tokens
		return result{Score: s.BitsPerToken}, nil
	case eval.Classification:
		m.Judged = s.Count
		distance, err := m.evaluate(ctx, eval.TaskAgreement, *model, path)
		if err != nil {
			return result{}, err
		}
		return result{Score: float64(s.Correct), KL: distance.(eval.Agreement).KL}, nil
	}
	return result{}, fmt.Errorf("the task %s has no score", *task)
}

// evaluate gives the metrics of the last model.
func (m *measurement) evaluate(ctx context.Context, task string, paths ...string) (any, error) {
	r, err := cosetq.Evaluate(ctx, task, *data, paths, cosetq.EvaluateOptions{Samples: *limit,
		Session: ort.SessionOptions{OpsLibrary: m.library, Threads: *threads,
			Config: map[string]string{cudaops.ConfigAccuracy: strconv.Itoa(cudaops.AccuracyAccurate)}}}) // as the peers'
	if err != nil {
		return nil, err
	}
	return r.Models[len(paths)-1].Metrics, nil
}

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
