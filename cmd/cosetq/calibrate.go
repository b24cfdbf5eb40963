package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
)

func newCalibrate(con *console) *cobra.Command {
	var (
		o     cosetq.CalibrateOptions
		data  string
		merge bool
		shard string
	)
	cmd := &cobra.Command{
		Use:   "calibrate MODEL --data RECIPE [-o FILE] | calibrate --merge FILE FILE... -o FILE",
		Short: "Learn from data what the weights of a model are multiplied by",
		Long: `calibrate runs the float model over data and sums up the second moments of what
its weights are multiplied by. quantize --calib uses the file, for any number of
bits, to round each weight such that the output suffers least. Memory does not
grow with the amount of data.

--data is a recipe (YAML), or random:N for N made-up samples. --merge joins the
files of several runs of the same model. With --shard i/n each of n machines
sums up a share of the moments, which is most of the memory and of the work;
each runs the model over all data. Merged, the shares give the same bytes as one
run.`,
		Example: `  cosetq calibrate model.onnx --data calib.yaml --samples 256 -o calib.cqs
  cosetq quantize model.onnx --bits 3 --calib calib.cqs
  cosetq calibrate --merge a.cqs b.cqs -o all.cqs`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if shard != "" {
				var err error
				if o.Shard, err = cosetq.ParseShard(shard, os.Getenv); err != nil {
					return err
				}
			}
			r, err := calibrate(cmd, con, args, data, merge, o)
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			printCalibrate(con, r)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Output, "output", "o", "", "file to write (default: the model's name ending in "+cosetq.StatisticsEnding+")")
	fs.StringVar(&data, "data", "", "data recipe, or random:N")
	fs.IntVar(&o.Samples, "samples", cosetq.DefaultSamples, "number of samples (0: all), also called --limit; token windows are spread evenly")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of random data")
	fs.IntVar(&o.Threads, "threads", 0, "threads (0: all cores); the statistics do not depend on it")
	fs.StringVar(&o.Device, "device", "cpu", "cpu, or cuda: an NVIDIA GPU, by libcosetq_cuda.so (docs/gpu.md), whose sums differ in rounding")
	fs.StringVar(&shard, "shard", "", "observe share i of n of the activations only, i from 0, as in 0/4, or auto: as Kubernetes, Slurm or MPI say; --merge joins all shares")
	fs.BoolVar(&merge, "merge", false, "join statistics files instead of running a model")
	fs.BoolVar(&o.AllowUnreached, "allow-unreached", false, "write the file even when the data never reaches some weights")
	fs.BoolVar(&o.Overwrite, "force", false, "replace the output if it exists")
	fs.SetNormalizeFunc(limitIsSamples)
	addPatterns(cmd, &o.Sites)
	return cmd
}

func calibrate(cmd *cobra.Command, con *console, args []string, data string, merge bool, o cosetq.CalibrateOptions) (*cosetq.CalibrateReport, error) {
	switch {
	case merge && data != "":
		return nil, usage(errors.New("--merge and --data are both given"), "leave one of them out")
	case merge:
		return cosetq.MergeStatistics(o.Output, o.Overwrite, args...)
	case len(args) != 1:
		return nil, usage(fmt.Errorf("%d models are given, calibrate takes one", len(args)), "--merge joins statistics files")
	}
	o.Progress = con.follow()
	defer con.clearProgress()
	return cosetq.Calibrate(cmd.Context(), args[0], data, o)
}

func printCalibrate(con *console, r *cosetq.CalibrateReport) {
	samples := 0
	for _, d := range r.Data {
		samples += d.Samples
		if d.Random {
			con.warnf("note: data was made up (%s)", d.Recipe)
		}
	}
	if r.BadRows > 0 {
		con.warnf("warning: %d rows of activations held NaN or infinity and were left out", r.BadRows)
	}
	con.notes(r.Notes)
	fmt.Fprintf(con.out, "%d samples   %d/%d weights covered   peak memory %s   %.1f s   -> %s (%s)\n",
		samples, r.Covered, r.Weights, cosetq.Size(r.PeakRSS), r.Seconds, r.Output, cosetq.Size(r.Bytes))
}
