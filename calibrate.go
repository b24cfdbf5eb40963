package cosetq

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/rewrite"
)

// DefaultSamples is a good amount of data to calibrate on: more changes little.
const DefaultSamples = 128

// StatisticsEnding is the ending of statistics files.
const StatisticsEnding = ".cqs"

// CalibrateOptions say how to gather statistics.
type CalibrateOptions struct {
	Output    string // file to write; "" is the model's name ending in StatisticsEnding
	Overwrite bool   // replace the output if it exists

	Samples        int             // number of samples, 0 all
	Sites          rewrite.Options // for which weights
	AllowUnreached bool            // write the file even when the data never reaches some weights
	Seed           uint64          // of random data
	Threads        int             // 0 takes all cores; the statistics do not depend on it
	Device         string          // that the model runs on: "" or cpu, or [CUDA], where sums are rounded differently
	Shard          Shard           // unless zero, observe a share of the activations only; MergeStatistics joins all shares
	Progress       Progress        // may be nil
}

// CalibrateReport is the outcome of [Calibrate] or [MergeStatistics].
type CalibrateReport struct {
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
	Notes        []string         `json:"notes,omitempty"`
	Seconds      float64          `json:"seconds"`
	PeakRSS      int64            `json:"peak_rss_bytes"`
}

// Calibrate runs the float model at path model over data, a recipe or random:N, and writes the second moments of what its
// weights are multiplied by. Memory does not grow with the amount of data.
func Calibrate(ctx context.Context, model, data string, o CalibrateOptions) (*CalibrateReport, error) {
	start := time.Now()
	switch {
	case data == "":
		return nil, usage(errors.New("--data is missing"), "give a data recipe, or random:N for made-up inputs")
	case o.Samples < 0:
		return nil, usage(fmt.Errorf("--samples %d is negative", o.Samples), "0 takes all samples")
	}
	if err := checkThreads(o.Threads); err != nil {
		return nil, err
	}
	if err := checkDevice(o.Device); err != nil {
		return nil, err
	}
	output, err := OutputPath(o.Output, Reads{Models: []string{model}, Data: []string{data}}, StatisticsEnding, o.Overwrite)
	if err == nil {
		err = atomicfile.Check(output)
	}
	if err != nil {
		return nil, err
	}
	c, err := newCalibration(ctx, model, calibrationOptions{o.Sites, o.Shard, o.Threads, o.Device})
	if err != nil {
		return nil, err
	}
	defer c.release()
	defer c.close()
	s, err := c.gather(ctx, data, calib.Options{Limit: o.Samples, Seed: o.Seed}, filepath.Dir(output), o.Progress)
	if err != nil {
		return nil, err
	}
	c.close() // the model is not needed to write
	if names := s.Unreached(); len(names) > 0 && !o.AllowUnreached {
		return nil, usage(fmt.Errorf("the data never reached %d weights: %s", len(names), strings.Join(names, ", ")),
			"give data that does, --exclude them, or pass --allow-unreached: quantize then rounds them to nearest")
	}
	r := &CalibrateReport{Inputs: []string{model}, Output: output, Notes: c.notes()}
	return r, r.write(s, o.Overwrite, start)
}

// countedTwice notes data that is used more than once, as far as names and numbers tell: one of the files may hold another's.
func countedTwice(data []calib.DataUsed) (notes []string) {
	for i, d := range data {
		if slices.Index(data, d) < i {
			notes = append(notes, fmt.Sprintf("%d samples of %s are in more than one of the files; if they are the same, as where a merged file is merged again with one of its parts, they count twice",
				d.Samples, d.Recipe))
		}
	}
	return notes
}

// MergeStatistics joins the statistics files of several runs of the same model into a new one.
func MergeStatistics(output string, overwrite bool, inputs ...string) (*CalibrateReport, error) {
	start := time.Now()
	switch {
	case output == "":
		return nil, usage(errors.New("--merge needs -o"), "name the file to write")
	case len(inputs) < 2:
		return nil, usage(errors.New("--merge needs two files or more"), "list them")
	}
	output, err := OutputPath(output, Reads{Files: inputs}, StatisticsEnding, overwrite)
	if err == nil {
		err = atomicfile.Check(output)
	}
	if err != nil {
		return nil, err
	}
	var parts []*calib.Statistics
	for _, path := range inputs {
		file, err := OpenStatistics(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		parts = append(parts, &file.Statistics)
	}
	merged, err := calib.Merge(parts...)
	if twice := (*calib.TwiceError)(nil); errors.As(err, &twice) {
		return nil, usage(fmt.Errorf("%s and %s hold the same sums, whose data would count twice", inputs[twice.First], inputs[twice.Second]),
			"give the statistics of each run once")
	}
	if err != nil {
		return nil, usage(err, "only runs of the same model, gathered in the same way, can be merged; `cosetq calibrate` notes where it weighs all rows alike, and why")
	}
	merged.Program = Version()
	r := &CalibrateReport{Inputs: inputs, Output: output, Notes: countedTwice(merged.Data)}
	return r, r.write(merged, overwrite, start)
}

// OpenStatistics opens a statistics file and verifies all of it.
func OpenStatistics(path string) (*calib.StatisticsFile, error) {
	file, err := calib.OpenStatistics(path)
	switch {
	case errors.Is(err, calib.ErrCorrupt):
		return nil, usage(err, "copy it again, or make it anew with `cosetq calibrate`")
	case err != nil:
		return nil, usage(err, "give a file that `cosetq calibrate` wrote")
	}
	for _, o := range slices.Concat(file.Observations, file.Gradients) {
		if err := file.Verify(o); err != nil {
			_ = file.Close()
			return nil, usage(err, "make it anew with `cosetq calibrate`")
		}
	}
	return file, nil
}

// write saves the statistics and completes the report.
func (r *CalibrateReport) write(s *calib.Statistics, overwrite bool, start time.Time) error {
	size, err := s.Save(r.Output, overwrite)
	if err != nil {
		return err
	}
	r.Schema, r.Bytes, r.Fingerprint, r.Data, r.Observations = "cosetq/v1/calibrate", size, s.Fingerprint, s.Data, len(s.Observations)
	for _, o := range s.Observations {
		r.Weights += len(o.Weights)
		r.BadRows += o.BadRows
	}
	r.Covered = r.Weights - len(s.Unreached())
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), PeakRSS()
	return nil
}
