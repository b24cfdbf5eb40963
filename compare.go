package cosetq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// CompareSamples is how much data [Compare] takes unless told otherwise.
const CompareSamples = 16

// CompareOptions say how to compare two models.
type CompareOptions struct {
	Data    string // a recipe, or random:N
	Samples int    // number of samples, 0 all
	Seed    uint64 // of random data

	Top     int     // how many layers to try as float ones, the worst first
	MinSQNR float64 // dB that the outputs must keep: the tolerance of Bisect, and without it a gate; 0 asks for nothing
	Bisect  bool    // find the first layer that breaks the tolerance

	Session  ort.SessionOptions
	Progress Progress // may be nil
}

// ComparedLayer is a layer of the float model beside the same layer of the other one.
//
// The local figures are of the layer alone: both forms read what the float model computes. The accumulated ones are of the
// whole model up to here: the other model reads what it computes itself.
type ComparedLayer struct {
	Node        string        `json:"node"`
	Initializer string        `json:"initializer"`
	Op          string        `json:"op"`
	K           int           `json:"k"`
	N           int           `json:"n"`
	Codec       string        `json:"codec,omitempty"` // "" where it has none
	FloatBytes  int64         `json:"float_bytes"`
	Bytes       int64         `json:"bytes"` // of the weight in the other model; layers that share one report it each
	Local       eval.Decibels `json:"local_sqnr_db"`
	LocalCosine eval.Number   `json:"local_cosine"`
	SQNR        eval.Decibels `json:"accumulated_sqnr_db"`
	Cosine      eval.Number   `json:"accumulated_cosine"`
	MaxAbsErr   eval.Number   `json:"max_abs_err"` // accumulated
}

// LayerTrial is what keeping one layer in float would cost and gain, with those that have the same weight: where one of them needs it in
// float, none is quantized.
type LayerTrial struct {
	Node    string        `json:"node"`
	With    []string      `json:"with,omitempty"` // the others
	Exclude string        `json:"exclude"`        // the pattern for QuantizeOptions.Sites or --exclude
	Bytes   int64         `json:"bytes"`          // by which the file would grow
	SQNR    eval.Decibels `json:"sqnr_db"`        // of the outputs then
	Gain    eval.Decibels `json:"gain_db"`
	Finer   *FinerTrial   `json:"finer,omitempty"` // nil for a layer that has the finest preset, or no codec
}

// FinerTrial is what the next finer preset for one layer would cost and gain. It is rounded to nearest for the trial: with data it
// gains more.
type FinerTrial struct {
	Layer string        `json:"layer"` // for QuantizeOptions.Layers or --layer
	Bytes int64         `json:"bytes"`
	SQNR  eval.Decibels `json:"sqnr_db"`
	Gain  eval.Decibels `json:"gain_db"`
}

// BisectReport is what the search for the layer that breaks a tolerance found.
type BisectReport struct {
	Tolerance float64       `json:"tolerance_db"`
	Broken    bool          `json:"broken"`                 // the whole model misses the tolerance
	First     string        `json:"first_broken,omitempty"` // with the layers up to this one quantized it is missed
	Before    eval.Decibels `json:"sqnr_before_db"`         // without this one
	After     eval.Decibels `json:"sqnr_after_db"`          // with it
	Trials    int           `json:"trials"`
}

// CompareReport is the outcome of [Compare].
type CompareReport struct {
	Schema      string          `json:"schema"`
	Reference   string          `json:"reference"`
	Path        string          `json:"path"`
	Samples     int             `json:"samples"`
	Random      bool            `json:"random,omitempty"`
	Layers      []ComparedLayer `json:"layers"`
	NotCompared []string        `json:"not_compared,omitempty"` // quantized nodes that are in a subgraph, or no MatMul, Gemm or 1×1 Conv
	Output      eval.Agreement  `json:"output"`
	Trials      []LayerTrial    `json:"trials"` // the best first
	Bisect      *BisectReport   `json:"bisect,omitempty"`
	Seconds     float64         `json:"seconds"`
	PeakRSS     int64           `json:"peak_rss_bytes"`
}

