package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// reasonNonFinite is the reason of a layer whose weight cannot be coded because of NaN or infinity in it.
const reasonNonFinite = "non-finite"

// pageSize is the size from which a tensor is worth a place of its own in the external file, where each starts on a new page.
const pageSize = 4096

// quantizeFlags are the flags of quantize.
type quantizeFlags struct {
	output, codec, method string
	bits, threads         int
	minCoverage           float64
	seed                  uint64
	dryRun, force, layers bool
	calibration           calibrationFlags
	patterns              rewrite.Options
}

// layerReport is one layer of the quantize report.
type layerReport struct {
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

type quantizeReport struct {
	Schema        string        `json:"schema"`
	Input         string        `json:"input"`
	InputBytes    int64         `json:"input_bytes"`
	Codec         string        `json:"codec"`
	Method        string        `json:"method"`
	Seed          uint64        `json:"seed"`
	BitsPerWeight float64       `json:"bits_per_weight"`
	Coverage      float64       `json:"coverage"`
	Layers        []layerReport `json:"layers"`
	DryRun        bool          `json:"dry_run,omitempty"`
	Files         []fileReport  `json:"files"`
	Bytes         int64         `json:"bytes"`
	Seconds       float64       `json:"seconds"`
	PeakRSS       int64         `json:"peak_rss_bytes"`
}

func newQuantize(con *console) *cobra.Command {
	f := &quantizeFlags{}
	cmd := &cobra.Command{
		Use:   "quantize MODEL [-o OUTPUT]",
		Short: "Quantize the MatMul and Gemm weights of a model",
		Long: `quantize replaces the constant weights of MatMul and Gemm by nested-lattice codes
and writes a new model. Nothing is changed in place, and every MatMul and Gemm is
accounted for: quantized, or skipped with a reason.

--bits 4, 3 or 2 chooses a preset codec; --codec names one, as in d4:4,4:g3,4,5,6
(lattice, radices from the finest level, gains).`,
		Example: `  cosetq quantize model.onnx -o model.q.onnx --bits 4
  cosetq quantize model.onnx --bits 3 --exclude 're:.*/lm_head/.*' --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.run(cmd.Context(), con, args[0], cmd.Flags().Changed("bits"))
			if r != nil && err == nil {
				if con.json {
					return con.printJSON(r)
				}
				return printQuantize(con, r, f.layers)
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.output, "output", "o", "", "file to write (default: the input's name ending in .q.onnx)")
	fs.IntVar(&f.bits, "bits", 4, "preset: 2, 3 or 4 bits per weight (and a quarter for the gains)")
	fs.StringVar(&f.codec, "codec", "", "codec instead of a preset, as in d4:4,4:g3,4,5,6")
	fs.StringVar(&f.method, "method", "", "rtn: round to nearest, needs no data; ldlq: round for the outputs that the data gives (default with data)")
	fs.StringVar(&f.calibration.data, "data", "", "calibrate on this data first: a recipe, or random:N")
	fs.StringVar(&f.calibration.file, "calib", "", "use the statistics that `cosetq calibrate` wrote")
	fs.IntVar(&f.calibration.samples, "samples", defaultSamples, "number of samples of --data (0: all), also called --limit")
	fs.SetNormalizeFunc(limitIsSamples)
	fs.Float64Var(&f.minCoverage, "min-coverage", 0, "fail with exit code 4 when a smaller share of the weights can be quantized")
	fs.Uint64Var(&f.seed, "seed", 0, "recorded in the report; rtn draws no random numbers")
	fs.IntVar(&f.threads, "threads", 0, "threads (0: all cores); the result does not depend on it")
	fs.BoolVar(&f.dryRun, "dry-run", false, "say what would be done and how large the result would be, write nothing")
	fs.BoolVar(&f.force, "force", false, "replace the output if it exists")
	fs.BoolVar(&f.layers, "layers", false, "list every layer")
	addPatterns(cmd, &f.patterns)
	return cmd
}

// chosenCodec returns the codec of --codec or --bits.
func (f *quantizeFlags) chosenCodec(bitsGiven bool) (*lattice.Codec, error) {
	if f.codec == "" {
		c, err := lattice.Preset(f.bits)
		if err != nil {
			return nil, usage(err, "presets are --bits 2, 3 and 4; --codec names any other")
		}
		return c, nil
	}
	if bitsGiven {
		return nil, usage(errors.New("--bits and --codec are both given"), "leave one of them out")
	}
	c, err := lattice.ParseCodec(f.codec)
	if err != nil {
		return nil, usage(err, "a codec is a lattice, radices and gains, as in d4:4,4:g3,4,5,6")
	}
	return c, nil
}

func (f *quantizeFlags) run(ctx context.Context, con *console, input string, bitsGiven bool) (*quantizeReport, error) {
	start := time.Now()
	codec, err := f.chosenCodec(bitsGiven)
	if err != nil {
		return nil, err
	}
	if err := f.chooseMethod(); err != nil {
		return nil, err
	}
	if f.threads < 0 {
		return nil, usage(fmt.Errorf("--threads %d is negative", f.threads), "0 takes all cores")
	}
	if !(f.minCoverage >= 0 && f.minCoverage <= 1) { // not even NaN
		return nil, usage(fmt.Errorf("--min-coverage %v is no share", f.minCoverage), "it lies between 0 and 1")
	}
	m, err := openModel(input)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	output, err := outputPath(f.output, input, ".q.onnx", f.force || f.dryRun)
	if err != nil {
		return nil, err
	}
	if err := checkModel(m); err != nil {
		return nil, err
	}
	sites, err := rewrite.FindSites(m, f.patterns)
	if err != nil {
		return nil, err
	}
	r := &quantizeReport{Schema: "cosetq/v1/quantize", Input: input, Codec: codec.String(), Method: f.method, Seed: f.seed, DryRun: f.dryRun, Files: []fileReport{}}
	if r.InputBytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	if f.dryRun {
		if err := f.checkStatistics(m); err != nil {
			return nil, err
		}
		f.plan(r, codec, sites)
	} else if err := f.write(ctx, con, r, m, codec, sites, output); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = peakRSS()
	return r, f.enough(r, sites)
}

// enough makes it an error when nothing, or less than was asked for, could be quantized.
func (f *quantizeFlags) enough(r *quantizeReport, sites []rewrite.Site) error {
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
	if candidates > 0 && share >= f.minCoverage {
		return nil
	}
	var text []string
	if done > 0 {
		text = append(text, fmt.Sprintf("%d quantized already", done))
	}
	for _, c := range sortedKeys(reasons) {
		text = append(text, fmt.Sprintf("%d %s (%s)", reasons[c], c, reasonTexts[c]))
	}
	what := strings.Join(text, ", ")
	if what == "" {
		what = "it has no MatMul and no Gemm"
	}
	if candidates == 0 {
		return withCode(exitNothing, fmt.Errorf("%s: nothing to quantize: %s", r.Input, what), "`cosetq inspect %s --layers` lists every node", r.Input)
	}
	return withCode(exitNothing, fmt.Errorf("%s: only %.1f %% of the weights can be quantized, --min-coverage asks for %.1f %%: %s",
		r.Input, 100*share, 100*f.minCoverage, what), "`cosetq inspect %s --layers` lists every node", r.Input)
}

// plan fills the report of a dry run: sizes follow from the shapes alone.
func (f *quantizeFlags) plan(r *quantizeReport, codec *lattice.Codec, sites []rewrite.Site) {
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

func layerOf(s *rewrite.Site) layerReport {
	return layerReport{Node: s.Name, Initializer: s.Initializer, Op: s.Op, K: s.K, N: s.N,
		Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail}
}

// write quantizes all candidates, rewrites the model and saves it.
func (f *quantizeFlags) write(ctx context.Context, con *console, r *quantizeReport, m *onnx.Model, codec *lattice.Codec, sites []rewrite.Site, output string) error {
	h, err := f.openHessians(ctx, con, m, sites)
	if err != nil {
		return err
	}
	if h != nil {
		defer h.close()
	}
	results, err := f.quantizeAll(ctx, con, codec, sites, h)
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
	if err := f.enough(r, sites); err != nil {
		return err
	}
	done, err := rewrite.Apply(m, replacements, version)
	if err != nil {
		return withCode(exitModel, err, "")
	}
	r.BitsPerWeight = done.BitsPerWeight()
	step, last := con.progress(100, "writing"), 0
	saved, err := m.Save(output, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: pageSize, Overwrite: f.force, Context: ctx,
		Progress: func(written, total int64) {
			percent := int(100 * written / max(total, 1))
			step(percent - last)
			last = percent
		}})
	con.clearProgress()
	if err != nil {
		return err
	}
	r.Files, r.Bytes = fileReports(saved)
	return nil
}

// quantizeAll codes every weight of the candidates once. A weight that is not finite turns its sites into skipped ones.
func (f *quantizeFlags) quantizeAll(ctx context.Context, con *console, codec *lattice.Codec, sites []rewrite.Site, h *hessians) (map[*rewrite.Weight]*quant.Result, error) {
	rows := 0
	var weights []*rewrite.Weight
	seen := map[*rewrite.Weight]bool{}
	for i := range sites {
		if s := &sites[i]; s.Status == rewrite.Candidate && !seen[s.Weight] {
			seen[s.Weight] = true
			weights = append(weights, s.Weight)
			rows += s.N
		}
	}
	step := con.progress(rows, "quantizing")
	defer con.clearProgress()
	encoder, results := fastEncoder(codec), map[*rewrite.Weight]*quant.Result{}
	for _, w := range weights {
		hessian, err := h.of(w)
		if err != nil {
			return nil, err
		}
		res, err := quant.Quantize(ctx, w, quant.Options{Codec: codec, Encoder: encoder, Hessian: hessian, Threads: f.threads, Progress: step})
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
			return nil, withCode(exitModel, fmt.Errorf("weight %q: %w", w.Name(), err), "")
		}
		results[w] = res
		w.Release()
	}
	return results, nil
}

func printQuantize(con *console, r *quantizeReport, layers bool) error {
	reasons := map[string]int{}
	quantized, worst := 0, -1
	for i, l := range r.Layers {
		if l.Reason != "" {
			reasons[l.Reason]++
			continue
		}
		quantized++
		if l.SQNR != nil && (worst < 0 || *l.SQNR < *r.Layers[worst].SQNR) {
			worst = i
		}
	}
	if layers {
		t := con.table()
		fmt.Fprintln(t, "node\tK×N\tbits/weight\tSQNR dB\tstatus")
		for _, l := range r.Layers {
			bits, db := "-", "-"
			if l.BitsPerWeight > 0 {
				bits = fmt.Sprintf("%.3f", l.BitsPerWeight)
			}
			if l.SQNR != nil {
				db = fmt.Sprintf("%.1f", *l.SQNR)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", shorten(l.Node, 60), shape(l.K, l.N), bits, db, statusText(l.Status, l.Reason, ""))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	verb := "quantized"
	if r.DryRun {
		verb = "would quantize"
	}
	fmt.Fprintf(con.out, "%s %d of %d MatMul and Gemm nodes, %.1f %% of their weights, with %s\n", verb, quantized, len(r.Layers), 100*r.Coverage, r.Codec)
	printReasons(con, reasons)
	printFallbacks(con, r.Layers)
	fmt.Fprintf(con.out, "%s -> %s   %.3f bits per weight, everything counted", megabytes(r.InputBytes), megabytes(r.Bytes), r.BitsPerWeight)
	if worst >= 0 {
		fmt.Fprintf(con.out, "   worst SQNR %.1f dB (%s)", *r.Layers[worst].SQNR, r.Layers[worst].Node)
	}
	fmt.Fprintln(con.out)
	for _, file := range r.Files {
		fmt.Fprintf(con.out, "wrote %s   %s\n", file.Path, megabytes(file.Bytes))
	}
	con.logf("%.1f s on %d cores, peak memory %s", r.Seconds, runtime.GOMAXPROCS(0), megabytes(r.PeakRSS))
	return nil
}
