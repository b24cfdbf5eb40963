package cosetq_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// runtime lets the tests find ONNX Runtime and the native library, and skips them where those are missing.
func runtime(t *testing.T) ort.SessionOptions {
	t.Helper()
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	t.Setenv(testenv.EnvOps, testenv.Ops(t))
	return ort.SessionOptions{OpsLibrary: testenv.Ops(t), Threads: 1}
}

// digits writes the project's own model with its data, and a form of it that is coarse in the named layer only.
func digits(t *testing.T, coarse string) (files models.QuickstartFiles, quantized string) {
	t.Helper()
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Open(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		bits := 4
		if s.Name == coarse {
			bits = 2
		}
		codec, err := lattice.Preset(bits)
		if err != nil {
			t.Fatal(err)
		}
		res, err := quant.Quantize(t.Context(), s.Weight, quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: res.Matrix})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	quantized = filepath.Join(dir, "q.onnx")
	if _, err := m.Save(quantized, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return files, quantized
}

// Nodes need no names to be compared.
func TestCompareNameless(t *testing.T) {
	runtime(t)
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Open(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, n := range m.Graph.Nodes {
		n.Name = ""
	}
	dir := t.TempDir()
	float, quantized := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "q.onnx")
	if _, err := m.Save(float, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cosetq.Quantize(t.Context(), float, cosetq.QuantizeOptions{Output: quantized, Bits: 2}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Compare(t.Context(), float, quantized, cosetq.CompareOptions{Data: "random:2"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Layers) == 0 || len(r.NotCompared) != 0 {
		t.Errorf("%d layers compared, %v not", len(r.Layers), r.NotCompared)
	}
}

// The layer that was coded worse than the others is found by every means.
func TestCompareFindsTheCoarseLayer(t *testing.T) {
	session := runtime(t)
	const coarse = "fc2"
	files, quantized := digits(t, coarse)
	r, err := cosetq.Compare(t.Context(), files.Model, quantized, cosetq.CompareOptions{
		Data: files.Data, Samples: 8, Top: 3, Bisect: true, MinSQNR: 20, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Layers) != 3 {
		t.Fatalf("%d layers, want 3", len(r.Layers))
	}
	for i, l := range r.Layers {
		if bad := l.Node == coarse; bad != (l.Local < 18) {
			t.Errorf("%s: local SQNR %.1f dB", l.Node, l.Local)
		}
		codec, err := lattice.ParseCodec(l.Codec)
		if err != nil {
			t.Fatal(err)
		}
		// A codebook that no other layer reads counts as well, and the exponent has no tensor.
		if planned := quant.PlannedBytes(codec, l.N, l.K) - 1; l.Bytes != planned && l.Bytes != planned+int64(len(quant.LayoutOf(codec).Codebook)) {
			t.Errorf("%s: %d bytes instead of %d", l.Node, l.Bytes, planned)
		}
		if i == 0 && math.Abs(float64(l.Local-l.SQNR)) > 1e-3 {
			t.Errorf("the first layer reads the same in both models, but its SQNR is %v alone and %v in the model", l.Local, l.SQNR)
		}
	}
	if r.Bisect == nil || r.Bisect.First != coarse || float64(r.Bisect.Before) < 20 || float64(r.Bisect.After) >= 20 {
		t.Errorf("bisect: %+v", r.Bisect)
	}
	if len(r.Trials) != 3 || r.Trials[0].Node != coarse || r.Trials[0].Gain < 3 {
		t.Errorf("trials: %+v", r.Trials)
	}
	finer := r.Trials[0].Finer
	if finer == nil || finer.Layer != "fc2=3" || finer.Gain < 1 || finer.Gain > r.Trials[0].Gain || finer.Bytes >= r.Trials[0].Bytes || r.Trials[1].Finer != nil {
		t.Errorf("with more bits: %+v of %+v", finer, r.Trials)
	} else {
		out := filepath.Join(t.TempDir(), "finer.onnx")
		if _, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: out, Layers: []string{finer.Layer}}); err != nil {
			t.Fatal(err)
		}
		again, err := cosetq.Compare(t.Context(), files.Model, out, cosetq.CompareOptions{Data: files.Data, Samples: 8, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		if d := float64(again.Output.SQNR - finer.SQNR); math.Abs(d) > 0.1 {
			t.Errorf("--layer %s gives %.2f dB, %.2f were promised", finer.Layer, again.Output.SQNR, finer.SQNR)
		}
	}
	// Excluding it really gives what was promised.
	out := filepath.Join(t.TempDir(), "without.onnx")
	if _, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: out, Sites: rewrite.Options{Exclude: []string{r.Trials[0].Exclude}}}); err != nil {
		t.Fatal(err)
	}
	again, err := cosetq.Compare(t.Context(), files.Model, out, cosetq.CompareOptions{Data: files.Data, Samples: 8, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if d := float64(again.Output.SQNR - r.Trials[0].SQNR); math.Abs(d) > 0.1 {
		t.Errorf("excluding %s gives %.2f dB, %.2f were promised", coarse, again.Output.SQNR, r.Trials[0].SQNR)
	}
}

func TestCompareGate(t *testing.T) {
	session := runtime(t)
	files, quantized := digits(t, "fc2")
	_, err := cosetq.Compare(t.Context(), files.Model, quantized, cosetq.CompareOptions{Data: files.Data, Samples: 4, MinSQNR: 40, Session: session})
	var known *cosetq.Error
	if !errors.As(err, &known) || known.Kind != cosetq.Quality {
		t.Errorf("error %v, want one of kind Quality", err)
	}
	_, err = cosetq.Compare(t.Context(), files.Model, files.Model, cosetq.CompareOptions{Data: files.Data, Session: session})
	if !errors.As(err, &known) || known.Kind != cosetq.Usage {
		t.Errorf("a model against itself: error %v, want one of kind Usage", err)
	}
}

// A model that was exported again compares like the one it comes from: names of values are what layers are paired by.
func TestComparePlainExport(t *testing.T) {
	session := runtime(t)
	files, quantized := digits(t, "fc2")
	plain := filepath.Join(t.TempDir(), "plain.onnx")
	if _, err := cosetq.Export(t.Context(), quantized, cosetq.ExportOptions{Output: plain}); err != nil {
		t.Fatal(err)
	}
	var sqnr []float64
	for _, path := range []string{quantized, plain} {
		r, err := cosetq.Compare(t.Context(), files.Model, path, cosetq.CompareOptions{Data: files.Data, Samples: 4, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Layers) != 3 {
			t.Fatalf("%s: %d layers", path, len(r.Layers))
		}
		sqnr = append(sqnr, float64(r.Layers[1].Local), float64(r.Output.SQNR))
	}
	if math.Abs(sqnr[0]-sqnr[2]) > 0.3 || math.Abs(sqnr[1]-sqnr[3]) > 0.3 {
		t.Errorf("quantized %v, exported %v", sqnr[:2], sqnr[2:])
	}
}

// Layers whose values are not finite are reported: JSON has null for what it cannot hold.
func TestComparedLayerNotFinite(t *testing.T) {
	nan := math.NaN()
	text, err := json.Marshal(cosetq.ComparedLayer{
		Local: eval.Decibels(nan), LocalCosine: eval.Number(nan), SQNR: eval.Decibels(nan), Cosine: eval.Number(nan), MaxAbsErr: eval.Number(math.Inf(1)),
	})
	if err != nil || strings.Count(string(text), "null") != 5 {
		t.Errorf("%v, %s", err, text)
	}
}

// What compare says of leaving out a layer, or giving it more bits, is what that does: layers that share a weight go together.
func TestCompareSharedWeight(t *testing.T) {
	session := runtime(t)
	for name, transB := range map[string]bool{"the same code": false, "codes of their own": true} {
		dir := t.TempDir()
		m := onnx.NewModel(8, 17, "shared")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 256)}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 256)}
		r, w := rand.New(rand.NewPCG(1, 2)), make([]float32, 256*256)
		for i := range w {
			w[i] = float32(r.NormFloat64()) / 16
		}
		other := slices.Clone(w)
		slices.Reverse(other)
		m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{256, 256}, w), onnx.NewTensor("v", []int64{256, 256}, other)}
		second := onnx.NewNode("MatMul", []string{"b", "w"}, []string{"y"})
		if transB {
			second = onnx.NewNode("Gemm", []string{"b", "w"}, []string{"y"})
			second.SetAttr(onnx.IntAttr("transB", 1))
		}
		m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"x", "w"}, []string{"a"}), onnx.NewNode("MatMul", []string{"a", "v"}, []string{"b"}), second}
		for i, n := range []string{"first", "between", "last"} {
			m.Graph.Nodes[i].Name = n
		}
		float, coarse, path := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "c.onnx"), filepath.Join(dir, "t.onnx")
		if _, err := m.Save(float, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		quantize := func(o cosetq.QuantizeOptions) int64 {
			t.Helper()
			r, err := cosetq.Quantize(t.Context(), float, o)
			if err != nil {
				t.Fatal(err)
			}
			return r.Bytes
		}
		bytes := quantize(cosetq.QuantizeOptions{Output: coarse, Bits: 2})
		c, err := cosetq.Compare(t.Context(), float, coarse, cosetq.CompareOptions{Data: "random:8", Top: 3, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Trials) != 2 {
			t.Fatalf("%s: %d trials of two weights: %+v", name, len(c.Trials), c.Trials)
		}
		check := func(what string, o cosetq.QuantizeOptions, bytesMore int64, want eval.Decibels) {
			t.Helper()
			o.Output, o.Bits, o.Overwrite = path, 2, true
			more := quantize(o) - bytes
			if d := more - bytesMore; d < -8192 || d > 8192 { // pages, and the names and the codebook of one more codec
				t.Errorf("%s: %s grows the file by %d bytes, said to be %d", name, what, more, bytesMore)
			}
			e, err := cosetq.Evaluate(t.Context(), eval.TaskAgreement, "random:8", []string{float, path}, cosetq.EvaluateOptions{Session: session})
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Models[1].Metrics.(eval.Agreement).SQNR; math.Abs(float64(got-want)) > 0.1 {
				t.Errorf("%s: with %s the outputs keep %.2f dB, said to be %.2f", name, what, got, want)
			}
		}
		for _, trial := range c.Trials {
			check("--exclude "+trial.Exclude, cosetq.QuantizeOptions{Sites: rewrite.Options{Exclude: []string{trial.Exclude}}}, trial.Bytes, trial.SQNR)
			check("--layer "+trial.Finer.Layer, cosetq.QuantizeOptions{Layers: []string{trial.Finer.Layer}}, trial.Finer.Bytes, trial.Finer.SQNR)
			if (trial.Node == "between") == (len(trial.With) > 0) {
				t.Errorf("%s: %s goes with %q", name, trial.Node, trial.With)
			}
		}
	}
}