// Compare runs a float model and one made from it over the same data and says, layer by layer, where they part, and which
// layers would be worth keeping in float. A failure of MinSQNR comes with the report, in which no layer was tried.
func Compare(ctx context.Context, reference, path string, o CompareOptions) (*CompareReport, error) {
	start := time.Now()
	switch {
	case o.Data == "":
		return nil, usage(errors.New("--data is missing"), "give a data recipe, or random:N for made-up inputs")
	case o.Samples < 0:
		return nil, usage(fmt.Errorf("--samples %d is negative", o.Samples), "0 takes all samples")
	case o.Top < 0:
		return nil, usage(fmt.Errorf("--top %d is negative", o.Top), "0 tries no layer")
	case math.IsNaN(o.MinSQNR):
		return nil, usage(errors.New("--min-sqnr NaN is no ratio"), "give decibels, such as 20")
	case o.Bisect && o.MinSQNR == 0:
		return nil, usage(errors.New("--bisect needs a tolerance"), "give --min-sqnr in dB, such as 20")
	}
	if err := checkThreads(o.Session.Threads); err != nil {
		return nil, err
	}
	c := &comparison{options: o, float: reference}
	defer c.close()
	if err := c.open(path); err != nil {
		return nil, err
	}
	r := &CompareReport{Schema: "cosetq/v1/compare", Reference: reference, Path: path, Samples: c.reader.Len(), Random: c.reader.Random(),
		Layers: []ComparedLayer{}, NotCompared: c.notCompared, Trials: []LayerTrial{}}
	if err := c.measure(ctx, r); err != nil {
		return nil, err
	}
	if o.MinSQNR != 0 && !o.Bisect && float64(r.Output.SQNR) < o.MinSQNR {
		return r, fail(Quality, fmt.Errorf("%s: its outputs keep %.1f dB of %s, --min-sqnr asks for %.1f; the worst layer is %s with %.1f dB",
			path, r.Output.SQNR, reference, o.MinSQNR, r.worst().Node, r.worst().Local), "without --min-sqnr compare also tells what excluding a layer would gain; --bisect finds the first that breaks it")
	}
	if o.Bisect {
		var err error
		if r.Bisect, err = c.bisect(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := c.tryLayers(ctx, r); err != nil {
		return nil, err
	}
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), PeakRSS()
	return r, nil
}

// worst returns the layer with the least local SQNR.
func (r *CompareReport) worst() *ComparedLayer {
	worst := &ComparedLayer{Node: "none", Local: eval.Decibels(math.Inf(1))}
	for i := range r.Layers {
		if l := &r.Layers[i]; l.Local < worst.Local {
			worst = l
		}
	}
	return worst
}

// comparison is two models that belong together, and the data to run them on.
type comparison struct {
	options     CompareOptions
	float       string
	other       *onnx.Model
	pairs       []rewrite.Pair // in the order of the float model
	sites       []rewrite.Site
	notCompared []string
	reader      calib.Reader
	runtime     *ort.Runtime
	dir         string // for models made on the way
}

// open reads the models and the data, and pairs the layers.
func (c *comparison) open(path string) (err error) {
	if c.other, err = OpenModel(path); err != nil {
		return err
	}
	m, err := OpenModel(c.float)
	if err != nil {
		return err
	}
	defer m.Close()
	for _, model := range []*onnx.Model{m, c.other} {
		if err := checkModel(model); err != nil {
			return err
		}
	}
	if c.sites, err = rewrite.FindSites(m, rewrite.Options{}); err != nil {
		return err
	}
	c.pairs = rewrite.PairLayers(m, c.sites, c.other)
	quantized, err := rewrite.FindSites(c.other, rewrite.Options{})
	if err != nil {
		return err
	}
	inputs, err := c.sameInputs(m)
	if err != nil {
		return err
	}
	for i := range quantized {
		s := &quantized[i]
		if s.Status != rewrite.Quantized {
			continue
		}
		at := slices.IndexFunc(c.pairs, func(p rewrite.Pair) bool { return p.Holds(s) })
		if at < 0 {
			c.notCompared = append(c.notCompared, s.Name)
			continue
		}
		if f := c.site(at); f.K != s.K || f.N != s.N {
			return c.notMadeFrom("the weight of %s has %d columns and %d rows in the one, %d and %d in the other", f.Name, s.K, s.N, f.K, f.N)
		}
	}
	if len(c.pairs) == 0 {
		hint := "give the float model first and the one that was made from it second"
		if len(c.notCompared) > 0 {
			hint += "; nodes in subgraphs are not compared, but `cosetq eval --task agreement` judges all of the model"
		}
		return usage(fmt.Errorf("%s has no layer in common with %s that differs", path, c.float), "%s", hint)
	}
	if c.reader, err = openSamples(c.options.Data, inputs, calib.Options{Limit: c.options.Samples, Seed: c.options.Seed}); err != nil {
		return err
	}
	if c.runtime, err = ort.Open(ort.Options{}); err != nil {
		return err
	}
	c.dir, err = tempDir("cosetq-compare-")
	return err
}

// sameInputs returns the inputs of the float model, and makes it an error when the other has others: layers are paired by the names of
// what they compute, which unrelated models may share.
func (c *comparison) sameInputs(float *onnx.Model) ([]tensor.Spec, error) {
	var names [2][]string
	var inputs [2][]tensor.Spec
	for i, m := range []*onnx.Model{c.other, float} {
		var err error
		if inputs[i], _, err = ort.Signature(m); err != nil {
			return nil, err
		}
		for _, s := range inputs[i] {
			names[i] = append(names[i], s.Name)
		}
		slices.Sort(names[i])
	}
	if !slices.Equal(names[0], names[1]) {
		return nil, c.notMadeFrom("the inputs of the one are %s, of the other %s", strings.Join(names[0], ", "), strings.Join(names[1], ", "))
	}
	return inputs[1], nil
}

func (c *comparison) notMadeFrom(why string, args ...any) error {
	return usage(fmt.Errorf("%s was not made from %s: %s", c.other.Path(), c.float, fmt.Sprintf(why, args...)), "give the float model first and the one that was made from it second")
}

func (c *comparison) close() {
	if c.reader != nil {
		_ = c.reader.Close()
	}
	if c.other != nil {
		_ = c.other.Close()
	}
	if c.dir != "" {
		_ = os.RemoveAll(c.dir)
	}
}

// running is a model in a session.
type running struct {
	session *ort.Session
	inputs  []tensor.Spec
	outputs []tensor.Spec // in declared order, without those that are only watched
}

// load writes m to a temporary file and loads it.
func (c *comparison) load(ctx context.Context, m *onnx.Model, name string) (*running, error) {
	path := filepath.Join(c.dir, name)
	saved, err := m.Save(path, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize, Overwrite: true, Context: ctx})
	if err != nil {
		return nil, err
	}
	defer func() { // the session has read or mapped them
		for _, f := range saved {
			_ = os.Remove(f.Path)
		}
	}()
	session, err := c.runtime.NewSession(path, accurately(c.options.Session))
	if err != nil {
		if errors.Is(err, ort.ErrModel) {
			return nil, fail(BadModel, fmt.Errorf("%s, with what its layers compute among its outputs: %w", m.Path(), err), "`cosetq inspect %s` shows what is in it", m.Path())
		}
		return nil, err
	}
	return &running{session: session, inputs: session.Inputs(), outputs: session.Outputs()}, nil
}

// hybrid loads the float model with some of the layers of the other one in their places. prepare, which may be nil, changes the
// float model before.
func (c *comparison) hybrid(ctx context.Context, pairs []rewrite.Pair, prepare func(m *onnx.Model) error) (*running, error) {
	m, err := OpenModel(c.float)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if prepare != nil {
		if err := prepare(m); err != nil {
			return nil, err
		}
	}
	if _, err := rewrite.Graft(m, c.other, pairs, false); err != nil {
		return nil, fail(BadModel, err, "")
	}
	return c.load(ctx, m, "hybrid.onnx")
}

// outputs judges a model by its outputs against those of the float model.
func (c *comparison) outputs(ctx context.Context, reference, r *running, path string) (eval.Agreement, error) {
	report, err := eval.Run(ctx, eval.TaskAgreement, []eval.Model{
		{Path: c.float, Runner: reference.session, Inputs: reference.inputs, Outputs: reference.outputs},
		{Path: path, Runner: r.session, Inputs: r.inputs, Outputs: r.outputs},
	}, c.reader, eval.Options{Batch: 1})
	if err != nil {
		return eval.Agreement{}, err
	}
	return report.Models[1].Metrics.(eval.Agreement), nil
}
