package cosetq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/journal"
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

// What may be rotated.
const (
	RotateAuto     = "auto"
	RotateNone     = "none"
	RotateHadamard = "hadamard"
)

// QuantizeOptions say how to quantize a model. The zero value rounds every weight that can be coded to 4 bits, without data.
type QuantizeOptions struct {
	Output    string `yaml:"-"` // file to write; "" is the input's name ending in .q.onnx
	Overwrite bool   `yaml:"-"` // replace the output if it exists

	// Options with a key can stand in a recipe; the keys are the names of the flags.
	Bits   int    `yaml:"bits"`   // preset: 2, 3 or 4; 0 leaves the choice to Codec or DefaultBits
	Codec  string `yaml:"codec"`  // codec instead of a preset, as in d4:4,4:g3,4,5,6
	Method string `yaml:"method"` // RTN or LDLQ; "" is RTN without data and LDLQ with

	// Layers gives some layers a codec of their own: each entry is PATTERN=CODEC, with a pattern as in Sites and a preset (2, 3
	// or 4) or a codec. Of several that match, the last counts.
	Layers []string `yaml:"layer"`

	// TargetBits, TargetBytes or MaxDrop, in the place of Bits or Codec, let each layer that Layers says nothing of have the
	// preset that is best for the whole: least loss with so many bits per weight, all stored bits counted; least loss in files
	// of so many bytes; or the smallest file whose metric, evaluated on Data, is worse than that of the float model by no more
	// than MaxDrop: bits per token, points of top-1 accuracy, or without tokens and labels the share of error in the outputs'
	// energy. What a layer costs is measured on the outputs of the model, so Data is needed; with Statistics as well it only
	// serves to measure.
	TargetBits  float64  `yaml:"target-bpw"`
	TargetBytes ByteSize `yaml:"target-size"`
	MaxDrop     float64  `yaml:"max-drop"`

	// Rotate is RotateNone, RotateHadamard or RotateAuto, which rotates the weights that lose less by it; "" is RotateAuto with
	// LDLQ and RotateNone without.
	Rotate string `yaml:"rotate"`

	Data       string `yaml:"data"`    // calibrate on this data first: a recipe, or random:N
	Samples    int    `yaml:"samples"` // number of samples of Data, 0 all
	Statistics string `yaml:"calib"`   // or use this file that Calibrate wrote

	Sites       rewrite.Options `yaml:",inline"`      // which weights
	MinCoverage float64         `yaml:"min-coverage"` // fail with Nothing when a smaller share of the weights can be quantized, 0 to 1
	Seed        uint64          `yaml:"seed"`         // of random data and of rotations; recorded in the report
	Threads     int             `yaml:"threads"`      // 0 takes all cores; the result does not depend on it
	Device      string          `yaml:"device"`       // that codes the weights: "" or cpu, or cuda; the result does not depend on it
	Progress    Progress        `yaml:"-"`            // may be nil

	// Resume goes on where a run with the same options was killed: what it had done lies in the folder OUTPUT.journal.
	Resume bool `yaml:"-"`
	// Shard, unless zero, makes this one of several runs that divide the weights; [Merge] writes the model when all are done.
	Shard Shard `yaml:"-"`

	recipeRead string // by ReadRecipe
}

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

// Quantize quantizes the model at path input and writes the result.
func Quantize(ctx context.Context, input string, o QuantizeOptions) (*QuantizeReport, error) {
	return quantize(ctx, input, o, false)
}

