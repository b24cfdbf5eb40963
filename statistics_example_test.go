package cosetq_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
)

// alike are the moments of rows that are all x, of which only the squares are kept.
type alike []float32

func (x alike) Mean(dst []float32) error {
	copy(dst, x)
	return nil
}

func (x alike) Rows(dst []float32, first, _ int) error {
	for i := range dst {
		dst[i] = x[first+i] * x[first+i]
	}
	return nil
}

// Statistics of two runs over different data become one file, which says what is in it.
func ExampleMergeStatistics() {
	dir, err := os.MkdirTemp("", "cosetq-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// Calibrate writes such files; a program that has moments from elsewhere can, too.
	write := func(name string, rows int64, x ...float32) string {
		path := filepath.Join(dir, name)
		s := calib.Statistics{Model: "m.onnx", Fingerprint: "m", Data: []calib.DataUsed{{Recipe: name, Samples: int(rows)}},
			Observations: []*calib.Observation{{Tag: "x", Activation: "x", Weights: []string{"w"}, Columns: len(x),
				Rows: rows, Min: float64(x[0]), Max: float64(x[1]), Weight: 1, Moments: alike(x)}}}
		if _, err := s.Save(path, false); err != nil {
			log.Fatal(err)
		}
		return path
	}
	day, night := write("day.cqs", 30, 1, 3), write("night.cqs", 10, -3, 7)
	both := filepath.Join(dir, "both.cqs")
	merged, err := cosetq.MergeStatistics(both, false, day, night)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(merged.Observations, "activation of", merged.Weights, "weight, all covered:", merged.Covered == merged.Weights)

	r, err := cosetq.InspectStatistics(both)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range r.Observations {
		fmt.Printf("%s: %d rows between %v and %v, mean %v, rms %.3f, %s\n", o.Tag, o.Rows, o.Min, o.Max, o.Mean, o.RMS, o.Moments)
	}
	_, err = cosetq.MergeStatistics(both, false, day, night)
	fmt.Println("again:", errors.Is(err, fs.ErrExist))
	_, err = cosetq.MergeStatistics(filepath.Join(dir, "twice.cqs"), false, day, day)
	kind, hint := cosetq.Classify(err)
	fmt.Println("twice:", kind == cosetq.Usage, hint)
	// Output:
	// 1 activation of 1 weight, all covered: true
	// x: 40 rows between -3 and 7, mean 2, rms 3.317, diagonal
	// again: true
	// twice: true give the statistics of each run once
}
