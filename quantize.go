package cosetq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// DefaultBits is the preset of [QuantizeOptions] that name none.
const DefaultBits = 4

// Methods of rounding, the default without data first.
const (
	RTN  = "rtn"  // to nearest
	LDLQ = "ldlq" // for the outputs that the data gives
)

// QuantizeOptions say how to quantize a model. The zero value rounds every weight that can be coded to 4 bits, without data.
type QuantizeOptions struct {
	Output    string // file to write; "" is the input's name ending in .q.onnx
	Overwrite bool   // replace the output if it exists

	Bits   int    // preset: 2, 3 or 4; 0 leaves the choice to Codec or DefaultBits
	Codec  string // codec instead of a preset, as in d4:4,4:g3,4,5,6
	Method string // RTN or LDLQ; "" is RTN without data and LDLQ with

	Data       string // calibrate on this data first: a recipe, or random:N
	Samples    int    // number of samples of Data, 0 all
	Statistics string // or use this file that Calibrate wrote

	Sites       rewrite.Options // which weights
	MinCoverage float64         // fail with Nothing when a smaller share of the weights can be quantized, 0 to 1
	Seed        uint64          // of random data; recorded in the report
	Threads     int             // 0 takes all cores; the result does not depend on it
	Progress    Progress        // may be nil
}

// QuantizedLayer is what became of one MatMul or Gemm.
type QuantizedLayer struct {
	Node          string   `json:"node"`
	Initializer   string   `json:"initializer"`
	Op            string   `json:"op"`
	K             int      `json:"k"`
	N             int      `json:"n"`
	Codec         string   `json:"codec,omitempty"`
	BitsPerWeight float64  `json:"bits_per_weight,omitempty"`
	SQNR          *float64 `json:"sqnr_db,omitempty"`
	Method        string   `json:"method,omitempty"`
	Fallback      string   `json:"fallback,omitempty"`        // why it is not the method asked for
	Loss          *float64 `json:"output_loss,omitempty"`     // at the layer's output, relative to its energy
	NearestLoss   *float64 `json:"output_loss_rtn,omitempty"` // of rounding to nearest
	Status        string   `json:"status"`
	Reason        string   `json:"reason,omitempty"`
	Detail        string   `json:"detail,omitempty"`
}

// QuantizeReport is the outcome of [Quantize] or [Plan].
type QuantizeReport struct {
	Schema        string           `json:"schema"`
	Input         string           `json:"input"`
	InputBytes    int64            `json:"input_bytes"`
	Codec         string           `json:"codec"`
	Method        string           `json:"method"`
	Seed          uint64           `json:"seed"`
	BitsPerWeight float64          `json:"bits_per_weight"` // every stored bit of the quantized weights counts
	Coverage      float64          `json:"coverage"`        // share of all constant MatMul and Gemm weights that is quantized
	Layers        []QuantizedLayer `json:"layers"`
	DryRun        bool             `json:"dry_run,omitempty"`
	Notes         []string         `json:"notes,omitempty"`
	Files         []File           `json:"files"`
	Bytes         int64            `json:"bytes"`
	Seconds       float64          `json:"seconds"`
	PeakRSS       int64            `json:"peak_rss_bytes"`
}

// Quantize quantizes the model at path input and writes the result.
func Quantize(ctx context.Context, input string, o QuantizeOptions) (*QuantizeReport, error) {
	return quantize(ctx, input, o, false)
}

// Plan says what [Quantize] would do and how large the result would be, from the shapes alone. It reads no weights and
// writes nothing.
func Plan(input string, o QuantizeOptions) (*QuantizeReport, error) {
	return quantize(context.Background(), input, o, true)
}

