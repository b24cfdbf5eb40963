package rewrite_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// local is a function of a domain of modules, as exporters of PyTorch make them.
func local(name string, inputs, outputs []string, nodes ...*onnx.Node) *onnx.Function {
	f := &onnx.Function{Domain: "modules", Name: name, Inputs: inputs, Outputs: outputs, Nodes: nodes}
	f.SetOpset("", 17)
	f.SetOpset("modules", 1)
	return f
}

func module(name, of string, inputs, outputs []string, attrs ...*onnx.Attribute) *onnx.Node {
	n := node(name, of, inputs, outputs, attrs...)
	n.Domain = "modules"
	return n
}

// TestInlineLayers codes the weights that calls of a function give it, inside another one and inside a graph as well.
func TestInlineLayers(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(92, 93))
	const k, middle = 48, 32
	first, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", middle, k)
	second, v := onGrid(t, rng, "d4:4,4:g2,3,4,6", k, middle)
	third, u := onGrid(t, rng, "d4:4,4:g2,3,4,6", k, k)
	linear := local("Linear", []string{"in", "weight", "bias"}, []string{"out"},
		node("product", "MatMul", []string{"in", "weight"}, []string{"product"}), node("sum", "Add", []string{"product", "bias"}, []string{"sum"}),
		node("leak", "LeakyRelu", []string{"sum"}, []string{"out"}, onnx.RefAttr("alpha", "slope", onnx.AttrFloat)))
	linear.Attributes = []string{"slope"}
	block := local("Block", []string{"h", "w", "v", "b1", "b2"}, []string{"out"},
		module("up", "Linear", []string{"h", "w", "b1"}, []string{"t"}, onnx.FloatAttr("slope", 0.5)), module("down", "Linear", []string{"t", "v", "b2"}, []string{"out"}))
	activation := local("Activation", []string{"a"}, []string{"c"}, node("tanh", "Tanh", []string{"a"}, []string{"c"}))
	branch := func(n *onnx.Node) *onnx.Graph {
		return &onnx.Graph{Name: "branch", Nodes: []*onnx.Node{n}, Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, 2, k)}}
	}
	m := newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, k), onnx.NewValueInfo("yes", onnx.Bool)},
		Initializers: []*onnx.Tensor{
			floats("w", []int64{k, middle}, w.transposed()), floats("v", []int64{middle, k}, v.transposed()), floats("u", []int64{k, k}, u.transposed()), floats("b", []int64{k}, normal(rng, k)), floats("narrow", []int64{middle}, normal(rng, middle)),
		},
		Nodes: []*onnx.Node{
			module("block", "Block", []string{"x", "w", "v", "narrow", "b"}, []string{"h"}), module("act", "Activation", []string{"h"}, []string{"a"}),
			node("if", "If", []string{"yes"}, []string{"y"},
				onnx.GraphAttr("then_branch", branch(module("head", "Linear", []string{"a", "u", "b"}, []string{"z"}))),
				onnx.GraphAttr("else_branch", branch(node("negative", "Neg", []string{"a"}, []string{"z"})))),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, k)},
	})
	m.SetOpset("modules", 1)
	m.Functions = []*onnx.Function{linear, block, activation}
	before := onnx.Clone(m)
	if got := rewrite.InlineLayers(m); got != 4 {
		t.Errorf("%d calls replaced, want 4", got)
	}
	if len(m.Functions) != 1 || m.Functions[0] != activation {
		t.Errorf("left are %d functions, want the one without products", len(m.Functions))
	}
	var names []string
	for _, s := range find(t, m) {
		names = append(names, s.Name)
	}
	if want := []string{"block/up/product", "block/down/product", "head/product"}; !slices.Equal(names, want) {
		t.Errorf("sites %q, want %q", names, want)
	}
	for _, yes := range []bool{true, false} {
		inputs := map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 2*k), 2, k), "yes": tensor.Of([]bool{yes})}
		sameOutputs(t, before, m, inputs, 1e-6)
		coded := onnx.Clone(m)
		apply(t, coded, first, second, third)
		sameOutputs(t, before, coded, inputs, 1e-5)
	}
}

// TestInlineEmbedding takes a table that a call of a function gives it.
func TestInlineEmbedding(t *testing.T) {
	embed := local("Embedding", []string{"table", "ids"}, []string{"rows"}, node("look", "Gather", []string{"table", "ids"}, []string{"rows"}))
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, 2)},
		Initializers: []*onnx.Tensor{floats("table", []int64{100, 64}, make([]float32, 6400))},
		Nodes:        []*onnx.Node{module("words", "Embedding", []string{"table", "ids"}, []string{"y"})},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, 64)},
	})
	m.SetOpset("modules", 1)
	m.Functions = []*onnx.Function{embed}
	if got := rewrite.InlineLayers(m); got != 1 {
		t.Errorf("%d calls replaced, want 1", got)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(sites) != 1 || sites[0].Status != rewrite.Candidate || sites[0].Name != "words/look" {
		t.Errorf("sites %+v, want the table", sites)
	}
}

// TestInlineLayersLeaves what a runtime may have kernels for, and what decodes our own weights.
func TestInlineLayersLeaves(t *testing.T) {
	for _, domain := range []string{"com.microsoft", "ai.coset", ""} {
		f := local("Dense", []string{"a", "b"}, []string{"c"}, node("", "MatMul", []string{"a", "b"}, []string{"c"}))
		f.Domain = domain
		call := module("call", "Dense", []string{"x", "w"}, []string{"y"})
		call.Domain = domain
		m := newModel(8, 17, &onnx.Graph{Initializers: []*onnx.Tensor{floats("w", []int64{2, 2}, make([]float32, 4))}, Nodes: []*onnx.Node{call}})
		m.Functions = []*onnx.Function{f}
		if got := rewrite.InlineLayers(m); got != 0 || m.Graph.Nodes[0] != call {
			t.Errorf("a call of %q was replaced", domain)
		}
	}
}
