package cosetq_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// expertModel writes a layer of experts: up [3, 128, 160] and down [3, 160, 128], each with its own tokens.
func expertModel(t *testing.T, path string) {
	t.Helper()
	const experts, k, n = 3, 128, 160
	rng := rand.New(rand.NewPCG(1, 2))
	m := onnx.NewModel(8, 17, "experts")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, experts, "tokens", k)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, experts, "tokens", k)}
	for name, dims := range map[string][]int64{"up": {experts, k, n}, "down": {experts, n, k}} {
		v := make([]float32, experts*k*n)
		for i := range v {
			v[i] = float32(rng.NormFloat64()) / 12
		}
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor(name, dims, v))
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "up"}, []string{"wide"}), onnx.NewNode("Relu", []string{"wide"}, []string{"act"}),
		onnx.NewNode("MatMul", []string{"act", "down"}, []string{"y"}),
	}
	m.Graph.Nodes[0].Name, m.Graph.Nodes[2].Name = "experts/up", "experts/down"
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *onnx.Model {
	t.Helper()
	m, err := onnx.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// A model with experts goes all the way: foretold, coded with data in shares, compared, trained, and made plain again.
func TestExperts(t *testing.T) {
	session := runtime(t)
	const data = "random:4,tokens=9"
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	float, whole, shared, trained, plain := at("experts.onnx"), at("whole.onnx"), at("shared.onnx"), at("trained.onnx"), at("plain.onnx")
	expertModel(t, float)

	// One expert that is left out keeps its batch float, as the one node that it was.
	partly := cosetq.QuantizeOptions{Output: at("partly.onnx"), Bits: 4, Sites: rewrite.Options{Exclude: []string{"experts/up.1"}}}
	plan, err := cosetq.Plan(t.Context(), float, partly)
	if err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Quantize(t.Context(), float, partly)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Bytes != r.Bytes || len(r.Layers) != 6 || r.Coverage != 0.5 {
		t.Errorf("%d bytes planned, %d written; coverage %v of %d layers", plan.Bytes, r.Bytes, r.Coverage, len(r.Layers))
	}
	untouched := func(path string) {
		before, after := open(t, float), open(t, path)
		if !onnx.Equal(before.Graph.Nodes[0], after.Graph.Nodes[0]) || after.Graph.Initializer("up") == nil || after.Graph.Initializer("down") != nil {
			t.Errorf("%s: the first node has become %+v", path, after.Graph.Nodes[0])
		}
	}
	untouched(partly.Output)

	statistics := at("experts.cqs")
	if _, err := cosetq.Calibrate(t.Context(), float, data, cosetq.CalibrateOptions{Output: statistics}); err != nil {
		t.Fatal(err)
	}
	o := cosetq.QuantizeOptions{Output: whole, Bits: 2, Statistics: statistics}
	if r, err = cosetq.Quantize(t.Context(), float, o); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Layers {
		if l.Method != cosetq.LDLQ || l.Status != "quantized" || l.Fallback != "" {
			t.Errorf("layer %+v", l)
		}
	}
	for i := range 2 {
		o := o
		o.Output, o.Shard = shared, cosetq.Shard{Index: i, Count: 2}
		if _, err := cosetq.Quantize(t.Context(), float, o); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cosetq.Merge(t.Context(), float, cosetq.MergeOptions{Output: shared}); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(whole + ".data")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.ReadFile(shared + ".data"); err != nil || !bytes.Equal(one, other) {
		t.Errorf("two shares give other bytes: %v", err)
	}

	c, err := cosetq.Compare(t.Context(), float, whole, cosetq.CompareOptions{Data: data, Top: 3, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Layers) != 6 || len(c.NotCompared) != 0 || len(c.Trials) != 2 {
		t.Errorf("%d layers compared, %v not, %d trials", len(c.Layers), c.NotCompared, len(c.Trials))
	}
	for _, trial := range c.Trials {
		if least := int64(3 * 128 * 160 * 3); trial.Bytes < least { // of the three experts
			t.Errorf("%s in float costs %d bytes, want more than %d", trial.Exclude, trial.Bytes, least)
		}
	}

	tuned := cosetq.FinetuneOptions{Data: "random:40,tokens=9", Output: trained}
	tuned.Train.Steps = 2
	if _, err := cosetq.Finetune(t.Context(), float, partly.Output, tuned); err != nil {
		t.Fatal(err)
	}
	untouched(trained)
	if _, err := cosetq.Export(t.Context(), trained, cosetq.ExportOptions{Output: plain, Format: rewrite.FP32}); err != nil {
		t.Fatal(err)
	}
	exported := open(t, plain)
	if n := exported.Graph.Nodes; len(n) != 3 || fmt.Sprint(exported.Graph.Initializer("up").Dims) != "[3 128 160]" || n[2].Name != "experts/down" {
		t.Errorf("exported as %d nodes, the last %+v", len(n), n[len(n)-1])
	}
	e, err := cosetq.Evaluate(t.Context(), eval.TaskAgreement, data, []string{plain, trained, float}, cosetq.EvaluateOptions{Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if db := e.Models[1].Metrics.(eval.Agreement).SQNR; db < 60 {
		t.Errorf("the export differs from the trained model by %v dB", db)
	}
	if db := e.Models[2].Metrics.(eval.Agreement).SQNR; db < 15 || db > 40 {
		t.Errorf("the trained model has %v dB", db)
	}
}

// A batch with a matrix that cannot be coded stays float: the codes of the others would come on top.
func TestBrokenExpert(t *testing.T) {
	dir := t.TempDir()
	float, output := filepath.Join(dir, "broken.onnx"), filepath.Join(dir, "q.onnx")
	expertModel(t, filepath.Join(dir, "experts.onnx"))
	m := open(t, filepath.Join(dir, "experts.onnx"))
	up, err := m.Graph.Initializer("up").Float32s()
	if err != nil {
		t.Fatal(err)
	}
	up[len(up)/2] = float32(math.NaN())
	*m.Graph.Initializer("up") = *onnx.NewTensor("up", m.Graph.Initializer("up").Dims, up)
	if _, err := m.Save(float, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Quantize(t.Context(), float, cosetq.QuantizeOptions{Output: output, Bits: 4})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, l := range r.Layers {
		reasons = append(reasons, l.Reason)
	}
	if want := []string{"shared-with-float", "non-finite", "shared-with-float", "", "", ""}; !slices.Equal(reasons, want) || r.Coverage != 0.5 {
		t.Errorf("reasons %q, coverage %v", reasons, r.Coverage)
	}
	if n := open(t, output).Graph.Nodes[0]; n.OpType != "MatMul" || n.Inputs[1] != "up" {
		t.Errorf("the first node is %+v", n)
	}
}