func quantize(ctx context.Context, input string, o QuantizeOptions, dryRun bool) (*QuantizeReport, error) {
	start := time.Now()
	codec, err := o.chosenCodec()
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	m, err := OpenModel(input)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	output, err := OutputPath(o.Output, input, ".q.onnx", o.Overwrite || dryRun)
	if err != nil {
		return nil, err
	}
	if err := checkModel(m); err != nil {
		return nil, err
	}
	sites, err := rewrite.FindSites(m, o.Sites)
	if err != nil {
		return nil, err
	}
	r := &QuantizeReport{Schema: "cosetq/v1/quantize", Input: input, Codec: codec.String(), Method: o.Method, Seed: o.Seed, DryRun: dryRun, Files: []File{}}
	if r.InputBytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	if dryRun {
		if err := o.checkStatistics(m); err != nil {
			return nil, err
		}
		r.plan(codec, sites)
		if err := r.enough(sites, o.MinCoverage); err != nil {
			return nil, err
		}
	} else if err := o.write(ctx, r, m, codec, sites, output); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = PeakRSS()
	return r, nil
}

// chosenCodec returns the codec of Codec or Bits.
func (o *QuantizeOptions) chosenCodec() (*lattice.Codec, error) {
	if o.Codec == "" {
		bits := o.Bits
		if bits == 0 {
			bits = DefaultBits
		}
		c, err := lattice.Preset(bits)
		if err != nil {
			return nil, usage(err, "presets are --bits 2, 3 and 4; --codec names any other")
		}
		return c, nil
	}
	if o.Bits != 0 {
		return nil, usage(errors.New("--bits and --codec are both given"), "leave one of them out")
	}
	c, err := lattice.ParseCodec(o.Codec)
	if err != nil {
		return nil, usage(err, "a codec is a lattice, radices and gains, as in d4:4,4:g3,4,5,6")
	}
	return c, nil
}

// check refuses options that make no sense, and fills in the method.
func (o *QuantizeOptions) check() error {
	if err := o.chooseMethod(); err != nil {
		return err
	}
	if o.Threads < 0 {
		return usage(fmt.Errorf("--threads %d is negative", o.Threads), "0 takes all cores")
	}
	if !(o.MinCoverage >= 0 && o.MinCoverage <= 1) { // not even NaN
		return usage(fmt.Errorf("--min-coverage %v is no share", o.MinCoverage), "it lies between 0 and 1")
	}
	return nil
}

// enough makes it an error when nothing, or less than minCoverage, could be quantized.
func (r *QuantizeReport) enough(sites []rewrite.Site, minCoverage float64) error {
	_, share := rewrite.Coverage(sites)
	reasons := map[string]int{}
	candidates, done := 0, 0
	for i := range sites {
		switch s := &sites[i]; s.Status {
		case rewrite.Candidate:
			candidates++
		case rewrite.Quantized:
			done++
		default:
			reasons[string(s.Reason)]++
		}
	}
	if candidates > 0 && share >= minCoverage {
		return nil
	}
	var text []string
	if done > 0 {
		text = append(text, fmt.Sprintf("%d quantized already", done))
	}
	for _, c := range slices.Sorted(maps.Keys(reasons)) {
		text = append(text, fmt.Sprintf("%d %s (%s)", reasons[c], c, ReasonText(c)))
	}
	what := strings.Join(text, ", ")
	if what == "" {
		what = "it has no MatMul and no Gemm"
	}
	if candidates == 0 {
		return fail(Nothing, fmt.Errorf("%s: nothing to quantize: %s", r.Input, what), "`cosetq inspect %s --layers` lists every node", r.Input)
	}
	return fail(Nothing, fmt.Errorf("%s: only %.1f %% of the weights can be quantized, --min-coverage asks for %.1f %%: %s",
		r.Input, 100*share, 100*minCoverage, what), "`cosetq inspect %s --layers` lists every node", r.Input)
}