// Plan says what [Quantize] would do and how large the result would be, and writes nothing. It reads no weights, unless there is
// a target to meet: then what that takes is worked out and measured.
func Plan(ctx context.Context, input string, o QuantizeOptions) (*QuantizeReport, error) {
	return quantize(ctx, input, o, true)
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
	if o.Resume && errors.Is(err, fs.ErrExist) {
		// Killed between giving the output its name and removing the journal.
		if output, _ = OutputPath(o.Output, input, ".q.onnx", true); journalPlaced(output) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	recipe, err := o.recipeBeside(codec, input, output)
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
	codecs, err := o.layerCodecs(sites, codec)
	if err != nil {
		return nil, err
	}
	r := newQuantizeReport(input, &o)
	r.DryRun, r.Others = dryRun, otherWeights(m, sites)
	if o.allocates() { // what cannot be met is known before the work
		if err := r.enough(sites, o.MinCoverage); err != nil {
			return nil, err
		}
		a, err := o.newAllocator(m, sites, output)
		if err == nil {
			err = a.checkReach()
		}
		if err != nil {
			return nil, err
		}
	}
	if r.InputBytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	if dryRun {
		if err := o.checkStatistics(m); err != nil {
			return nil, err
		}
		if !o.allocates() {
			r.plan(codecs, sites)
		} else if err := o.planAllocation(ctx, r, m, sites); err != nil {
			return nil, err
		}
		if err := r.enough(sites, o.MinCoverage); err != nil {
			return nil, err
		}
	} else if err := o.write(ctx, r, m, codec, codecs, sites, output, recipe); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = PeakRSS()
	return r, nil
}

func newQuantizeReport(input string, o *QuantizeOptions) *QuantizeReport {
	return &QuantizeReport{Schema: "cosetq/v1/quantize", Input: input, Method: o.Method, Seed: o.Seed, Files: []File{}}
}

// chosenCodec returns the codec of Codec or Bits, nil where a target chooses.
func (o *QuantizeOptions) chosenCodec() (*lattice.Codec, error) {
	if err := o.checkTarget(); err != nil || o.allocates() {
		return nil, err
	}
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
	return parseCodec(o.Codec)
}

// check refuses options that make no sense, and fills in the method.
func (o *QuantizeOptions) check() error {
	if err := o.chooseMethod(); err != nil {
		return err
	}
	if o.Shard.Count > 0 && o.Data != "" && (o.Statistics == "" || !o.allocates()) {
		return usage(errors.New("--shard and --data are both given"), "calibrate once, and give the shares its file with --calib")
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
		what = "it has no MatMul, no Gemm and no 1×1 Conv"
	}
	if candidates == 0 {
		return fail(Nothing, fmt.Errorf("%s: nothing to quantize: %s", r.Input, what), "`cosetq inspect %s --layers` lists every node", r.Input)
	}
	return fail(Nothing, fmt.Errorf("%s: only %.1f %% of the weights can be quantized, --min-coverage asks for %.1f %%: %s",
		r.Input, 100*share, 100*minCoverage, what), "`cosetq inspect %s --layers` lists every node", r.Input)
}

// plan fills the report of a dry run: sizes follow from the shapes alone.
func (r *QuantizeReport) plan(codecs codecOf, sites []rewrite.Site) {
	var bytes, weights, floats int64
	seen := map[*rewrite.Weight]bool{}
	books := map[string]bool{}
	for i := range sites {
		s := &sites[i]
		layer := layerOf(s)
		if s.Status == rewrite.Candidate {
			codec := codecs[s.Weight]
			b := quant.PlannedBytes(codec, s.N, s.K)
			layer.Codec, layer.BitsPerWeight, layer.Bytes = codec.String(), 8*float64(b)/float64(s.Weights), b
			r.describeChoice(&layer, s.Weight)
			if !seen[s.Weight] {
				seen[s.Weight] = true
				bytes += b
				if book := quant.LayoutOf(codec).Codebook; !books[fmt.Sprint(book)] {
					books[fmt.Sprint(book)] = true
					bytes += int64(len(book))
				}
				weights += s.Weights
				floats += s.Weights * int64(s.DType.Bits()/8)
			}
		}
		r.Layers = append(r.Layers, layer)
	}
	if weights > 0 {
		r.BitsPerWeight = 8 * float64(bytes) / float64(weights)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	r.Bytes = r.InputBytes - floats + bytes
	r.Codec = codecs.names()
}

func layerOf(s *rewrite.Site) QuantizedLayer {
	return QuantizedLayer{Node: s.Name, Initializer: s.Initializer, Op: s.Op, K: s.K, N: s.N,
		Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail}
}

// write quantizes all candidates, rewrites the model and saves it; or quantizes a share of them.
func (o *QuantizeOptions) write(ctx context.Context, r *QuantizeReport, m *onnx.Model, codec *lattice.Codec, codecs codecOf, sites []rewrite.Site, output string, recipe *recipeFile) (err error) {
	j, err := o.openJournal(m, codec, output)
	if err != nil {
		return err
	}
	defer func() { err = o.leaveJournal(j, err) }()
	h, err := o.openHessians(ctx, r, m, sites, j)
	if err != nil {
		return err
	}
	if h != nil {
		defer h.close()
	}
	if o.allocates() {
		if codecs, _, err = o.allocate(ctx, r, m, sites, h, j, output); err != nil {
			return err
		}
	}
	weights := weightsOf(sites)
	if err := o.checkTargets(m, codecs, weights, output, j); err != nil {
		return err
	}
	results, err := o.quantizeAll(ctx, r, "quantizing", codecs, o.Shard.share(weights), h, j)
	if err != nil {
		return err
	}
	r.Codec = codecs.names()
	if o.Shard.Count > 0 {
		return r.describeShare(m, o.Shard, sites, results)
	}
	return r.assemble(ctx, o, m, codec, sites, results, output, recipe, j)
}

// checkTargets fails at once when the result could not be saved in the end.
func (o *QuantizeOptions) checkTargets(m *onnx.Model, codecs codecOf, weights []*rewrite.Weight, output string, j *journal.Journal) error {
	if placed, err := j.Output(); err != nil || len(placed) > 0 {
		return err // what stands there may be our own; the end will tell
	}
	external := false
	for _, w := range weights {
		n, k := w.Dims()
		external = external || quant.PlannedBytes(codecs[w], n, k) > 2*pageSize // more than half of which are the codes
	}
	return m.CheckTargets(output, onnx.SaveOptions{Overwrite: o.Overwrite}, external)
}

// assemble replaces the weights by their codes and saves the model.
func (r *QuantizeReport) assemble(ctx context.Context, o *QuantizeOptions, m *onnx.Model, codec *lattice.Codec, sites []rewrite.Site, results map[*rewrite.Weight]*codedWeight, output string, recipe *recipeFile, j *journal.Journal) error {
	replacements := r.describe(sites, results)
	if err := r.enough(sites, o.MinCoverage); err != nil {
		return err
	}
	done, err := rewrite.Apply(m, replacements, Version())
	if err != nil {
		return fail(BadModel, err, "")
	}
	r.BitsPerWeight = done.BitsPerWeight()
	if err := o.noteRecipe(m, codec); err != nil {
		return err
	}
	if err := withdraw(j); err != nil {
		return err
	}
	options := saveOptions()
	options.Overwrite, options.Context, options.TempDir = o.Overwrite, ctx, j.Dir()
	options.BeforePlace = func(files []onnx.SavedFile) error {
		var recorded []journal.File
		for _, f := range files {
			recorded = append(recorded, journal.File{Path: filepath.Base(f.Path), SHA256: f.SHA256})
		}
		return j.SetOutput(recorded)
	}
	options.Progress = func(written, total int64) {
		if o.Progress != nil {
			o.Progress("writing", written, total)
		}
	}
	saved, err := m.Save(output, options)
	if err != nil {
		return err
	}
	r.Files, r.Bytes = savedFiles(saved)
	file, err := writeFile(recipe.path, recipe.text, 0o644)
	if err != nil {
		return err
	}
	r.Files = append(r.Files, file)
	return nil
}

// noteRecipe writes the effective recipe into the model.
func (o *QuantizeOptions) noteRecipe(m *onnx.Model, codec *lattice.Codec) error {
	text, err := o.effective(codec).recipe()
	if err == nil {
		m.SetMetadata(rewrite.MetadataRecipe, text)
	}
	return err
}

// saveOptions are those of every quantized model.
func saveOptions() onnx.SaveOptions {
	return onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize}
}

// describe lists the layers, and returns the replacements of those that were coded.
func (r *QuantizeReport) describe(sites []rewrite.Site, results map[*rewrite.Weight]*codedWeight) []rewrite.Replacement {
	var replacements []rewrite.Replacement
	for i := range sites {
		s := &sites[i]
		res := results[s.Weight]
		if s.Status == rewrite.Candidate && res != nil && res.NonFinite != "" {
			s.Status, s.Reason, s.Detail = rewrite.Skipped, reasonNonFinite, res.NonFinite
		}
		layer := layerOf(s)
		if s.Status == rewrite.Candidate && res != nil {
			replacements = append(replacements, rewrite.Replacement{Site: *s, Matrix: res.matrix, Correction: res.Correction})
			layer.Status, layer.Codec, layer.BitsPerWeight = string(rewrite.Quantized), res.matrix.Codec.String(), res.matrix.BitsPerWeight()
			if r := res.matrix.Rotation; r != nil {
				layer.Rotation = r.Block
			}
			r.describeChoice(&layer, s.Weight)
			layer.Method, layer.Fallback, layer.Loss, layer.NearestLoss, layer.SQNR = res.Method, res.Fallback, res.Loss, res.NearestLoss, res.SQNR
		}
		r.Layers = append(r.Layers, layer)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	return replacements
}

// weightsOf lists the weights of the candidates, each once, in the order of the model.
func weightsOf(sites []rewrite.Site) []*rewrite.Weight {
	var weights []*rewrite.Weight
	seen := map[*rewrite.Weight]bool{}
	for i := range sites {
		if s := &sites[i]; s.Status == rewrite.Candidate && !seen[s.Weight] {
			seen[s.Weight] = true
			weights = append(weights, s.Weight)
		}
	}
	return weights
}

// codedWeight is what became of a weight: what the journal remembers beside the code.
type codedWeight struct {
	matrix      *quant.Matrix
	SQNR        *float64  `json:"sqnr_db,omitempty"`
	Method      string    `json:"method"`
	Fallback    string    `json:"fallback,omitempty"`
	Loss        *float64  `json:"output_loss,omitempty"`
	NearestLoss *float64  `json:"output_loss_rtn,omitempty"`
	Correction  []float32 `json:"correction,omitempty"`
	NonFinite   string    `json:"non_finite,omitempty"` // why it could not be coded
}

// quantizeAll codes the weights that the journal does not have yet.
func (o *QuantizeOptions) quantizeAll(ctx context.Context, r *QuantizeReport, stage string, codecs codecOf, weights []numbered, h *hessians, j *journal.Journal) (map[*rewrite.Weight]*codedWeight, error) {
	var rows int64
	for _, w := range weights {
		n, _ := w.Dims()
		rows += int64(n)
	}
	codings := map[*lattice.Codec]quant.Options{}
	step, results := o.Progress.stage(stage, rows), map[*rewrite.Weight]*codedWeight{}
	var todo []numbered
	for _, w := range weights {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		codec := codecs[w.Weight]
		if _, ok := codings[codec]; !ok {
			var err error
			if codings[codec], err = codingOn(o.Device, codec); err != nil {
				return nil, err
			}
		}
		res, err := r.recall(j, w, codec)
		if err != nil {
			return nil, err
		}
		if res == nil {
			todo = append(todo, w)
			continue
		}
		n, _ := w.Dims()
		step(n)
		results[w.Weight] = res
		w.Release()
	}
	together, threads := o.together(todo)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	var lock sync.Mutex
	for _, w := range todo {
		options := codings[codecs[w.Weight]]
		options.Threads, options.Progress = threads, step
		group.Go(func() error {
			res, err := o.quantizeOne(ctx, options, w, h, j)
			if err == nil {
				lock.Lock()
				defer lock.Unlock()
				results[w.Weight] = res
				w.Release()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// togetherNumbers bounds what weights that are coded at the same time have of second moments, H and G, beyond the largest of them:
// coding takes some 32 bytes for each.
const togetherNumbers = 1 << 23

// together puts weights in the order in which they are coded, the most work first, and says how many of them at once, on how many
// threads each: much of the work on a small weight has no use for a second thread.
func (o *QuantizeOptions) together(weights []numbered) (count, threads int) {
	threads = o.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if o.Device == CUDA || len(weights) == 0 {
		return 1, threads
	}
	moments := func(w numbered) int {
		n, k := w.Dims()
		return k*k + n*n
	}
	slices.SortStableFunc(weights, func(a, b numbered) int { return cmp.Compare(moments(b), moments(a)) })
	count = min(threads, len(weights), 1+togetherNumbers/moments(weights[0]))
	return count, threads / count
}

// quantizeOne codes a weight and stores the result in the journal.
func (o *QuantizeOptions) quantizeOne(ctx context.Context, options quant.Options, w numbered, h *hessians, j *journal.Journal) (*codedWeight, error) {
	hessian, err := h.of(w.Weight)
	if err != nil {
		return nil, err
	}
	coded := &codedWeight{}
	if options.Gradients, err = h.gradients(w.Weight); err != nil {
		return nil, err
	}
	options.Hessian = hessian
	if o.Rotate != RotateNone && !w.Gathered() {
		_, k := w.Dims()
		options.Rotation, options.TryRotation = quant.NewRotation(k, o.Seed), o.Rotate == RotateAuto
	}
	res, err := quant.Quantize(ctx, w, options)
	var bad *quant.NonFiniteError
	switch {
	case errors.As(err, &bad):
		coded.NonFinite = bad.Error()
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fail(BadModel, fmt.Errorf("weight %q: %w", w.Name(), err), "")
	default:
		coded.matrix = res.Matrix
		coded.Correction = h.correction(w.Weight, res)
		h.describe(coded, w.Weight, res)
		if db := res.SQNR(); !math.IsInf(db, 0) && !math.IsNaN(db) {
			coded.SQNR = &db
		}
	}
	return coded, coded.store(j, w, options.Codec)
}
