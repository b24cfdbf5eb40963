package rewrite_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// twoLayers is y = relu(x·w1 + b1)·w2, and a product of y with a weight that is too small to code.
func twoLayers() *onnx.Model {
	rng := rand.New(rand.NewPCG(70, 71))
	return newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
		Initializers: []*onnx.Tensor{floats("w1", []int64{64, 48}, normal(rng, 64*48)), floats("b1", []int64{48}, normal(rng, 48)),
			floats("w2", []int64{48, 40}, normal(rng, 48*40)), floats("small", []int64{40, 2}, normal(rng, 80))},
		Nodes: []*onnx.Node{
			node("fc1", "MatMul", []string{"x", "w1"}, []string{"p"}),
			node("add", "Add", []string{"p", "b1"}, []string{"h"}),
			node("relu", "Relu", []string{"h"}, []string{"r"}),
			node("fc2", "MatMul", []string{"r", "w2"}, []string{"y"}),
			node("last", "MatMul", []string{"y", "small"}, []string{"z"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, "batch", 2)},
	})
}

// What makes a layer is found again in the quantized model, can be put back into the float one, in its place or beside it, and looked at.
func TestGraft(t *testing.T) {
	coded := twoLayers()
	apply(t, coded)
	sites := find(t, twoLayers())
	picked, err := rewrite.Select(sites, "init:w*")
	if err != nil || !slices.Equal(picked, []int{0, 1}) {
		t.Fatalf("w* is at %v of the sites, %v", picked, err)
	}
	if _, err := rewrite.Select(sites, "init:w3"); err == nil || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("no layer has w3: %v", err)
	}

	if !sites[0].HasBias() || sites[1].HasBias() {
		t.Errorf("biases %v and %v, want one for the first layer alone", sites[0].HasBias(), sites[1].HasBias())
	}

	float := twoLayers()
	pairs := rewrite.PairLayers(float, find(t, float), coded)
	if len(pairs) != 2 || pairs[0].Output != "h" || pairs[0].Input != "x" || pairs[1].Output != "y" {
		t.Fatalf("pairs %+v: want the layers up to h, with its bias, and y", pairs)
	}
	var stored []string
	for _, x := range pairs[0].Tensors(coded, nil) {
		stored = append(stored, x.Name)
	}
	if pairs[0].Codec() != "d4:4,4:g2,3,4,6" || !slices.Contains(stored, "w1.codes") || slices.Contains(stored, "b1") || slices.Contains(stored, "codebook") {
		t.Errorf("the first layer, of codec %s, has %q to itself", pairs[0].Codec(), stored)
	}
	codedSites := find(t, coded)
	for i := range codedSites {
		if s := &codedSites[i]; s.Status == rewrite.Quantized != slices.ContainsFunc(pairs, func(p rewrite.Pair) bool { return p.Holds(s) }) {
			t.Errorf("%s, %s: in a pair?", s.Name, s.Status)
		}
	}

	beside, err := rewrite.Graft(float, coded, pairs[1:], true)
	if err != nil {
		t.Fatal(err)
	}
	rewrite.Tap(float, onnx.Float, "y", beside[0])
	rewrite.Tap(float, onnx.Float, "z") // an output already
	var outputs []string
	for _, o := range float.Graph.Outputs {
		outputs = append(outputs, o.Name)
	}
	if !slices.Equal(outputs, []string{"z", "y", beside[0]}) || count(float, "MatMul") != 3 || count(float, cudaops.OpName) != 1 {
		t.Errorf("outputs %q\n%s", outputs, dump(t, float))
	}
	wellFormed(t, float)

	float = twoLayers()
	if _, err := rewrite.Graft(float, coded, pairs[:1], false); err != nil {
		t.Fatal(err)
	}
	if count(float, "MatMul") != 2 || count(float, "Add") != 0 || float.Graph.Initializer("w1") != nil || float.Graph.Initializer("w2") == nil {
		t.Errorf("the first layer alone was to be replaced\n%s", dump(t, float))
	}
	wellFormed(t, float)
}

// A weight that a Constant node holds is an initializer of the same name in what was exported: its layer has changed all the same.
func TestPairConstantNodes(t *testing.T) {
	constants := func() *onnx.Model {
		m := twoLayers()
		for _, w := range m.Graph.Initializers {
			n := node(w.Name, "Constant", nil, []string{w.Name}, onnx.TensorAttr("value", w))
			m.Graph.Nodes = append([]*onnx.Node{n}, m.Graph.Nodes...)
		}
		m.Graph.Initializers = nil
		return m
	}
	float, plain := constants(), constants()
	apply(t, plain)
	if _, err := rewrite.Export(plain, rewrite.ExportOptions{Format: rewrite.FP32}); err != nil {
		t.Fatal(err)
	}
	if pairs := rewrite.PairLayers(float, find(t, float), constants()); len(pairs) != 0 {
		t.Errorf("of the same model %+v differ", pairs)
	}
	pairs := rewrite.PairLayers(float, find(t, float), plain)
	if len(pairs) != 2 || pairs[0].Output != "h" || pairs[1].Output != "y" {
		t.Fatalf("pairs %+v: want both layers", pairs)
	}
	if _, err := rewrite.Graft(float, plain, pairs, false); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, float)
	for _, n := range float.Graph.Nodes {
		if n.OpType == "MatMul" && n.Outputs[0] == "y" && float.Graph.Initializer(n.Inputs[1]) == nil {
			t.Errorf("y is still made with %s of the float model\n%s", n.Inputs[1], dump(t, float))
		}
	}
}

