package cosetq

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/rewrite"
)

// QuantizedLayer is what became of one MatMul, Gemm or 1×1 Conv.
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
	Rotation      int      `json:"rotation,omitempty"`        // columns of a block of the Hadamard rotation
	Fallback      string   `json:"fallback,omitempty"`        // why it is not the method asked for, or not all of it
	Loss          *float64 `json:"output_loss,omitempty"`     // at the layer's output, relative to its energy
	NearestLoss   *float64 `json:"output_loss_rtn,omitempty"` // of rounding to nearest
	FadedRows     int      `json:"faded_rows,omitempty"`      // whose weights are too small beside those of the others to be kept
	Status        string   `json:"status"`
	Reason        string   `json:"reason,omitempty"`
	Detail        string   `json:"detail,omitempty"`

	Bytes         int64         `json:"bytes,omitempty"`          // of the code, in a plan
	PredictedLoss *float64      `json:"predicted_loss,omitempty"` // see Allocation
	Choices       []LayerChoice `json:"choices,omitempty"`        // what an Allocation chose from
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
	Coverage      float64          `json:"coverage"`        // share of all constant weights of MatMul, Gemm and 1×1 Conv that is quantized
	Layers        []QuantizedLayer `json:"layers"`
	Allocation    *Allocation      `json:"allocation,omitempty"` // how a target was met
	Others        []OtherWeights   `json:"others,omitempty"`     // larger constants of other operators, which stay as they are
	DryRun        bool             `json:"dry_run,omitempty"`
	Shard         string           `json:"shard,omitempty"` // the share i/n that was done; no files then
	Notes         []string         `json:"notes,omitempty"`
	Files         []File           `json:"files"`
	Bytes         int64            `json:"bytes"`
	Seconds       float64          `json:"seconds"`
	PeakRSS       int64            `json:"peak_rss_bytes"`

	choices map[*rewrite.Weight][]LayerChoice // of an allocation
}

func newQuantizeReport(input string, o *QuantizeOptions) *QuantizeReport {
	return &QuantizeReport{Schema: "cosetq/v1/quantize", Input: input, Method: o.Method, Seed: o.Seed, Files: []File{}}
}

// enough makes it an error when nothing, or less than minCoverage, could be quantized.
func (r *QuantizeReport) enough(sites []rewrite.Site, minCoverage float64) error {
	_, share := rewrite.Coverage(sites)
	candidates := slices.ContainsFunc(sites, func(s rewrite.Site) bool { return s.Status == rewrite.Candidate })
	switch {
	case !candidates:
		why := leftOut(sites)
		if text := OthersText(r.Others); text != "" {
			why += "; what stays as it is are weights of " + text
		}
		return fail(Nothing, fmt.Errorf("%s: nothing to quantize: %s", r.Input, why), "`cosetq inspect %s --layers` lists every node", r.Input)
	case share < minCoverage:
		return fail(Nothing, fmt.Errorf("%s: only %.1f %% of the weights can be quantized, --min-coverage asks for %.1f %%: %s",
			r.Input, 100*share, 100*minCoverage, leftOut(sites)), "`cosetq inspect %s --layers` lists every node", r.Input)
	}
	return nil
}

// leftOut says in words why sites are no candidates.
func leftOut(sites []rewrite.Site) string {
	reasons := map[string]int{}
	done := 0
	for i := range sites {
		switch s := &sites[i]; s.Status {
		case rewrite.Candidate:
		case rewrite.Quantized:
			done++
		default:
			reasons[string(s.Reason)]++
		}
	}
	var text []string
	if done > 0 {
		text = append(text, fmt.Sprintf("%d quantized already", done))
	}
	for _, c := range slices.Sorted(maps.Keys(reasons)) {
		text = append(text, fmt.Sprintf("%d %s (%s)", reasons[c], c, ReasonText(c)))
	}
	if text == nil {
		return "it has no MatMul, no Gemm and no 1×1 Conv"
	}
	return strings.Join(text, ", ")
}

func layerOf(s *rewrite.Site) QuantizedLayer {
	return QuantizedLayer{Node: s.Name, Initializer: s.Initializer, Op: s.Op, K: s.K, N: s.N,
		Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail}
}

// describe lists the layers, and returns the replacements of those that were coded.
func (r *QuantizeReport) describe(sites []rewrite.Site, results map[*rewrite.Weight]*codedWeight) []rewrite.Replacement {
	var replacements []rewrite.Replacement
	noted := map[*codedWeight]bool{}
	broken := map[string]rewrite.Site{} // batches, by what cannot be coded of them
	for i := range sites {
		if res := results[sites[i].Weight]; res != nil && res.NonFinite != "" && sites[i].Batch != "" {
			broken[sites[i].Batch] = sites[i]
		}
	}
	for i := range sites {
		s := &sites[i]
		res := results[s.Weight]
		if s.Status == rewrite.Candidate && res != nil && res.NonFinite != "" {
			s.Status, s.Reason, s.Detail = rewrite.Skipped, reasonNonFinite, res.NonFinite
		} else if b, ok := broken[s.Batch]; ok && s.Status == rewrite.Candidate {
			s.Status, s.Reason = rewrite.Skipped, rewrite.SharedWithFloat
			s.Detail = fmt.Sprintf("%s, of the same batch, holds numbers that are not finite, so that %q stays", b.Name, s.Initializer)
		}
		layer := layerOf(s)
		if s.Status == rewrite.Candidate && res != nil {
			replacements = append(replacements, rewrite.Replacement{Site: *s, Matrix: res.matrix, Correction: res.Correction})
			layer.Status, layer.Codec, layer.BitsPerWeight = string(rewrite.Quantized), res.matrix.Codec.String(), res.matrix.BitsPerWeight()
			if r := res.matrix.Rotation; r != nil {
				layer.Rotation = r.Block
			}
			r.describeChoice(&layer, s.Weight)
			if res.Faded > 0 && !noted[res] {
				r.Notes = append(r.Notes, fmt.Sprintf("the numbers of %d of %d rows of weight %q are too small, beside those of the others or for any scale, for much to be left of them; --exclude keeps a weight float",
					res.Faded, s.N, s.Initializer))
				noted[res] = true
			}
			layer.FadedRows = res.Faded
			layer.Method, layer.Fallback, layer.Loss, layer.NearestLoss, layer.SQNR = res.Method, res.Fallback, res.Loss, res.NearestLoss, res.SQNR
		}
		r.Layers = append(r.Layers, layer)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	return replacements
}
