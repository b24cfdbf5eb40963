package cosetq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"al.essio.dev/pkg/shellescape"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/report"
	"github.com/cosetq/cosetq/rewrite"
)

// PageOptions say what an HTML report shows beside the report that it is made from.
type PageOptions struct {
	Command   string // the command line, "" for none
	Data      string // what the models are timed on; "" is one random sample
	Overwrite bool   // replace the file if it exists
	Session   ort.SessionOptions
	Recipe    []report.Fact // the options that made the model
}

// pageBudget is the time that a report spends on timing.
const pageBudget = 3 * time.Second

// WritePage writes the report as one HTML file that needs nothing else. It reads the models again for the histogram, and
// times them where ONNX Runtime is there.
func (r *QuantizeReport) WritePage(ctx context.Context, path string, o PageOptions) (File, error) {
	if len(r.Files) == 0 {
		return File{}, usage(errors.New("no model was written, so there is none to report on"), "a dry run and a share write none: report on the run that does")
	}
	output := r.Files[0].Path
	p := report.Page{Title: filepath.Base(output), Program: "cosetq " + Version(), Notes: r.Notes, Command: o.Command, Recipe: o.Recipe,
		ForOutputs: r.Method == LDLQ,
		Headline: []report.Fact{
			{Name: "file", Value: Size(r.InputBytes) + " → " + Size(r.Bytes)},
			{Name: "bits per weight", Value: fmt.Sprintf("%.3f", r.BitsPerWeight)},
			{Name: "weights quantized", Value: fmt.Sprintf("%.1f %%", 100*r.Coverage)},
			{Name: "method", Value: r.Method},
		}}
	worst := math.Inf(1)
	for _, l := range r.Layers {
		line := report.Layer{Node: l.Node, Op: l.Op, Shape: shape(l.K, l.N), Codec: l.Codec, SQNR: l.SQNR, Status: l.Status}
		if l.BitsPerWeight > 0 {
			line.Bits = &l.BitsPerWeight
		}
		if l.Reason != "" {
			line.Reason = ReasonText(l.Reason)
		}
		if l.SQNR != nil {
			worst = min(worst, *l.SQNR)
		}
		p.Layers = append(p.Layers, line)
	}
	if a := r.Allocation; a != nil {
		p.Headline = append(p.Headline, report.Fact{Name: "predicted loss", Value: fmt.Sprintf("%.3g %s", a.PredictedLoss, a.LossUnit())})
		if a.Drop != nil {
			p.Headline = append(p.Headline, report.Fact{Name: "measured drop", Value: fmt.Sprintf("%.3g %s", *a.Drop, a.DropUnit())})
		}
	}
	if !math.IsInf(worst, 1) {
		p.Headline = append(p.Headline, report.Fact{Name: "worst layer", Value: fmt.Sprintf("%.1f dB", worst)})
	}
	return o.complete(ctx, &p, path, r.Input, output)
}

// WritePage writes the comparison as one HTML file that needs nothing else.
func (r *CompareReport) WritePage(ctx context.Context, path string, o PageOptions) (File, error) {
	p := report.Page{Title: filepath.Base(r.Path) + " against " + filepath.Base(r.Reference), Program: "cosetq " + Version(), Command: o.Command,
		Recipe: o.Recipe, Headline: []report.Fact{
			{Name: "outputs", Value: fmt.Sprintf("%.1f dB", float64(r.Output.SQNR))},
			{Name: "same largest output", Value: fmt.Sprintf("%.2f %%", 100*r.Output.Top1)},
			{Name: "cosine", Value: fmt.Sprintf("%.6f", r.Output.Cosine)},
			{Name: "samples", Value: fmt.Sprint(r.Samples)},
		}}
	if r.Random {
		p.Notes = append(p.Notes, "the data was made up (random inputs)")
	}
	for _, name := range r.NotCompared {
		p.Notes = append(p.Notes, name+" is no MatMul, Gemm or 1×1 Conv of the main graph and was not compared")
	}
	inspected, err := Inspect(r.Reference, rewrite.Options{})
	if err != nil {
		return File{}, err
	}
	compared := map[string]*ComparedLayer{}
	for i := range r.Layers {
		compared[r.Layers[i].Node] = &r.Layers[i]
	}
	for _, n := range inspected.Nodes {
		line := report.Layer{Node: n.Node, Op: n.Op, Shape: shape(n.K, n.N), Status: "float"}
		if n.Reason != "" {
			line.Status, line.Reason = n.Status, ReasonText(n.Reason)
		}
		if l := compared[n.Node]; l != nil {
			bits := 8 * float64(l.Bytes) / float64(l.K) / float64(l.N)
			line.Codec, line.Status, line.Reason, line.Bits, line.Local, line.Accumulated = l.Codec, "quantized", "", &bits, finite(l.Local), finite(l.SQNR)
		}
		p.Layers = append(p.Layers, line)
	}
	for _, x := range r.Trials {
		p.Trials = append(p.Trials, report.Trial{Node: x.Node, Option: "--exclude " + shellescape.Quote(x.Exclude), Cost: Size(x.Bytes), Gain: float64(x.Gain)})
		if f := x.Finer; f != nil {
			p.Trials = append(p.Trials, report.Trial{Node: x.Node, Option: "--layer " + shellescape.Quote(f.Layer), Cost: Size(f.Bytes), Gain: float64(f.Gain)})
		}
	}
	if b := r.Bisect; b != nil && b.First != "" {
		p.Suggestion = fmt.Sprintf("The first layer that breaks %.1f dB is %s: %.1f dB with it.", b.Tolerance, b.First, float64(b.After))
	}
	return o.complete(ctx, &p, path, r.Reference, r.Path)
}

