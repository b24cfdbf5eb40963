package cosetq

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
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

// What runs in a Loop stays on the processor: sums of both are told together, bad rows too, also where the model is run in float32 first.
func TestCalibrateLoopOnDevice(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	t.Setenv(cudaops.EnvCUDALibrary, testenv.Provider(t))
	for _, float := range []onnx.DataType{onnx.Float, onnx.Float16} {
		dir := t.TempDir()
		x, data := tokenRows(t, dir, importanceSamples)
		x[5] = float32(math.Inf(1)) // the first row, in front of the loop and in it
		all := tensor.Of(x, importanceSamples, importanceTokens, importanceWidth)
		if err := tensor.SaveNPZ(filepath.Join(dir, "x.npz"), []tensor.Spec{{Name: "x"}}, map[string]*tensor.Tensor{"x": all}); err != nil {
			t.Fatal(err)
		}
		m := twin(t, float, float)
		g := m.Graph
		g.Nodes = g.Nodes[:3]
		info := func(name string) *onnx.ValueInfo {
			return onnx.NewValueInfo(name, float, "batch", importanceTokens, 2*importanceWidth)
		}
		square := make([]float32, 4*importanceWidth*importanceWidth)
		for i := range square {
			square[i] = float32(math.Sin(float64(i))) / 8
		}
		stored := onnx.NewTensor("square", []int64{2 * importanceWidth, 2 * importanceWidth}, square)
		if float == onnx.Float16 {
			stored = onnx.NewFloat16Tensor("square", stored.Dims, square)
		}
		g.Initializers = append(g.Initializers, stored, onnx.NewTensor("three", nil, []int64{3}), onnx.NewTensor("true", nil, []bool{true}))
		body := &onnx.Graph{Name: "body",
			Inputs:  []*onnx.ValueInfo{onnx.NewValueInfo("i", onnx.Int64), onnx.NewValueInfo("go", onnx.Bool), info("state")},
			Nodes:   []*onnx.Node{onnx.NewNode("MatMul", []string{"state", "square"}, []string{"next"}), onnx.NewNode("Identity", []string{"go"}, []string{"go_on"})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("go_on", onnx.Bool), info("next")},
		}
		g.Nodes = append(g.Nodes, onnx.NewNode("Loop", []string{"three", "true", "cast"}, []string{"last"}, onnx.GraphAttr("body", body)))
		g.Outputs = []*onnx.ValueInfo{info("last")}
		var found [2]*calib.StatisticsFile
		for i, device := range []string{"cpu", CUDA} {
			r, s := learn(t, m, data, device)
			if len(r.Notes) != 1 {
				t.Errorf("%v, %s: notes %q", float, device, r.Notes)
			}
			found[i] = s
		}
		want, got := found[0].Observations, found[1].Observations
		if len(want) != 2 || len(got) != 2 {
			t.Fatalf("%v: %d and %d activations", float, len(want), len(got))
		}
		for i := range want {
			sameStatistics(t, got[i], want[i])
			if got[i].BadRows != want[i].BadRows || want[i].BadRows == 0 {
				t.Errorf("%v: %q: %d bad rows, want %d", float, got[i].Tag, got[i].BadRows, want[i].BadRows)
			}
		}
	}
}