// Models that have values of the same names, but are not one and its quantized form, are refused for what they are.
func TestCompareOtherModels(t *testing.T) {
	runtime(t)
	dir := t.TempDir()
	model := func(name, input string, hidden int64) string {
		t.Helper()
		m := onnx.NewModel(8, 17, "two layers")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo(input, onnx.Float, "batch", 64)}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)}
		m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{64, hidden}, make([]float32, 64*hidden)), onnx.NewTensor("v", []int64{hidden, 64}, make([]float32, 64*hidden))}
		m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{input, "w"}, []string{"h"}), onnx.NewNode("MatMul", []string{"h", "v"}, []string{"y"})}
		path := filepath.Join(dir, name+".onnx")
		if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	float := model("float", "x", 128)
	for other, want := range map[string]string{model("input", "z", 128): "inputs of the one are z", model("size", "x", 96): "96 rows in the one, 64 and 128"} {
		q := other + ".q"
		if _, err := cosetq.Quantize(t.Context(), other, cosetq.QuantizeOptions{Output: q}); err != nil {
			t.Fatal(err)
		}
		_, err := cosetq.Compare(t.Context(), float, q, cosetq.CompareOptions{Data: "random:2"})
		if kind, _ := cosetq.Classify(err); kind != cosetq.Usage || !strings.Contains(err.Error(), "was not made from") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v of kind %d", other, err, kind)
		}
	}
}
