package cosetq

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// On the device of the provider a calibration learns what it learns on the processor, gradients included, and all of it there.
func TestCalibrateOnDevice(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	t.Setenv(cudaops.EnvCUDALibrary, testenv.Provider(t))
	dir := t.TempDir()
	model := filepath.Join(dir, "m.onnx")
	m := oneToken()
	w := make([]float32, importanceWidth*importanceClasses)
	for i := range w {
		w[i] = float32(math.Sin(float64(i))) / 4 // no class is certain: gradients would be what rounding leaves
	}
	m.Graph.Initializers[0] = onnx.NewTensor("w", []int64{importanceWidth, importanceClasses}, w)
	m.Graph.Nodes = m.Graph.Nodes[:1] // every row is classified: some samples have gradients, others do not
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", importanceTokens, importanceClasses)}
	if _, err := m.Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, data := tokenRows(t, dir, 2*leastImportant)
	gather := func(device string, left int) *calib.Statistics {
		c, err := newCalibration(t.Context(), model, calibrationOptions{threads: 2, device: device})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		s, err := c.gather(t.Context(), data, calib.Options{}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if notes := c.notes(); len(notes) > 0 {
			t.Errorf("%s: %q", device, notes)
		}
		for i, o := range c.gathered {
			tags, err := o.Tags()
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 2, false: 0}[i == left]; len(tags) != want {
				t.Errorf("%s: library %d holds %q", device, i, tags)
			}
		}
		out := filepath.Join(dir, device+StatisticsEnding)
		if _, err := s.Save(out, false); err != nil {
			t.Fatal(err)
		}
		c.release() // what follows is read from the file
		file, err := OpenStatistics(out)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return &file.Statistics
	}
	want, got := gather("cpu", 0), gather(CUDA, 1)
	if len(want.Observations) != 1 || len(want.Gradients) != 1 || len(got.Gradients) != 1 || got.Draws != want.Draws {
		t.Fatalf("%d and %d gradients observed, %d and %d draws", len(got.Gradients), len(want.Gradients), got.Draws, want.Draws)
	}
	sameStatistics(t, got.Observations[0], want.Observations[0])
	sameStatistics(t, got.Gradients[0], want.Gradients[0])
}

func sameStatistics(t *testing.T, got, want *calib.Observation) {
	t.Helper()
	if got.Tag != want.Tag || got.Rows != want.Rows || got.Columns != want.Columns || got.Damping != want.Damping ||
		math.Abs(got.Weight/want.Weight-1) > 1e-5 || math.Abs(got.Min-want.Min) > 1e-5 || math.Abs(got.Max-want.Max) > 1e-5 {
		t.Errorf("%+v, want %+v", got, want)
	}
	size := want.Columns * (want.Columns + 1) / 2
	a, b := make([]float32, size), make([]float32, size)
	for o, into := range map[*calib.Observation][]float32{got: a, want: b} {
		if err := o.Moments.Rows(into, 0, o.Columns); err != nil {
			t.Fatal(err)
		}
	}
	var worst, largest float64
	for i := range a {
		worst, largest = max(worst, math.Abs(float64(a[i]-b[i]))), max(largest, math.Abs(float64(b[i])))
	}
	t.Logf("%s: off by %.1e of the largest moment", want.Tag, worst/largest)
	if !(worst <= 1e-5*largest) {
		t.Errorf("%s: a moment is off by %g, the largest is %g", want.Tag, worst, largest)
	}
}
