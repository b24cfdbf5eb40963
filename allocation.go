package cosetq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// Allocation says how a target was met by giving layers different codecs.
type Allocation struct {
	TargetBits  float64  `json:"target_bits_per_weight,omitempty"`
	TargetBytes int64    `json:"target_bytes,omitempty"`
	MaxDrop     *float64 `json:"max_drop,omitempty"`

	// Measure is what losses are in: "kl", nats of the divergence from the float model's predictions, or "output_error", the
	// share of error in the energy of the outputs.
	Measure       string        `json:"measure"`
	Samples       int           `json:"samples"` // that the losses were measured on
	PredictedLoss float64       `json:"predicted_loss"`
	Uniform       []UniformLoss `json:"uniform"` // what one codec for all layers is predicted to lose

	Metric      string      `json:"metric,omitempty"` // of MaxDrop
	FloatMetric float64     `json:"float_metric,omitempty"`
	Trials      []DropTrial `json:"trials,omitempty"` // the models that were evaluated
	Drop        *float64    `json:"drop,omitempty"`   // of the one that was chosen
}

// UniformLoss is what one codec for all layers that none is prescribed for would take and lose.
type UniformLoss struct {
	Codec         string  `json:"codec"`
	BitsPerWeight float64 `json:"bits_per_weight"`
	PredictedLoss float64 `json:"predicted_loss"`
}

// LayerChoice is one of the codecs that a layer could have.
type LayerChoice struct {
	Codec         string  `json:"codec"`
	Bytes         int64   `json:"bytes"`
	PredictedLoss float64 `json:"predicted_loss"` // of the whole model, if this layer alone is quantized
}

// allocates tells whether the codecs are chosen to meet a target.
func (o *QuantizeOptions) allocates() bool {
	return o.TargetBits != 0 || o.TargetBytes != 0 || o.MaxDrop != nil
}

// checkTarget refuses targets that make no sense.
func (o *QuantizeOptions) checkTarget() error {
	if !o.allocates() {
		return nil
	}
	given := 0
	for _, yes := range []bool{o.TargetBits != 0, o.TargetBytes != 0, o.MaxDrop != nil} {
		if yes {
			given++
		}
	}
	switch {
	case given > 1:
		return usage(errors.New("--target-bpw, --target-size and --max-drop exclude each other"), "give one of them")
	case !(o.TargetBits >= 0 && o.TargetBits < math.Inf(1)) || o.TargetBytes < 0:
		return usage(errors.New("a target must be a positive number"), "as in --target-bpw 3 or --target-size 12MB")
	case o.Bits != 0 || o.Codec != "":
		return usage(errors.New("a target and --bits or --codec are both given"), "leave one of them out: a target chooses the codec of each layer; --layer fixes that of some")
	case o.Data == "":
		return usage(errors.New("a target needs data: what each layer costs is measured on the outputs"), "add --data RECIPE; together with --calib it only serves to measure")
	}
	return checkDrop(o.MaxDrop)
}

