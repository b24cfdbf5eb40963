package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/finetune"
)

func newFinetune(con *console) *cobra.Command {
	var o cosetq.FinetuneOptions
	cmd := &cobra.Command{
		Use:   "finetune FLOAT [QUANTIZED] --data RECIPE [-o OUTPUT]",
		Short: "Train a quantized model to win back what rounding lost",
		Long: `finetune trains the codes, row scales, biases and normalisation parameters of a
quantized model until it does what the float model does. A part of the data is
held out; the codes that do best there are kept. With --labels it learns the
labels of the data, or the next tokens, instead.

Without QUANTIZED the float model is quantized first, as --bits or --codec say.`,
		Example: `  cosetq finetune model.onnx model.q.onnx --data train.yaml -o model.ft.onnx --max-time 30m
  cosetq finetune model.onnx --bits 2 --data train.yaml --labels --steps 2000`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := notZero(cmd, "warm-up", "clip", "held-out", "every", "samples"); err != nil {
				return err
			}
			quantized := ""
			if len(args) == 2 {
				quantized = args[1]
				for _, flag := range []string{"bits", "codec", "method"} {
					if cmd.Flags().Changed(flag) {
						return usage(fmt.Errorf("--%s is given, and %s is quantized already", flag, quantized), "leave one of them out")
					}
				}
			}
			if o.Quantize.Codec == "" && o.Quantize.Bits == 0 && quantized == "" {
				return usage(errors.New("there is no quantized model"), "name it after the float one, or say how to quantize: --bits 2")
			}
			o.Train.Plan = func(p finetune.Plan) { printPlan(con, p) }
			o.Train.Report = func(e finetune.Event) { printEvent(con, e) }
			o.Quantize.Progress = con.follow()
			r, err := cosetq.Finetune(cmd.Context(), args[0], quantized, o)
			con.clearProgress()
			if err != nil {
				return err
			}
			con.notes(r.Notes)
			if con.json {
				err = con.printJSON(r)
			} else {
				printFinetune(con, r)
			}
			if err == nil && r.Interrupted {
				next := "; --resume goes on from " + r.Checkpoint
				if r.Checkpoint == "" {
					next = "" // blocks
				}
				con.warnf("interrupted: the best codes so far are written%s", next)
				err = &silentError{code: exitInterrupted}
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Output, "output", "o", "", "file to write (default: the input's name ending in .ft.onnx)")
	fs.BoolVar(&o.Overwrite, "force", false, "replace the output if it exists")
	fs.StringVar(&o.Data, "data", "", "data to train on: a recipe")
	fs.BoolVar(&o.Labels, "labels", false, "learn the labels of the data instead of the float model's outputs")
	fs.BoolVar(&o.Blocks, "blocks", false, "train one block after the other, each against its own outputs in the float model: less memory, less gain")
	fs.IntVar(&o.Train.Samples, "samples", finetune.DefaultBlockSamples, "with --blocks: samples whose activations are kept")
	fs.IntVar(&o.Train.Steps, "steps", 0, "steps to train; with the same seed the result is the same, to the bit")
	fs.DurationVar(&o.Train.MaxTime, "max-time", 0, "time to train instead, as in 30m")
	fs.IntVar(&o.Train.Batch, "batch", 0, "samples of a pass (0: what the model takes; of any number, 4 windows of tokens or 64 of anything else)")
	fs.IntVar(&o.Train.Accumulate, "accumulate", 0, "passes whose gradients make a step (0: 1, and more where the model takes few samples at once and --batch is not given)")
	fs.Float64Var(&o.Train.Rate, "rate", 0, fmt.Sprintf("peak learning rate, relative to the distance of weights from their codes (0: %v, less when a step sees fewer than %d tokens or images, or with more than %d steps)", finetune.DefaultRate, finetune.DefaultRateRows, finetune.DefaultRateSteps))
	fs.Float64Var(&o.Train.WarmUp, "warm-up", finetune.DefaultWarmUp, "share of the training over which the rate rises; a cosine takes it down to 0 afterwards")
	fs.Float64Var(&o.Train.Clip, "clip", finetune.DefaultClip, "bound on the norm of the gradient")
	fs.IntVar(&o.Train.HeldOut, "held-out", finetune.DefaultHeldOut, "samples to judge by, never trained on: as many whole batches as that makes, and at least one")
	fs.IntVar(&o.Train.Every, "every", finetune.DefaultEvery, "steps between judgements")
	fs.TextVar((*cosetq.ByteSize)(&o.Train.MaxMemory), "max-memory", cosetq.ByteSize(0), "compute activations again rather than keep more than this `size`, as in 4GB (default: no bound)")
	fs.Uint64Var(&o.Train.Seed, "seed", 0, "seed of the order of the samples")
	fs.IntVar(&o.Threads, "threads", 0, "threads of the runtime (0: all cores)")
	fs.BoolVar(&o.Train.Resume, "resume", false, "go on from the checkpoint of an interrupted training (of --blocks there is none)")
	fs.StringVar(&o.Device, "device", "cpu", "cpu, or cuda: an NVIDIA GPU, by libcosetq_cuda.so (docs/gpu.md), which rounds differently")
	fs.IntVar(&o.Quantize.Bits, "bits", 0, "without QUANTIZED: preset of 2, 3 or 4 bits per weight")
	fs.StringVar(&o.Quantize.Codec, "codec", "", "without QUANTIZED: codec instead of a preset, as in d4:4,4")
	fs.StringVar(&o.Quantize.Method, "method", "", "without QUANTIZED: rtn or ldlq (default ldlq, on the data)")
	addPatterns(cmd, &o.Quantize.Sites)
	return cmd
}

// printPlan logs what a training will hold, before it begins.
func printPlan(con *console, p finetune.Plan) {
	how := "all activations kept"
	if p.Memory.Recomputed > 0 {
		how = fmt.Sprintf("activations computed again in %d blocks", p.Memory.Recomputed)
	}
	con.logf("training %s and %s on %s, %d held out; memory %s for weights, gradients and moments, %s for a step (%s)",
		counted(p.Weights, "weight"), counted(p.Parameters, "parameter"), counted(p.Train, "sample"), p.HeldOut, cosetq.Size(p.Memory.Weights), cosetq.Size(p.Memory.Activations), how)
}

// printEvent logs a line of the progress.
func printEvent(con *console, e finetune.Event) {
	at := fmt.Sprintf("step %d", e.Step)
	if e.Steps > 0 {
		at += fmt.Sprintf(" of %d", e.Steps)
	}
	if e.Blocks > 0 {
		at = fmt.Sprintf("block %d of %d, %s", e.Block, e.Blocks, at)
	}
	train, best := "-", ""
	if !math.IsNaN(e.Train) {
		train = fmt.Sprintf("%.5f", e.Train)
	}
	if e.Best {
		best = "   best"
	}
	if e.Diverged {
		best = "   diverged: back to the best, at half the rate"
	}
	con.logf("%-16s %8s   loss %s   held out %.5f   agreement %.2f %%%s", at, e.Elapsed.Round(time.Second), train, e.HeldOut, 100*e.Agreement, best)
}

func printFinetune(con *console, r *cosetq.FinetuneReport) {
	fmt.Fprintf(con.out, "trained %s and %s in %s: held-out loss (%s) %.5f -> %.5f at step %d\n",
		counted(r.Weights, "weight"), counted(r.Parameters, "parameter"), counted(r.Steps, "step"), r.Loss, r.Start, r.Best, r.BestStep)
	for _, file := range r.Files {
		fmt.Fprintf(con.out, "wrote %s   %s\n", file.Path, cosetq.Size(file.Bytes))
	}
	con.logf("%.1f s, %.1f s of processor time, peak memory %s", r.Seconds, r.CPUSeconds, cosetq.Size(r.PeakRSS))
}
