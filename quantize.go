package cosetq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// Quantize quantizes the model at path input and writes the result.
func Quantize(ctx context.Context, input string, o QuantizeOptions) (*QuantizeReport, error) {
	return quantize(ctx, input, o, false)
}

// Plan says what [Quantize] would do and how large the result would be, and writes nothing. It reads no weights, and of the data
// one sample, to make sure that it fits; unless there is a target to meet: then what that takes is worked out and measured.
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
	output, err := OutputPath(o.Output, o.Reads(input), ".q.onnx", o.Overwrite || dryRun, dataEnding)
	if o.Resume && errors.Is(err, fs.ErrExist) {
		// Killed between giving the output its name and removing the journal.
		if output, _ = OutputPath(o.Output, o.Reads(input), ".q.onnx", true); journalPlaced(output) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	var recipe *recipeFile
	if !dryRun { // which leaves what is there alone
		release, err := claim(output, o.Shard.Count > 0)
		if err != nil {
			return nil, err
		}
		defer release()
		if recipe, err = o.recipeBeside(codec, input, output); err != nil {
			return nil, err
		}
	}
	if err := checkQuantizable(m); err != nil {
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
	if err := r.enough(sites, o.MinCoverage); err != nil { // what cannot be met is known before the work
		return nil, err
	}
	if o.allocates() {
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
		if o.allocates() {
			err = o.planAllocation(ctx, r, m, sites, output)
		} else if err = o.checkData(m); err == nil {
			err = r.plan(&o, codec, codecs, sites, output)
		}
		if err != nil {
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

// write quantizes all candidates, rewrites the model and saves it; or quantizes a share of them.
func (o *QuantizeOptions) write(ctx context.Context, r *QuantizeReport, m *onnx.Model, codec *lattice.Codec, codecs codecOf, sites []rewrite.Site, output string, recipe *recipeFile) (err error) {
	j, err := o.openJournal(m, codec, output)
	if err != nil {
		return err
	}
	defer func() { err = o.leaveJournal(j, err) }()
	if err := o.noteRun(j); err != nil {
		return err
	}
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
	rewrite.JoinBatches(m)
	r.BitsPerWeight = done.BitsPerWeight()
	if err := o.noteRecipe(m, codec); err != nil {
		return err
	}
	options := saveOptions()
	if err := o.checkSize(m, output, options); err != nil {
		return err
	}
	if err := withdraw(j); err != nil {
		return err
	}
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
	file, err := writeFile(recipe.path, j.Dir(), recipe.text, 0o644)
	if err != nil {
		return err
	}
	r.Files = append(r.Files, file)
	return nil
}

// checkSize makes sure of a target of bytes, which what was planned keeps unless sizes were foretold wrongly.
func (o *QuantizeOptions) checkSize(m *onnx.Model, output string, options onnx.SaveOptions) error {
	if o.TargetBytes == 0 {
		return nil
	}
	bytes, err := m.SavedBytes(output, options)
	if over := bytes - int64(o.TargetBytes); err == nil && over > 0 {
		return usage(fmt.Errorf("--target-size %d is missed by %d bytes: the model takes %d", o.TargetBytes, over, bytes), "ask for %d", int64(o.TargetBytes)-over)
	}
	return err
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
	Faded       int       `json:"faded_rows,omitempty"`
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
		res, err := r.recall(ctx, j, w, codec)
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
		group.Go(caught(func() error {
			res, err := o.quantizeOne(ctx, options, w, h, j)
			if err == nil {
				lock.Lock()
				defer lock.Unlock()
				results[w.Weight] = res
				w.Release()
			}
			return err
		}))
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
	if len(weights) == 0 {
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
	// The digest is made meanwhile, by threads that coding leaves idle while it waits.
	var source string
	digesting, stop := context.WithCancel(ctx)
	var digest errgroup.Group
	digest.Go(caught(func() (err error) {
		source, err = journal.Digest(digesting, w)
		return err
	}))
	defer func() {
		stop()
		_ = digest.Wait() // done with the weight
	}()
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
		coded.matrix, coded.Faded = res.Matrix, res.Faded
		coded.Correction = h.correction(w.Weight, res)
		h.describe(coded, w.Weight, res)
		if db := res.SQNR(); !math.IsInf(db, 0) && !math.IsNaN(db) {
			coded.SQNR = &db
		}
	}
	if err := digest.Wait(); ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		return nil, fail(BadModel, err, "")
	}
	return coded, coded.store(j, w, options.Codec, source)
}