// candidateCodecs are what an allocation chooses from, by size.
func candidateCodecs() ([]*lattice.Codec, error) {
	var list []*lattice.Codec
	for _, bits := range []int{2, 3, 4} {
		c, err := lattice.Preset(bits)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// allocator chooses the codecs of the weights of one model.
type allocator struct {
	o          *QuantizeOptions
	r          *QuantizeReport
	m          *onnx.Model
	sites      []rewrite.Site
	weights    []numbered
	h          *hessians
	j          *journal.Journal
	output     string // only for the length of its name, which the file holds
	fixed      codecOf
	places     placeholders
	candidates []*lattice.Codec
	options    [][]option // of each weight; none where it cannot be coded
	frontier   *quant.Frontier
	task       string          // that the data is for
	samples    int             // there are in the data
	trial      int             // of them that models are compared on at first
	float      map[int]any     // metrics of the float model by the number of samples, once they are known
	tried      map[int]float64 // drops of points of the frontier on the first samples
	trials     int             // that may be made
	correction float64         // of the drops tried, by what all samples say
	report     *Allocation
}

// option is one way to code a weight.
type option struct {
	codec *lattice.Codec
	quant.Choice
}

// storedPlan is the part of a plan that a resumed run and other shards take over.
type storedPlan struct {
	Codecs     []string        `json:"codecs"` // by the number of the weight
	Choices    [][]LayerChoice `json:"choices"`
	Allocation *Allocation     `json:"allocation"`
	// Bytes and BitsPerWeight are what the model will take at most.
	Bytes         int64   `json:"bytes"`
	BitsPerWeight float64 `json:"bits_per_weight"`
}

func (o *QuantizeOptions) newAllocator(m *onnx.Model, sites []rewrite.Site, output string) (a *allocator, err error) {
	a = &allocator{o: o, m: m, float: map[int]any{}, sites: sites, weights: Shard{}.share(weightsOf(sites)), output: output, places: o.placeholders(sites)}
	if a.fixed, err = o.layerCodecs(sites, nil); err != nil {
		return nil, err
	}
	a.candidates, err = candidateCodecs()
	return a, err
}

// allocate chooses the codec of every weight that o.Layers says nothing of.
func (o *QuantizeOptions) allocate(ctx context.Context, r *QuantizeReport, m *onnx.Model, sites []rewrite.Site, h *hessians, j *journal.Journal, output string) (codecOf, *storedPlan, error) {
	a, err := o.newAllocator(m, sites, output)
	if err != nil {
		return nil, nil, err
	}
	a.r, a.h, a.j = r, h, j
	stored, err := j.Plan()
	if err == nil && stored == nil {
		var plan *storedPlan
		if plan, err = a.plan(ctx); err != nil {
			return nil, nil, err
		}
		if stored, err = json.Marshal(plan); err == nil {
			_, err = j.SetPlan(stored)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return recallPlan(r, j, a.weights)
}

// recallPlan puts the plan of a journal into the report and returns its codecs.
func recallPlan(r *QuantizeReport, j *journal.Journal, weights []numbered) (codecOf, *storedPlan, error) {
	stored, err := j.Plan()
	if err != nil {
		return nil, nil, err
	}
	if stored == nil {
		return nil, nil, usage(fmt.Errorf("%s has no plan: no share came so far", j.Dir()), "run every share to its end")
	}
	var plan storedPlan
	if err := json.Unmarshal(stored, &plan); err != nil {
		return nil, nil, fmt.Errorf("the plan in %s: %w", j.Dir(), err)
	}
	if len(plan.Codecs) != len(weights) || len(plan.Choices) != len(weights) {
		return nil, nil, fmt.Errorf("the plan in %s is for %d weights, the model has %d", j.Dir(), len(plan.Codecs), len(weights))
	}
	codecs := codecOf{}
	parsed := map[string]*lattice.Codec{}
	r.Allocation, r.choices = plan.Allocation, map[*rewrite.Weight][]LayerChoice{}
	for i, name := range plan.Codecs {
		if parsed[name] == nil {
			if parsed[name], err = lattice.ParseCodec(name); err != nil {
				return nil, nil, fmt.Errorf("the plan in %s: %w", j.Dir(), err)
			}
		}
		codecs[weights[i].Weight], r.choices[weights[i].Weight] = parsed[name], plan.Choices[i]
	}
	return codecs, &plan, nil
}

// planAllocation fills the report of a dry run. What working it out takes on disk is removed again.
func (o *QuantizeOptions) planAllocation(ctx context.Context, r *QuantizeReport, m *onnx.Model, sites []rewrite.Site, output string) error {
	dir, err := tempDir("cosetq-plan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	output = filepath.Join(dir, filepath.Base(output))
	j, err := o.openJournal(m, nil, output)
	if err != nil {
		return err
	}
	defer j.Close()
	h, err := o.openHessians(ctx, r, m, sites, j)
	if err != nil {
		return err
	}
	if h != nil {
		defer h.close()
	}
	codecs, plan, err := o.allocate(ctx, r, m, sites, h, j, output)
	if err != nil {
		return err
	}
	r.planLayers(codecs, sites)
	r.Bytes, r.BitsPerWeight = plan.Bytes, plan.BitsPerWeight
	return nil
}

// describeChoice tells what an allocation knows of a layer.
func (r *QuantizeReport) describeChoice(layer *QuantizedLayer, w *rewrite.Weight) {
	layer.Choices = r.choices[w]
	for _, c := range layer.Choices {
		if c.Codec == layer.Codec {
			layer.PredictedLoss = &c.PredictedLoss
		}
	}
}

// plan measures what the layers cost and meets the target.
func (a *allocator) plan(ctx context.Context) (*storedPlan, error) {
	a.report = &Allocation{TargetBits: a.o.TargetBits, TargetBytes: int64(a.o.TargetBytes), MaxDrop: a.o.MaxDrop}
	err := a.measure(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(a.options, func(o []option) bool { return len(o) > 0 }) {
		return nil, fail(Nothing, fmt.Errorf("%s: none of its weights can be coded: all have numbers that are not finite", a.m.Path()), "")
	}
	var layers [][]quant.Choice
	for _, options := range a.options {
		var layer []quant.Choice
		for _, p := range options {
			layer = append(layer, p.Choice)
		}
		if layer == nil {
			layer = []quant.Choice{{}}
		}
		layers = append(layers, layer)
	}
	if a.frontier, err = quant.NewFrontier(layers); err != nil {
		return nil, err
	}
	if err := a.describeUniform(); err != nil {
		return nil, err
	}
	at := 0
	if a.o.MaxDrop != nil {
		at, err = a.search(ctx)
	} else {
		at, err = a.fit()
	}
	if err != nil {
		return nil, err
	}
	codecs := a.codecsAt(at)
	s, err := a.sizeOf(codecs)
	if err != nil {
		return nil, err
	}
	a.report.PredictedLoss = a.frontier.Point(at).Loss
	plan := &storedPlan{Allocation: a.report, Bytes: s.bytes, BitsPerWeight: s.bitsPerWeight()}
	for i, codec := range codecs {
		plan.Codecs = append(plan.Codecs, codec.String())
		choices := []LayerChoice{}
		for _, p := range a.options[i] {
			choices = append(choices, LayerChoice{p.codec.String(), p.Bytes, p.Loss})
		}
		plan.Choices = append(plan.Choices, choices)
	}
	return plan, nil
}

// codecsAt returns the codec of each weight at a point of the frontier. Weights that cannot be coded have the smallest.
func (a *allocator) codecsAt(at int) []*lattice.Codec {
	var codecs []*lattice.Codec
	for i, c := range a.frontier.Choices(at) {
		if len(a.options[i]) == 0 {
			codecs = append(codecs, a.candidates[0])
			continue
		}
		codecs = append(codecs, a.options[i][c].codec)
	}
	return codecs
}
