package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// calibrated calibrates a model in a process of its own, and returns what it found and the memory it took.
func calibrated(t *testing.T, model, data string, args ...string) (*calib.StatisticsFile, int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.cqs")
	report, _ := mustRun(t, append([]string{"calibrate", model, "--data", data, "-o", path}, args...)...)
	f, err := calib.OpenStatistics(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, int64(report["peak_rss_bytes"].(float64))
}

// tap runs the float model with the observed activations as outputs, and gives their rows, all samples one after the other.
func tap(t *testing.T, model, data string, samples int) map[string][]float32 {
	t.Helper()
	m, err := onnx.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	inputs, _, err := ort.Signature(m)
	if err != nil {
		t.Fatal(err)
	}
	m.Graph.Outputs = nil
	for _, o := range rewrite.Observations(sites) {
		name := o.Activation + ".tapped" // an input of the model cannot be its output
		m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Identity", []string{o.Activation}, []string{name}))
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(name, onnx.Float, onnx.UnknownRank))
	}
	path := filepath.Join(t.TempDir(), "tapped.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(path, ort.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reader, err := calib.Open(data, inputs, calib.Options{Limit: samples})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	rows := map[string][]float32{}
	for i := range reader.Len() {
		sample, err := reader.Sample(i)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(context.Background(), sample.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range out {
			x, err := tensor.View[float32](v)
			if err != nil {
				t.Fatal(err)
			}
			rows[strings.TrimSuffix(name, ".tapped")] = append(rows[strings.TrimSuffix(name, ".tapped")], x...)
		}
	}
	return rows
}

// The statistics of the digits network are those of its activations, computed here in double precision.
func TestCalibrateDigits(t *testing.T) {
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const samples = 37
	f, _ := calibrated(t, files.Model, files.Calib, "--samples", "37")
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	activations := tap(t, files.Model, files.Calib, samples)
	if len(f.Observations) != len(activations) {
		t.Fatalf("%d observations, want %d", len(f.Observations), len(activations))
	}
	for _, o := range f.Observations {
		rows := activations[o.Activation]
		if o.Rows != samples || len(rows) != samples*o.Columns {
			t.Fatalf("%s: %d rows, want %d", o.Tag, o.Rows, samples)
		}
		if o.Damping <= 0 {
			t.Errorf("%s: no damping", o.Tag)
		}
		h, err := o.Matrix()
		if err != nil {
			t.Fatal(err)
		}
		mean, err := o.Mean()
		if err != nil {
			t.Fatal(err)
		}
		largest, worst := 0.0, 0.0
		for i := range o.Columns {
			var sum float64
			for r := range samples {
				sum += float64(rows[r*o.Columns+i]) / samples
			}
			if math.Abs(sum-mean[i]) > 1e-5 {
				t.Errorf("%s: mean %d is %v, want %v", o.Tag, i, mean[i], sum)
			}
			for j := range o.Columns {
				var want float64
				for r := range samples {
					want += float64(rows[r*o.Columns+i]) * float64(rows[r*o.Columns+j]) / samples
				}
				largest = max(largest, want)
				worst = max(worst, math.Abs(want-h[i*o.Columns+j]))
			}
		}
		if worst > 1e-5*largest {
			t.Errorf("%s: moments differ by %.2g of the largest", o.Tag, worst/largest)
		}
	}
}

// Two halves merged are one run over both, to the rounding of float32.
func TestCalibrateHalvesMerge(t *testing.T) {
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	set, err := models.CalibSet()
	if err != nil {
		t.Fatal(err)
	}
	const half = 20
	part := func(name string, first, last int) string {
		idx := []byte{0, 0, 8, 3, 0, 0, 0, byte(last - first), 0, 0, 0, models.Side, 0, 0, 0, models.Side}
		for i := first; i < last; i++ {
			idx = append(idx, set.Image(i)...)
		}
		recipe := filepath.Join(dir, name+".yaml")
		for path, content := range map[string][]byte{
			filepath.Join(dir, name+".idx"): idx,
			recipe:                          []byte("kind: idx\nimages: " + name + ".idx\npixel: {scale: 0.00392156862745098}\nshape: [-1, 784]\n"),
		} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return recipe
	}
	whole, _ := calibrated(t, files.Model, part("whole", 0, 2*half))
	a, _ := calibrated(t, files.Model, part("a", 0, half))
	b, _ := calibrated(t, files.Model, part("b", half, 2*half))
	path := filepath.Join(dir, "merged.cqs")
	mustRun(t, "calibrate", "--merge", a.Path, b.Path, "-o", path)
	merged, err := calib.OpenStatistics(path)
	if err != nil {
		t.Fatal(err)
	}
	defer merged.Close()
	for i, o := range merged.Observations {
		want := whole.Observations[i]
		if o.Tag != want.Tag || o.Rows != want.Rows || !slices.Equal(o.Weights, want.Weights) || o.Min != want.Min || o.Max != want.Max {
			t.Errorf("got %+v, want %+v", o, want)
		}
		got, err := o.Matrix()
		if err != nil {
			t.Fatal(err)
		}
		h, err := want.Matrix()
		if err != nil {
			t.Fatal(err)
		}
		largest := slices.Max(h)
		for j := range h {
			if math.Abs(got[j]-h[j]) > 1e-6*largest {
				t.Fatalf("%s: moment %d is %v, want %v", o.Tag, j, got[j], h[j])
			}
		}
	}
}

// Ten times the samples take no more memory.
func TestCalibrateMemoryIsFlat(t *testing.T) {
	model := filepath.Join(t.TempDir(), "m.onnx")
	if err := save(model, mlp(2048, 2048, 64), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	// In 1200 rows both halves fill a panel of 512, whose room fewer rows do not touch to its end. The peak of a short run depends on
	// how its threads meet; a long one sees them meet in every way.
	var few int64
	for range 4 {
		_, peak := calibrated(t, model, "random:1200", "--samples", "0")
		few = max(few, peak)
	}
	_, many := calibrated(t, model, "random:12000", "--samples", "0")
	t.Logf("peak memory %d with 1200 samples, %d with 12000", few, many)
	if many > few+few/20 {
		t.Errorf("12000 samples take %d bytes, 1200 take %d", many, few)
	}
}

// branched is a model of which one weight is reached only when a flag is set.
func branched() *onnx.Model {
	m := mlp(96, 64)
	g := m.Graph
	g.Initializers = append(g.Initializers, weight("rare", 64, 64))
	g.Inputs = append(g.Inputs, onnx.NewValueInfo("flag", onnx.Bool))
	branch := func(nodes ...*onnx.Node) *onnx.Graph {
		out := nodes[len(nodes)-1].Outputs[0]
		return &onnx.Graph{Name: out, Nodes: nodes, Outputs: []*onnx.ValueInfo{onnx.NewValueInfo(out, onnx.Float, "batch", 64)}}
	}
	g.Nodes = append(g.Nodes,
		onnx.NewNode("Not", []string{"flag"}, []string{"unset"}),
		onnx.NewNode("If", []string{"unset"}, []string{"z"},
			onnx.GraphAttr("then_branch", branch(onnx.NewNode("Tanh", []string{"y0"}, []string{"then"}), onnx.NewNode("MatMul", []string{"then", "rare"}, []string{"thenz"}))),
			onnx.GraphAttr("else_branch", branch(onnx.NewNode("Identity", []string{"y0"}, []string{"elsez"})))))
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, "batch", 64)}
	return m
}

// A weight that no sample reaches is an error that names it, unless it is allowed; quantize then falls back.
func TestCalibrateUnreachedWeights(t *testing.T) {
	dir := t.TempDir()
	model, statistics := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "s.cqs")
	if err := save(model, branched(), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	args := []string{"calibrate", model, "--data", "random:3", "-o", statistics}
	report, code, _ := program(t, args...)
	if code != exitUsage || !strings.Contains(report["error"].(map[string]any)["message"].(string), "rare") {
		t.Errorf("exit code %d: %v", code, report)
	}
	if _, err := os.Stat(statistics); err == nil {
		t.Error("a file was written all the same")
	}
	report, _ = mustRun(t, append(args, "--allow-unreached")...)
	if report["weights"] != 2.0 || report["covered"] != 1.0 {
		t.Errorf("got %v", report)
	}
	report, _ = mustRun(t, "quantize", model, "--calib", statistics, "-o", filepath.Join(dir, "q.onnx"))
	for _, l := range report["layers"].([]any) {
		layer := l.(map[string]any)
		if rare := layer["initializer"] == "rare"; (layer["fallback"] != nil) != rare || (layer["method"] == "rtn") != rare {
			t.Errorf("got %v", layer)
		}
	}
}

// A model with a batch of fixed size is fed whole batches of different samples only.
func TestCalibrateFixedBatch(t *testing.T) {
	m := mlp(96, 64)
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 4, 96)}
	model := filepath.Join(t.TempDir(), "m.onnx")
	if err := save(model, m, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	f, _ := calibrated(t, model, "random:3")
	if f.Observations[0].Rows == 0 {
		t.Error("no row was seen")
	}
}

// The weights stay in the file of the model, whose folder may be read-only, and in its external data.
func TestCalibrateLeavesTheModelAlone(t *testing.T) {
	for _, external := range []onnx.ExternalMode{onnx.ExternalNever, onnx.ExternalAlways} {
		dir := t.TempDir()
		model := filepath.Join(dir, "m.onnx")
		if err := save(model, mlp(256, 256, 64), onnx.SaveOptions{External: external}); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
		f, _ := calibrated(t, model, "random:16")
		if len(f.Observations) != 2 {
			t.Errorf("%d observations", len(f.Observations))
		}
		after, err := os.ReadDir(dir)
		if err != nil || len(after) != len(before) {
			t.Errorf("the folder holds %v, %v before", after, before)
		}
	}
}