// A training takes the weights out, changes their codes and a bias, and puts both back.
func TestRecode(t *testing.T) {
	m := twoLayers()
	apply(t, m)
	graph := onnx.Clone(m)
	exposed, err := rewrite.Expose(graph)
	if err != nil {
		t.Fatal(err)
	}
	if len(exposed) != 2 || len(graph.Graph.Inputs) != 3 || count(graph, cudaops.OpName) != 0 {
		t.Fatalf("%+v\n%s", exposed, dump(t, graph))
	}
	wellFormed(t, graph)

	linears, err := rewrite.ReadLinears(m)
	if err != nil {
		t.Fatal(err)
	}
	l := linears[0]
	if l.Codes() != exposed[0].Codes || !sameMatrix(l.Matrix, exposed[0].Matrix) {
		t.Fatalf("codes %q and %q", l.Codes(), exposed[0].Codes)
	}
	changed := *l.Matrix
	changed.Codes = bytes.Clone(changed.Codes)
	changed.Codes[0]++
	if err := l.Recode(&changed); err != nil {
		t.Fatal(err)
	}
	bias := make([]float32, 48)
	bias[3] = 5
	if err := rewrite.SetFloats(m, l.Node.Inputs[6], bias); err != nil {
		t.Fatal(err)
	}
	m = reopen(t, m)
	again, err := rewrite.ReadLinear(m, m.Graph.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	if !sameMatrix(again.Matrix, &changed) || sameMatrix(again.Matrix, exposed[0].Matrix) || !slices.Equal(again.Bias, bias) {
		t.Errorf("read again: bias %v, or other codes than were put there", again.Bias)
	}

	other, _ := onGrid(t, rand.New(rand.NewPCG(1, 1)), "d4:4", l.Matrix.N, l.Matrix.K)
	if err := l.Recode(other); err == nil || !strings.Contains(err.Error(), "more than codes and scales") {
		t.Errorf("codes of another codec: %v", err)
	}
	for _, name := range []string{"nothing", l.Codes()} {
		if err := rewrite.SetFloats(m, name, bias); err == nil {
			t.Errorf("numbers for %q: no error", name)
		}
	}
	if err := rewrite.SetFloats(m, l.Node.Inputs[6], bias[1:]); err == nil {
		t.Error("47 numbers for 48: no error")
	}
}

// Models that weigh rows: by gradients that they compute, or alike.
func TestObserveWeighted(t *testing.T) {
	inputs := func(m *onnx.Model) (list [][]string) {
		for _, n := range m.Graph.Nodes {
			if n.OpType == cudaops.ObserveName {
				list = append(list, append([]string{n.Str(cudaops.AttrTag, ""), n.Str(cudaops.AttrMode, "")}, n.Inputs...))
			}
		}
		slices.SortFunc(list, slices.Compare)
		return list
	}
	m := twoLayers()
	list := slices.DeleteFunc(rewrite.Observations(find(t, m)), func(o rewrite.Observation) bool { return len(o.Weights) == 0 })
	// The gradients of both layers, which a real model computes.
	m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo("dh", onnx.Float, "batch", 48), onnx.NewValueInfo("dy", onnx.Float, "batch", 40))
	gradients, err := rewrite.ObserveGradients(m, list, [][]string{{"dh"}, {"dy"}})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"gradient of w1", "full", "dh", "x"}, {"gradient of w2", "full", "dy", "r"}, {"r", "full", "r", "dy"}, {"x", "full", "x", "dh"},
	}
	if got := inputs(m); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("observed: %q, want %q", got, want)
	}
	if len(gradients) != 2 || gradients[1].Tag != "gradient of w2" || gradients[1].Columns != 40 {
		t.Errorf("gradients %+v", gradients)
	}
	wellFormed(t, m)

	m = twoLayers()
	rewrite.ObserveAlike(m, list)
	if got := inputs(m); !slices.EqualFunc(got, [][]string{{"r", "full", "r"}, {"x", "full", "x"}}, slices.Equal) {
		t.Errorf("alike: %q", got)
	}
	for _, n := range m.Graph.Nodes {
		if n.OpType == cudaops.ObserveName && n.Int(cudaops.AttrAlike, 0) != 1 {
			t.Errorf("%s counts rows as they are", n.Name)
		}
	}
	if len(m.Graph.Outputs) != 2 || count(m, "MatMul") != 1 {
		t.Errorf("want a count for each, and nothing that only the former output needs\n%s", dump(t, m))
	}
	wellFormed(t, m)
}
