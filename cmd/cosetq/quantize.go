package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
)

func newQuantize(con *console) *cobra.Command {
	var (
		o              cosetq.QuantizeOptions
		dryRun, layers bool
		shard, recipe  string
		maxDrop        float64
		page           pageFlag
	)
	cmd := &cobra.Command{
		Use:   "quantize MODEL [-o OUTPUT]",
		Short: "Quantize the weights of a model",
		Long: `quantize replaces the constant weights of MatMul, Gemm and 1×1 Conv by
nested-lattice codes and writes a new model. Nothing is changed in place, and
each of them is accounted for: quantized, or skipped with a reason.

--bits 4, 3 or 2 chooses a preset codec; --codec names one, as in
d4:4,4:g3,4,5,6 (lattice, radices from the finest level, gains); --layer gives
some layers another one.

--target-bpw, --target-size and --max-drop choose a preset for each layer by
what it costs the outputs of the model, measured on --data. --dry-run prints the
plan.

The options that made the model are written beside it, as OUTPUT.recipe.yaml,
and into its metadata. --recipe reads such a file, or one of your own; its keys
are the flags, and flags given on the command line win. The same recipe gives
the same bytes; under another name, the .onnx differs by the name of its .data
file.

What is done is kept in the folder OUTPUT.journal until the model is written:
after a crash or Ctrl-C, --resume goes on from there and gives the same bytes.
--shard i/n does a share of the work; several machines that share a folder do
one each, and merge writes the model.`,
		Example: `  cosetq quantize model.onnx -o model.q.onnx --bits 4
  cosetq quantize model.onnx --target-bpw 3 --data calib.yaml --dry-run --layers
  cosetq quantize model.onnx --bits 3 --exclude 're:.*/lm_head/.*' --dry-run
  cosetq quantize model.onnx -o again.q.onnx --recipe model.q.recipe.yaml
  cosetq quantize model.onnx -o shared/model.q.onnx --shard 0/4`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := notZero(cmd, "bits"); err != nil {
				return err
			}
			given := changed(cmd)
			if slices.Contains(given, "max-drop") {
				o.MaxDrop = &maxDrop
			}
			if slices.ContainsFunc([]string{"target-bpw", "target-size", "max-drop"}, func(name string) bool { return slices.Contains(given, name) }) &&
				!slices.Contains(given, "bits") {
				o.Bits = 0 // the flag's default
			}
			switch {
			case o.Codec == "":
			case slices.Contains(given, "bits"):
				return usage(errors.New("--bits and --codec are both given"), "leave one of them out")
			default:
				o.Bits = 0 // the flag's default
			}
			if recipe != "" {
				if err := o.ReadRecipe(recipe, given...); err != nil {
					return err
				}
			}
			if slices.Contains(given, "samples") && o.Data == "" {
				return usage(errors.New("--samples is given, and no --data to take them from"), "leave it out, or give --data; the statistics of --calib are of all samples that calibrate saw")
			}
			if shard != "" {
				share, err := cosetq.ParseShard(shard, os.Getenv)
				if err != nil {
					return err
				}
				o.Shard = share
			}
			if page.path != "" {
				if dryRun {
					return usage(errors.New("--report and --dry-run are both given, and there will be no model to report on"), "leave one of them out")
				}
				if shard != "" {
					return usage(errors.New("--report and --shard are both given, and a share is no model to report on"), "leave --report out; after cosetq merge, `cosetq compare --report` makes a page of the model")
				}
				output, err := cosetq.OutputPath(o.Output, o.Reads(args[0]), ".q.onnx", true)
				if err != nil {
					return err
				}
				if err := page.check(o.Overwrite, o.Reads(args[0]), args[0], output); err != nil {
					return err
				}
			}
			r, err := quantize(cmd, con, args[0], o, dryRun)
			if err != nil {
				return err
			}
			if !con.json { // before the page, which may fail
				if err := printQuantize(con, r, layers); err != nil {
					return err
				}
			}
			if page.path != "" {
				page.describe(cmd, args)
				page.options.Data = o.Data
				page.options.Session.OpsLibrary, _ = cudaops.FindLibrary("") // without it the page times the portable path
				if _, err := r.WritePage(cmd.Context(), page.path, page.options); err != nil {
					return err
				}
				con.logf("wrote %s", page.path)
			}
			if con.json {
				return con.printJSON(r)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Output, "output", "o", "", "file to write (default: the input's name ending in .q.onnx)")
	fs.StringVar(&recipe, "recipe", "", "read options from a YAML file, as bits: 3; flags win over it")
	fs.IntVar(&o.Bits, "bits", cosetq.DefaultBits, "preset: 2, 3 or 4 bits per weight (and a quarter for the gains)")
	fs.StringVar(&o.Codec, "codec", "", "codec instead of a preset, as in d4:4,4:g3,4,5,6")
	fs.StringArrayVar(&o.Layers, "layer", nil, "PATTERN=CODEC: bits (2, 3 or 4) or a codec for the layers that match, as in 're:lm_head=4'; the last that matches counts")
	fs.Var((*positive)(&o.TargetBits), "target-bpw", "give each layer the preset that is best for the whole at so many bits per weight, everything counted; needs --data")
	fs.TextVar(&o.TargetBytes, "target-size", cosetq.ByteSize(0), "the same for files of this `size` in all, as in 12MB or 1.5GiB; needs --data")
	fs.Float64Var(&maxDrop, "max-drop", 0, "the smallest file that on --data loses no more than this: bits per token, points of top-1 accuracy, or share of error in the outputs; 0 allows no loss")
	fs.StringVar(&o.Method, "method", "", "rtn: round to nearest, needs no data; ldlq: round for the outputs that the data gives (default with data)")
	fs.StringVar(&o.Rotate, "rotate", "", "code weights under a random block Hadamard rotation: auto (those that lose less by it; default with data), none, hadamard (all)")
	fs.StringVar(&o.Data, "data", "", "calibrate on this data first: a recipe, or random:N")
	fs.StringVar(&o.Statistics, "calib", "", "use the statistics that cosetq calibrate wrote to this `file`")
	fs.IntVar(&o.Samples, "samples", cosetq.DefaultSamples, "number of samples of --data (0: all), also called --limit")
	fs.SetNormalizeFunc(limitIsSamples)
	fs.Float64Var(&o.MinCoverage, "min-coverage", 0, "fail with exit code 4 when a smaller share of the weights can be quantized")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of random data and of rotations, recorded in the report")
	fs.IntVar(&o.Threads, "threads", 0, "threads (0: all cores); the result does not depend on it")
	fs.StringVar(&o.Device, "device", "cpu", "cpu, or cuda to run --data and code on an NVIDIA GPU, by libcosetq_cuda.so (docs/gpu.md); statistics differ in rounding, codes made with the same ones do not")
	fs.BoolVar(&dryRun, "dry-run", false, "say what would be done and how large the result would be, write nothing")
	fs.BoolVar(&o.Overwrite, "force", false, "replace the output if it exists")
	fs.BoolVar(&o.Resume, "resume", false, "go on where a run with the same options was stopped or killed")
	fs.StringVar(&shard, "shard", "", "do share i of n only, i from 0, as in 0/4, or auto: as Kubernetes, Slurm or MPI say; cosetq merge writes the model")
	fs.BoolVar(&layers, "layers", false, "list every layer")
	page.add(cmd)
	addPatterns(cmd, &o.Sites)
	return cmd
}

// limitIsSamples lets --limit, which eval has, stand for --samples.
func limitIsSamples(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "limit" {
		name = "samples"
	}
	return pflag.NormalizedName(name)
}

// changed lists the flags that were given.
func changed(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().Visit(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// quantize quantizes a model, or plans to, with progress on the console.
func quantize(cmd *cobra.Command, con *console, input string, o cosetq.QuantizeOptions, dryRun bool) (*cosetq.QuantizeReport, error) {
	work := cosetq.Quantize
	if dryRun {
		work = cosetq.Plan
	} else if _, err := cosetq.NativeLibrary(); errors.Is(err, fs.ErrNotExist) {
		con.logf("note: the native library is not there: weights are coded in plain Go, slower and with the same bytes")
	} else if err != nil {
		con.logf("note: weights are coded in plain Go, slower and with the same bytes: %v", err)
	}
	o.Progress = con.follow()
	r, err := work(cmd.Context(), input, o)
	con.clearProgress()
	if err != nil {
		return nil, err
	}
	con.notes(r.Notes)
	return r, nil
}

func printQuantize(con *console, r *cosetq.QuantizeReport, layers bool) error {
	reasons := map[string]int{}
	quantized, already, worst := 0, 0, -1
	for i, l := range r.Layers {
		switch {
		case l.Reason != "":
			reasons[l.Reason]++
			continue
		case l.Codec == "":
			already++
			continue
		}
		quantized++
		if l.SQNR != nil && (worst < 0 || *l.SQNR < *r.Layers[worst].SQNR) {
			worst = i
		}
	}
	if layers {
		t := con.table()
		fmt.Fprint(t, "node\tK×N\tbits/weight\tSQNR dB\t")
		if r.Allocation != nil {
			fmt.Fprint(t, "predicted loss\t")
		}
		fmt.Fprintln(t, "status")
		for _, l := range r.Layers {
			bits, db := "-", "-"
			if l.BitsPerWeight > 0 {
				bits = fmt.Sprintf("%.3f", l.BitsPerWeight)
			}
			if l.SQNR != nil {
				db = fmt.Sprintf("%.1f", *l.SQNR)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", shorten(l.Node, longestName), shape(l.K, l.N), bits, db)
			switch {
			case r.Allocation == nil:
			case l.PredictedLoss == nil:
				fmt.Fprint(t, "-\t")
			default:
				fmt.Fprintf(t, "%.2e\t", *l.PredictedLoss)
			}
			fmt.Fprintln(t, statusText(l.Status, l.Reason, ""))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	ops := map[string]bool{}
	for _, l := range r.Layers {
		ops[l.Op] = true
	}
	verb := "quantized"
	if r.DryRun {
		verb = "would quantize"
	}
	fmt.Fprintf(con.out, "%s %d of %d %s nodes", verb, quantized, len(r.Layers), operators(ops))
	if already > 0 {
		fmt.Fprintf(con.out, ", with %d that were quantized already", already)
	}
	fmt.Fprintf(con.out, ", %.1f %% of their weights, with %s\n", 100*r.Coverage, r.Codec)
	printReasons(con, reasons)
	printOthers(con, r.Others)
	if err := printAllocation(con, r); err != nil {
		return err
	}
	printFallbacks(con, r.Layers)
	if r.Shard != "" {
		fmt.Fprintf(con.out, "share %s is done: %s of codes, %.3f bits per weight; when all are: cosetq merge\n", r.Shard, cosetq.Size(r.Bytes), r.BitsPerWeight)
		return nil
	}
	fmt.Fprintf(con.out, "%s -> %s   %.3f bits per weight, everything counted", cosetq.Size(r.InputBytes), cosetq.Size(r.Bytes), r.BitsPerWeight)
	if worst >= 0 {
		fmt.Fprintf(con.out, "   worst SQNR %.1f dB (%s)", *r.Layers[worst].SQNR, shorten(r.Layers[worst].Node, longestName))
	}
	fmt.Fprintln(con.out)
	for _, file := range r.Files {
		fmt.Fprintf(con.out, "wrote %s   %s\n", file.Path, cosetq.Size(file.Bytes))
	}
	con.logf("%.1f s on %d cores, peak memory %s", r.Seconds, runtime.GOMAXPROCS(0), cosetq.Size(r.PeakRSS))
	return nil
}

// printAllocation tells how layers got their codecs, and what that is predicted to be worth.
func printAllocation(con *console, r *cosetq.QuantizeReport) error {
	a := r.Allocation
	if a == nil {
		return nil
	}
	count := map[string]int{}
	for _, l := range r.Layers {
		count[l.Codec]++
	}
	fmt.Fprintf(con.out, "predicted loss %.3g %s, from layers measured one by one on %d samples\n", a.PredictedLoss, a.LossUnit(), a.Samples)
	t := con.table()
	fmt.Fprintln(t, "  codec\tlayers\tif all had it: bits/weight\tpredicted loss")
	for _, u := range a.Uniform {
		fmt.Fprintf(t, "  %s\t%d\t%.3f\t%.3g\n", u.Codec, count[u.Codec], u.BitsPerWeight, u.PredictedLoss)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, t := range a.Trials {
		fmt.Fprintf(con.out, "  tried %.3f bits per weight: drop %.4g %s\n", t.BitsPerWeight, t.Drop, a.DropUnit())
	}
	return nil
}

// printFallbacks tells which layers were rounded to nearest, or without feedback between rows, although there was data.
func printFallbacks(con *console, layers []cosetq.QuantizedLayer) {
	for _, l := range layers {
		if l.Fallback != "" {
			how := "nearest"
			if l.Method == cosetq.LDLQ {
				how = l.Method
			}
			fmt.Fprintf(con.out, "  %-7s  %s: %s\n", how, shorten(l.Node, longestName), l.Fallback)
		}
	}
}
