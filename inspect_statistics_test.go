package cosetq

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

// weighted are the moments of a single row that weighs w.
type weighted struct {
	w float32
	x []float32
}

func (m weighted) Mean(dst []float32) error {
	for i, x := range m.x {
		dst[i] = m.w * x
	}
	return nil
}

func (m weighted) Rows(dst []float32, first, last int) error {
	for i := range last - first {
		dst[i] = m.w * m.x[first+i] * m.x[first+i]
	}
	return nil
}

// What a row weighs must not show in the figures of the activation.
func TestInspectedFiguresAreOfTheActivation(t *testing.T) {
	for _, w := range []float32{1, 0.25, 1000} {
		o := &calib.Observation{Tag: "a", Columns: 2, Rows: 1, Weight: float64(w), Moments: weighted{w, []float32{1, -3}}}
		r, err := observationOf(o)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Mean+1) > 1e-6 || math.Abs(r.RMS-math.Sqrt(5)) > 1e-6 || math.Abs(r.Peak-1.8) > 1e-6 {
			t.Errorf("weight %v: mean %v, rms %v, peak %v; want -1, 2.236, 1.8", w, r.Mean, r.RMS, r.Peak)
		}
	}
}

// A statistics file that was cut off is one that calibrate wrote: what helps is another copy.
func TestDamagedStatisticsHint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cut.cqs")
	s := &calib.Statistics{Model: "m.onnx", Fingerprint: "cqs1:0", Observations: []*calib.Observation{
		{Tag: "a", Activation: "a", Weights: []string{"w"}, Columns: 2, Rows: 1, Weight: 1, Moments: weighted{1, []float32{1, -3}}}}}
	size, err := s.Save(path, false)
	if err == nil {
		err = os.Truncate(path, size-8)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenStatistics(path)
	if kind, hint := Classify(err); kind != Usage || !strings.Contains(hint, "copy it again") {
		t.Errorf("%v: kind %d, hint %q", err, kind, hint)
	}
}
