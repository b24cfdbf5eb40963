package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/rewrite"
)

// statisticsEnding is the ending of statistics files.
const statisticsEnding = ".cqs"

// calibrateFlags are the flags of calibrate.
type calibrateFlags struct {
	output, data     string
	samples, threads int
	seed             uint64
	merge, force     bool
	allowUnreached   bool
	patterns         rewrite.Options
}

type calibrateReport struct {
	Schema       string           `json:"schema"`
	Inputs       []string         `json:"inputs"` // the model, or the files merged
	Output       string           `json:"output"`
	Fingerprint  string           `json:"fingerprint"`
	Data         []calib.DataUsed `json:"data"`
	Weights      int              `json:"weights"`
	Covered      int              `json:"covered"`
	Observations int              `json:"observations"`
	BadRows      int64            `json:"bad_rows,omitempty"`
	Bytes        int64            `json:"bytes"`
	Seconds      float64          `json:"seconds"`
	PeakRSS      int64            `json:"peak_rss_bytes"`
}

func newCalibrate(con *console) *cobra.Command {
	f := &calibrateFlags{}
	cmd := &cobra.Command{
		Use:   "calibrate MODEL --data RECIPE [-o FILE] | calibrate --merge FILE FILE... -o FILE",
		Short: "Learn from data what the weights of a model are multiplied by",
		Long: `calibrate runs the float model over data and sums up the second moments of what its
weights are multiplied by. quantize --calib uses the file, for any number of bits, to
round each weight such that the output suffers least. Memory does not grow with the
amount of data.

--data is a recipe (YAML), or random:N for N made-up samples. --merge joins the files
of several runs of the same model.`,
		Example: `  cosetq calibrate model.onnx --data calib.yaml --samples 256 -o calib.cqs
  cosetq quantize model.onnx --bits 3 --calib calib.cqs
  cosetq calibrate --merge a.cqs b.cqs -o all.cqs`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.run(cmd.Context(), con, args)
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
	fs.StringVarP(&f.output, "output", "o", "", "file to write (default: the model's name ending in "+statisticsEnding+")")
	fs.StringVar(&f.data, "data", "", "data recipe, or random:N")
	fs.IntVar(&f.samples, "samples", defaultSamples, "number of samples (0: all), also called --limit; token windows are spread evenly")
	fs.Uint64Var(&f.seed, "seed", 0, "seed of random data")
	fs.IntVar(&f.threads, "threads", 0, "threads (0: all cores); the statistics do not depend on it")
	fs.BoolVar(&f.merge, "merge", false, "join statistics files instead of running a model")
	fs.BoolVar(&f.allowUnreached, "allow-unreached", false, "write the file even when the data never reaches some weights")
	fs.BoolVar(&f.force, "force", false, "replace the output if it exists")
	fs.SetNormalizeFunc(limitIsSamples)
	addPatterns(cmd, &f.patterns)
	return cmd
}

// limitIsSamples lets --limit, which eval has, stand for --samples.
func limitIsSamples(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "limit" {
		name = "samples"
	}
	return pflag.NormalizedName(name)
}

func (f *calibrateFlags) run(ctx context.Context, con *console, args []string) (*calibrateReport, error) {
	start := time.Now()
	r := &calibrateReport{Schema: "cosetq/v1/calibrate", Inputs: args}
	var err error
	if f.merge {
		err = f.join(r, args)
	} else {
		err = f.observe(ctx, con, r, args)
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = peakRSS()
	return r, err
}

// observe runs the model and writes what was gathered.
func (f *calibrateFlags) observe(ctx context.Context, con *console, r *calibrateReport, args []string) error {
	switch {
	case len(args) != 1:
		return usage(fmt.Errorf("%d models are given, calibrate takes one", len(args)), "--merge joins statistics files")
	case f.data == "":
		return usage(errors.New("--data is missing"), "give a data recipe, or random:N for made-up inputs")
	case f.samples < 0:
		return usage(fmt.Errorf("--samples %d is negative", f.samples), "0 takes all samples")
	case f.threads < 0:
		return usage(fmt.Errorf("--threads %d is negative", f.threads), "0 takes all cores")
	}
	output, err := outputPath(f.output, args[0], statisticsEnding, f.force)
	if err != nil {
		return err
	}
	c, err := newCalibration(args[0], f.patterns, f.threads)
	if err != nil {
		return err
	}
	defer c.close()
	s, err := c.gather(ctx, con, f.data, calib.Options{Limit: f.samples, Seed: f.seed})
	if err != nil {
		return err
	}
	c.close() // the model is not needed to write
	if names := s.Unreached(); len(names) > 0 && !f.allowUnreached {
		return withCode(exitUsage, fmt.Errorf("the data never reached %d weights: %s", len(names), strings.Join(names, ", ")),
			"give data that does, --exclude them, or pass --allow-unreached: quantize then rounds them to nearest")
	}
	return f.write(r, s, output)
}

// join merges statistics files.
func (f *calibrateFlags) join(r *calibrateReport, args []string) error {
	switch {
	case f.output == "":
		return usage(errors.New("--merge needs -o"), "name the file to write")
	case f.data != "":
		return usage(errors.New("--merge and --data are both given"), "leave one of them out")
	case len(args) < 2:
		return usage(errors.New("--merge needs two files or more"), "list them")
	}
	output, err := outputPath(f.output, args[0], statisticsEnding, f.force)
	if err != nil {
		return err
	}
	var parts []*calib.Statistics
	for _, path := range args {
		file, err := openStatistics(path)
		if err != nil {
			return err
		}
		defer file.Close()
		parts = append(parts, &file.Statistics)
	}
	merged, err := calib.Merge(parts...)
	if err != nil {
		return usage(err, "only runs of the same model can be merged")
	}
	merged.Program = version
	return f.write(r, merged, output)
}

// openStatistics opens a statistics file that a user named.
func openStatistics(path string) (*calib.StatisticsFile, error) {
	file, err := calib.OpenStatistics(path)
	if err != nil {
		return nil, usage(err, "give a file that `cosetq calibrate` wrote")
	}
	for _, o := range file.Observations {
		if err := file.Verify(o); err != nil {
			_ = file.Close()
			return nil, usage(err, "make it anew with `cosetq calibrate`")
		}
	}
	return file, nil
}

func (f *calibrateFlags) write(r *calibrateReport, s *calib.Statistics, output string) error {
	size, err := s.Save(output, f.force)
	if err != nil {
		return err
	}
	r.Output, r.Bytes, r.Fingerprint, r.Data, r.Observations = output, size, s.Fingerprint, s.Data, len(s.Observations)
	for _, o := range s.Observations {
		r.Weights += len(o.Weights)
		r.BadRows += o.BadRows
	}
	r.Covered = r.Weights - len(s.Unreached())
	return nil
}

func printCalibrate(con *console, r *calibrateReport) {
	samples := 0
	for _, d := range r.Data {
		samples += d.Samples
		if d.Random {
			con.logf("note: data was made up (%s)", d.Recipe)
		}
	}
	if r.BadRows > 0 {
		con.logf("warning: %d rows of activations held NaN or infinity and were left out", r.BadRows)
	}
	fmt.Fprintf(con.out, "%d samples   %d/%d weights covered   peak memory %s   %.1f s   -> %s (%s)\n",
		samples, r.Covered, r.Weights, megabytes(r.PeakRSS), r.Seconds, r.Output, megabytes(r.Bytes))
}