// plan fills the report of a dry run: sizes follow from the shapes alone.
func (r *QuantizeReport) plan(codec *lattice.Codec, sites []rewrite.Site) {
	var bytes, weights, floats int64
	seen := map[*rewrite.Weight]bool{}
	for i := range sites {
		s := &sites[i]
		layer := layerOf(s)
		if s.Status == rewrite.Candidate {
			b := quant.PlannedBytes(codec, s.N, s.K)
			layer.Codec, layer.BitsPerWeight = codec.String(), 8*float64(b)/float64(s.Weights)
			if !seen[s.Weight] {
				seen[s.Weight] = true
				bytes += b
				weights += s.Weights
				floats += s.Weights * int64(s.DType.Bits()/8)
			}
		}
		r.Layers = append(r.Layers, layer)
	}
	if weights > 0 {
		bytes += int64(len(quant.LayoutOf(codec).Codebook))
		r.BitsPerWeight = 8 * float64(bytes) / float64(weights)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	r.Bytes = r.InputBytes - floats + bytes
}

func layerOf(s *rewrite.Site) QuantizedLayer {
	return QuantizedLayer{Node: s.Name, Initializer: s.Initializer, Op: s.Op, K: s.K, N: s.N,
		Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail}
}

// write quantizes all candidates, rewrites the model and saves it.
func (o *QuantizeOptions) write(ctx context.Context, r *QuantizeReport, m *onnx.Model, codec *lattice.Codec, sites []rewrite.Site, output string) error {
	h, err := o.openHessians(ctx, r, m, sites)
	if err != nil {
		return err
	}
	if h != nil {
		defer h.close()
	}
	results, err := o.quantizeAll(ctx, codec, sites, h)
	if err != nil {
		return err
	}
	var replacements []rewrite.Replacement
	for i := range sites {
		s := &sites[i]
		layer := layerOf(s)
		if res := results[s.Weight]; s.Status == rewrite.Candidate && res != nil {
			replacements = append(replacements, rewrite.Replacement{Site: *s, Matrix: res.Matrix, Correction: h.correction(s.Weight, res)})
			h.describe(&layer, s.Weight, res)
			layer.Status, layer.Codec, layer.BitsPerWeight = string(rewrite.Quantized), codec.String(), res.Matrix.BitsPerWeight()
			if db := res.SQNR(); !math.IsInf(db, 0) && !math.IsNaN(db) {
				layer.SQNR = &db
			}
		}
		r.Layers = append(r.Layers, layer)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	if err := r.enough(sites, o.MinCoverage); err != nil {
		return err
	}
	done, err := rewrite.Apply(m, replacements, Version())
	if err != nil {
		return fail(BadModel, err, "")
	}
	r.BitsPerWeight = done.BitsPerWeight()
	saved, err := m.Save(output, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize, Overwrite: o.Overwrite, Context: ctx,
		Progress: func(written, total int64) {
			if o.Progress != nil {
				o.Progress("writing", written, total)
			}
		}})
	if err != nil {
		return err
	}
	r.Files, r.Bytes = savedFiles(saved)
	return nil
}

// quantizeAll codes every weight of the candidates once. A weight that is not finite turns its sites into skipped ones.
func (o *QuantizeOptions) quantizeAll(ctx context.Context, codec *lattice.Codec, sites []rewrite.Site, h *hessians) (map[*rewrite.Weight]*quant.Result, error) {
	var rows int64
	var weights []*rewrite.Weight
	seen := map[*rewrite.Weight]bool{}
	for i := range sites {
		if s := &sites[i]; s.Status == rewrite.Candidate && !seen[s.Weight] {
			seen[s.Weight] = true
			weights = append(weights, s.Weight)
			rows += int64(s.N)
		}
	}
	step := o.Progress.stage("quantizing", rows)
	encoder, results := fastEncoder(codec), map[*rewrite.Weight]*quant.Result{}
	for _, w := range weights {
		hessian, err := h.of(w)
		if err != nil {
			return nil, err
		}
		res, err := quant.Quantize(ctx, w, quant.Options{Codec: codec, Encoder: encoder, Hessian: hessian, Threads: o.Threads, Progress: step})
		var bad *quant.NonFiniteError
		switch {
		case errors.As(err, &bad):
			for i := range sites {
				if sites[i].Weight == w {
					sites[i].Status, sites[i].Reason, sites[i].Detail = rewrite.Skipped, reasonNonFinite, bad.Error()
				}
			}
			continue
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, fail(BadModel, fmt.Errorf("weight %q: %w", w.Name(), err), "")
		}
		results[w] = res
		w.Release()
	}
	return results, nil
}