// complete adds the histogram and the times, and writes the page.
func (o *PageOptions) complete(ctx context.Context, p *report.Page, path, float, quantized string) (File, error) {
	path, err := OutputPath(path, Reads{Models: []string{float, quantized}, Data: []string{o.Data}}, ".html", o.Overwrite)
	if err != nil {
		return File{}, err
	}
	if err := addWeights(ctx, p, float, quantized); err != nil {
		return File{}, err
	}
	if err := o.time(ctx, p, float, quantized); err != nil {
		return File{}, err
	}
	var page bytes.Buffer
	if err := report.Write(&page, *p); err != nil {
		return File{}, err
	}
	return writeFile(path, filepath.Dir(path), page.Bytes(), 0o644)
}

// finite is a ratio, or nil for none.
func finite(d eval.Decibels) *float64 {
	v := float64(d)
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil
	}
	return &v
}

func shape(k, n int) string {
	if k == 0 || n == 0 {
		return "–"
	}
	return fmt.Sprintf("%d×%d", k, n)
}

// time adds how long the models take. Where they cannot run the page says why.
func (o *PageOptions) time(ctx context.Context, p *report.Page, float, quantized string) error {
	data := o.Data
	if data == "" {
		data = "random:1"
	}
	r, err := Bench(ctx, []string{float, quantized}, BenchOptions{Data: data, Rounds: 20, Budget: pageBudget, Session: o.Session})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		p.SpeedNote = "Not timed: " + err.Error()
		return nil
	}
	for i, m := range r.Models {
		p.Speeds = append(p.Speeds, report.Speed{Name: filepath.Base(m.Name), P50: m.Median, P95: m.P95,
			Rate: fmt.Sprintf("%.1f %s/s", m.PerSecond, r.Unit), Against: r.Against(i), Size: Size(m.Bytes)})
	}
	p.SpeedNote = fmt.Sprintf("Data: %s, %s in a run: %d, threads: %d, ONNX Runtime %s; layers of the quantized model in native kernels: %d.",
		filepath.Base(data), r.Unit, r.Items, r.Threads, r.Runtime, r.Models[1].NativeLayers)
	return nil
}

const (
	histogramBins = 96
	// histogramWeights bounds the layer that the histogram and the curve are of: it is read and coded three times.
	histogramWeights = 4 << 20
)

// addWeights adds the histogram of one layer, the largest that is not too large, and its curve over the presets.
func addWeights(ctx context.Context, p *report.Page, float, quantized string) error {
	m, err := OpenModel(float)
	if err != nil {
		return err
	}
	defer m.Close()
	q, err := OpenModel(quantized)
	if err != nil {
		return err
	}
	defer q.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		return err
	}
	linears, err := rewrite.ReadLinears(q)
	if err != nil {
		return fail(BadModel, err, "")
	}
	coded := map[string]*quant.Matrix{}
	for _, l := range linears {
		coded[l.Node.Name] = l.Matrix
	}
	var chosen *rewrite.Site
	for i := range sites {
		s := &sites[i]
		if s.Status == rewrite.Candidate && coded[s.Name] != nil && s.Weights <= histogramWeights && (chosen == nil || s.Weights > chosen.Weights) {
			chosen = s
		}
	}
	if chosen == nil {
		return nil
	}
	h, err := histogram(chosen, coded[chosen.Name])
	if err != nil {
		return err
	}
	p.Histograms = append(p.Histograms, h)
	curve := report.Curve{Name: chosen.Name}
	for _, bits := range []int{2, 3, 4} {
		codec, err := lattice.Preset(bits)
		if err != nil {
			return err
		}
		res, err := quant.Quantize(ctx, chosen.Weight, coding(codec))
		if err != nil {
			return err
		}
		if db := res.SQNR(); !math.IsInf(db, 0) && !math.IsNaN(db) {
			curve.Rate, curve.SQNR = append(curve.Rate, res.Matrix.BitsPerWeight()), append(curve.SQNR, db)
		}
	}
	if len(curve.Rate) > 0 {
		p.Curves = append(p.Curves, curve)
	}
	return nil
}

// histogram counts a weight and its code over four standard deviations to each side.
func histogram(s *rewrite.Site, m *quant.Matrix) (report.Histogram, error) {
	n, k := s.Weight.Dims()
	h := report.Histogram{Name: s.Name, Weights: make([]float64, histogramBins), Coded: make([]float64, histogramBins)}
	rows := max(min(1<<18/k, n), 1)
	buffer := make([]float32, rows*k)
	each := func(read func(dst []float32, n0, n1 int) error, do func(v float64)) error {
		for n0 := 0; n0 < n; n0 += rows {
			n1 := min(n0+rows, n)
			part := buffer[:(n1-n0)*k]
			if err := read(part, n0, n1); err != nil {
				return err
			}
			for _, v := range part {
				do(float64(v))
			}
		}
		return nil
	}
	var squares float64
	if err := each(s.Weight.Rows, func(v float64) { squares += v * v }); err != nil {
		return h, err
	}
	h.High = 4 * math.Sqrt(squares/float64(n*k))
	if h.High == 0 {
		h.High = 1
	}
	h.Low = -h.High
	count := func(bins []float64) func(float64) {
		return func(v float64) {
			i := int((v - h.Low) / (h.High - h.Low) * histogramBins)
			bins[min(max(i, 0), histogramBins-1)] += 1 / float64(n*k)
		}
	}
	if err := each(s.Weight.Rows, count(h.Weights)); err != nil {
		return h, err
	}
	return h, each(m.DecodeRows, count(h.Coded))
}
