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
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// measurement makes and judges the forms of one model.
type measurement struct {
	table
	dir       string
	library   string
	samples   []*calib.Sample
	float     *judged // on all samples
	divisions []division
	lock      sync.Mutex // of the table
}

// division is a way to divide the data. Its statistics are gathered when the first form asks for them.
type division struct {
	judged     []int // places of the samples
	statistics func() (string, error)
}

// form is a form of the model. One that needs data is made anew for each division.
type form struct {
	name, method string
	needsData    bool
	long         bool // takes far more time than the others
	// make writes the model into a folder and returns its path and its bits per weight.
	make func(ctx context.Context, dir string, d int) (path string, bits float64, err error)
}

// peer is the method of what other tools made.
const peer = "peer"

// run measures all forms side by side, most on one thread each, because the models are small.
func (m *measurement) run(ctx context.Context) error {
	forms, err := m.forms()
	if err != nil {
		return err
	}
	if err := m.prepare(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	turns := newTurns()
	for _, f := range forms {
		var missing []int
		for d := range m.divisions {
			if m.find(f.name, f.method, d) == nil {
				missing = append(missing, d)
			}
		}
		if !f.needsData && len(missing) > 0 {
			group.Go(func() error { return m.measure(ctx, turns, f, missing) })
			continue
		}
		for _, d := range missing {
			if f.long {
				turns.long.Add(1)
			}
			group.Go(func() error { return m.measure(ctx, turns, f, []int{d}) })
		}
	}
	return group.Wait()
}

// turns lets as many forms be made at once as there are threads: those that need no data at any time, and of the others the long ones
// first, so that none is left alone in the end.
type turns struct {
	free chan struct{}
	long sync.WaitGroup // that have not begun
}

func newTurns() *turns { return &turns{free: make(chan struct{}, atOnce())} }

// take waits for a turn of a form, whose statistics are known.
func (t *turns) take(ctx context.Context, f form) error {
	if f.needsData && !f.long {
		t.long.Wait()
	}
	select {
	case t.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare judges the float model and finds out what an earlier run measured.
func (m *measurement) prepare(ctx context.Context) error {
	var err error
	if m.library, err = cudaops.FindLibrary(""); err != nil {
		return err
	}
	m.Program = cosetq.Version()
	if m.float, err = m.judge(ctx, *model, nil, *threads); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	files := []string{program, m.library, *model}
	read := []string{*data}
	for d := range *divisions {
		v := division{}
		for i := range m.samples {
			if *divisions == 1 || i%*divisions != d {
				v.judged = append(v.judged, i)
			}
		}
		recipe := ofDivision(*calibData, d)
		read = append(read, recipe)
		v.statistics = sync.OnceValues(func() (string, error) { return m.calibrate(ctx, recipe, d) })
		m.divisions = append(m.divisions, v)
		score, err := m.score(ctx, m.float, v.judged)
		if err != nil {
			return err
		}
		m.Float, m.Judged = append(m.Float, score.score), score.judged
	}
	settings := fmt.Sprint(*samples, *limit, *divisions)
	for _, recipe := range read {
		print, err := calib.FingerprintData(recipe, 0)
		if err != nil {
			return err
		}
		settings += " " + print
	}
	if m.Build, err = sumOf(settings, files...); err != nil {
		return err
	}
	return m.resume()
}

// ofDivision puts the number of a division into a path.
func ofDivision(path string, d int) string { return strings.ReplaceAll(path, "%d", strconv.Itoa(d)) }

func (m *measurement) calibrate(ctx context.Context, recipe string, d int) (string, error) {
	path := filepath.Join(m.dir, fmt.Sprintf("statistics-%d.cqs", d))
	r, err := cosetq.Calibrate(ctx, *model, recipe, cosetq.CalibrateOptions{Output: path, Samples: *samples, Threads: (atOnce()-1)/(*divisions) + 1})
	if err != nil {
		return "", err
	}
	fmt.Printf("calibrated division %d in %.1f s\n", d, r.Seconds)
	m.lock.Lock()
	m.Samples = r.Data[0].Samples
	m.lock.Unlock()
	return path, nil
}

// measure makes a form and judges it in some divisions.
func (m *measurement) measure(ctx context.Context, turns *turns, f form, divisions []int) error {
	var err error
	if f.needsData && f.method != peer {
		_, err = m.divisions[divisions[0]].statistics()
	}
	if err == nil {
		err = turns.take(ctx, f)
	}
	if f.long {
		turns.long.Done()
	}
	if err != nil {
		return err
	}
	defer func() { <-turns.free }()
	dir, err := os.MkdirTemp(m.dir, "form-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, bits, err := f.make(ctx, dir, divisions[0])
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	var only []int // samples to judge
	if f.needsData {
		only = m.divisions[divisions[0]].judged
	}
	j, err := m.judge(ctx, path, only, 1)
	if err != nil {
		return err
	}
	var found []result
	for _, d := range divisions {
		s, err := m.score(ctx, j, m.divisions[d].judged)
		if err != nil {
			return err
		}
		found = append(found, result{Form: f.name, Method: f.method, Division: d, Bits: bits, Score: s.score, KL: s.kl})
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.add(found...)
}

// atOnce is how many threads there are to be used.
func atOnce() int {
	if *threads > 0 {
		return *threads
	}
	return runtime.NumCPU()
}

// forms lists what is to be measured.
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
		forms = append(forms, form{part[0], peer, true, false, func(_ context.Context, _ string, d int) (string, float64, error) {
			return ofDivision(part[2], d), bits, nil
		}})
	}
	for _, name := range list(*codecs) {
		codec, err := lattice.ParseCodec(name)
		if bits, no := strconv.Atoi(name); no == nil {
			codec, err = lattice.Preset(bits)
		}
		if err != nil {
			return nil, err
		}
		for _, method := range []string{cosetq.RTN, cosetq.LDLQ} {
			forms = append(forms, m.quantized(codec.String(), cosetq.QuantizeOptions{Method: method, Codec: codec.String()}))
		}
	}
	for _, rate := range list(*rates) {
		bits, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			return nil, err
		}
		forms = append(forms, m.quantized(fmt.Sprintf("allocated, %v bits", bits), cosetq.QuantizeOptions{Method: cosetq.LDLQ, TargetBits: bits}))
	}
	return forms, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' })
}

// quantized is the model with these options.
func (m *measurement) quantized(name string, with cosetq.QuantizeOptions) form {
	return form{name, with.Method, with.Method == cosetq.LDLQ, with.TargetBits > 0, func(ctx context.Context, dir string, d int) (string, float64, error) {
		o := with
		if o.Method == cosetq.LDLQ {
			var err error
			if o.Statistics, err = m.divisions[d].statistics(); err != nil {
				return "", 0, err
			}
		}
		o.Output, o.Threads = filepath.Join(dir, "q.onnx"), 1
		if o.TargetBits > 0 {
			o.Data, o.Samples = ofDivision(*calibData, d), *samples             // what a layer costs is measured on them
			o.Threads = (atOnce()-1)/max(len(list(*rates))*(*divisions), 1) + 1 // or the others would be done long before
		}
		r, err := cosetq.Quantize(ctx, *model, o)
		if err != nil {
			return "", 0, err
		}
		return o.Output, r.BitsPerWeight, nil
	}}
}

// int4 is the MatMulNBits form with blocks of so many columns; a scale counts 16 bits, though the file holds 32.
func (m *measurement) int4(block int) form {
	return form{fmt.Sprintf("int4, block %d", block), cosetq.RTN, false, false, func(ctx context.Context, dir string, _ int) (string, float64, error) {
		out := filepath.Join(dir, "int4.onnx")
		o := cosetq.ExportOptions{Output: out, Format: rewrite.MatMulNBits, NBits: rewrite.NBitsOptions{Block: block, AccuracyLevel: 1}}
		_, err := cosetq.Export(ctx, *model, o)
		return out, 4 + 16/float64(block), err
	}}
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
