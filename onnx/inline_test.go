package onnx_test

import (
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
)

// function is one of a domain of its own, on operators of version 17.
func function(name string, inputs, outputs []string, nodes ...*onnx.Node) *onnx.Function {
	f := &onnx.Function{Name: name, Domain: "modules", Inputs: inputs, Outputs: outputs, Nodes: nodes}
	f.SetOpset("", 17)
	f.SetOpset("modules", 1)
	return f
}

func call(name, of string, inputs, outputs []string, attrs ...*onnx.Attribute) *onnx.Node {
	n := onnx.NewNode(of, inputs, outputs, attrs...)
	n.Domain, n.Name = "modules", name
	return n
}

// calling is a model of such nodes, from x to y.
func calling(functions []*onnx.Function, nodes ...*onnx.Node) *onnx.Model {
	m := onnx.NewModel(8, 17, "main")
	m.SetOpset("modules", 1)
	m.Functions = functions
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 2)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, 2)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{2, 2}, []float32{1, 2, 3, 4})}
	m.Graph.Nodes = nodes
	return m
}

// A function that calls another, with an attribute that is given and one that is not, and twice what is in it.
func ExampleModel_Inline() {
	scale := onnx.NewNode("LeakyRelu", []string{"product"}, []string{"out"}, onnx.RefAttr("alpha", "slope", onnx.AttrFloat))
	linear := function("Linear", []string{"in", "weight"}, []string{"out"}, onnx.NewNode("MatMul", []string{"in", "weight"}, []string{"product"}), scale)
	linear.Attributes = []string{"slope"}
	block := function("Block", []string{"h", "w"}, []string{"sum", "h"}, call("one", "Linear", []string{"h", "w"}, []string{"t"}, onnx.FloatAttr("slope", 0.5)),
		call("two", "Linear", []string{"t", "w"}, []string{"u"}), onnx.NewNode("Add", []string{"h", "u"}, []string{"sum"}))
	m := calling([]*onnx.Function{linear, block}, call("b", "Block", []string{"x", "w"}, []string{"y", "same"}))
	fmt.Println(m.Inline(func(*onnx.Function) bool { return true }), onnx.Check(m))
	if err := onnx.Fprint(os.Stdout, m); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 3 []
	// model ir=8 producer=""
	// import "" 17
	// import "modules" 1
	// graph "main"
	//   input  x tensor(float)[2,2]
	//   init   w float[2,2]
	//   b/one/product = MatMul(x, w)
	//   b/t = LeakyRelu(b/one/product) {alpha=0.5}
	//   b/two/product = MatMul(b/t, w)
	//   b/u = LeakyRelu(b/two/product)
	//   y = Add(x, b/u)
	//   same = Identity(x)
	//   output y tensor(float)[2,2]
}

func TestInline(t *testing.T) {
	all := func(*onnx.Function) bool { return true }
	branch := func(reads string) *onnx.Graph {
		return &onnx.Graph{
			Name: "branch", Nodes: []*onnx.Node{onnx.NewNode("MatMul", []string{reads, "once"}, []string{"t"}), onnx.NewNode("Neg", []string{"t"}, []string{"result"})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("result", onnx.Float, 2, 2)},
		}
	}
	conditional := function("Conditional", []string{"a", "b"}, []string{"c"},
		onnx.NewNode("Constant", nil, []string{"once"}, onnx.TensorAttr("value", onnx.NewTensor("", []int64{2, 2}, []float32{1, 0, 0, 1}))),
		onnx.NewNode("Constant", nil, []string{"yes"}, onnx.TensorAttr("value", onnx.NewTensor("", nil, []bool{true}))),
		onnx.NewNode("If", []string{"yes"}, []string{"c"}, onnx.GraphAttr("then_branch", branch("a")), onnx.GraphAttr("else_branch", branch("b"))))
	outdated := function("Outdated", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))
	outdated.SetOpset("", 16)
	foreign := function("Foreign", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))
	foreign.SetOpset("elsewhere", 3)
	newer := function("Newer", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))
	newer.SetOpset("elsewhere", 4)
	plain := function("Plain", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))
	loop := function("Loop", []string{"a"}, []string{"c"}, call("again", "Loop", []string{"a"}, []string{"c"}))
	withDefault := function("WithDefault", []string{"a"}, []string{"c"}, onnx.NewNode("LeakyRelu", []string{"a"}, []string{"c"}, onnx.RefAttr("alpha", "slope", onnx.AttrFloat)))
	withDefault.AttributeProtos = []*onnx.Attribute{onnx.FloatAttr("slope", 0.25)}
	inside := &onnx.Graph{Name: "g", Nodes: []*onnx.Node{call("p", "Plain", []string{"x"}, []string{"z"})}, Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, 2, 2)}}
	yes := onnx.NewNode("Constant", nil, []string{"yes"}, onnx.TensorAttr("value", onnx.NewTensor("", nil, []bool{true})))

	for name, test := range map[string]struct {
		functions []*onnx.Function
		nodes     []*onnx.Node
		calls     int
		has       []string // in what is printed
		left      int      // functions
	}{
		"graphs inside": {[]*onnx.Function{conditional}, []*onnx.Node{call("", "Conditional", []string{"x", "w"}, []string{"m"}), call("2", "Conditional", []string{"m", "w"}, []string{"y"})},
			2, []string{"m/t = MatMul(x, m/once)", "2/t = MatMul(w, 2/once)", "output 2/result"}, 0},
		"a call inside a graph": {[]*onnx.Function{plain}, []*onnx.Node{yes, onnx.NewNode("If", []string{"yes"}, []string{"y"}, onnx.GraphAttr("then_branch", inside), onnx.GraphAttr("else_branch", onnx.Clone(inside)))},
			2, []string{"z = Relu(x)"}, 0},
		"a default":       {[]*onnx.Function{withDefault}, []*onnx.Node{call("d", "WithDefault", []string{"x"}, []string{"y"})}, 1, []string{"y = LeakyRelu(x) {alpha=0.25}"}, 0},
		"another version": {[]*onnx.Function{outdated}, []*onnx.Node{call("o", "Outdated", []string{"x"}, []string{"y"})}, 0, []string{"y = modules.Outdated(x)"}, 1},
		"another domain":  {[]*onnx.Function{foreign}, []*onnx.Node{call("o", "Foreign", []string{"x"}, []string{"y"})}, 1, []string{`import "elsewhere" 3`}, 0},
		"another domain, two versions": {[]*onnx.Function{foreign, newer}, []*onnx.Node{call("o", "Foreign", []string{"x"}, []string{"z"}), call("n", "Newer", []string{"z"}, []string{"y"})},
			1, []string{`import "elsewhere" 3`, "y = modules.Newer(z)"}, 1},
		"calls itself":              {[]*onnx.Function{loop}, []*onnx.Node{call("l", "Loop", []string{"x"}, []string{"y"})}, 0, []string{"y = modules.Loop(x)"}, 1},
		"more inputs than it has":   {[]*onnx.Function{plain}, []*onnx.Node{call("p", "Plain", []string{"x", "w"}, []string{"y"})}, 0, []string{"y = modules.Plain(x, w)"}, 1},
		"a name that is taken":      {[]*onnx.Function{conditional}, []*onnx.Node{onnx.NewNode("Relu", []string{"x"}, []string{"c/once"}), call("c", "Conditional", []string{"c/once", "w"}, []string{"y"})}, 1, []string{"c/once_1 = Constant"}, 0},
		"one that nothing calls":    {[]*onnx.Function{plain}, []*onnx.Node{onnx.NewNode("Relu", []string{"x"}, []string{"y"})}, 0, nil, 1},
		"a missing input of a call": {[]*onnx.Function{conditional}, []*onnx.Node{call("c", "Conditional", []string{"x"}, []string{"y"})}, 1, []string{"c/t = MatMul(, c/once)"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := calling(test.functions, test.nodes...)
			m = onnx.Clone(m)
			if got := m.Inline(all); got != test.calls {
				t.Errorf("%d calls replaced, want %d", got, test.calls)
			}
			if len(m.Functions) != test.left {
				t.Errorf("%d functions left, want %d", len(m.Functions), test.left)
			}
			var text strings.Builder
			if err := onnx.Fprint(&text, m); err != nil {
				t.Fatal(err)
			}
			for _, want := range test.has {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no %q in\n%s", want, &text)
				}
			}
		})
	}
}

// Functions that call each other twice over sixty levels are few bytes and would be 2^60 nodes.
func TestInlineIsBounded(t *testing.T) {
	const levels = 60
	functions := []*onnx.Function{function("F0", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))}
	for i := range levels {
		f := fmt.Sprintf("F%d", i)
		functions = append(functions, function(fmt.Sprintf("F%d", i+1), []string{"a"}, []string{"c"}, call("l", f, []string{"a"}, []string{"b"}), call("r", f, []string{"b"}, []string{"c"})))
	}
	m := calling(functions, call("f", fmt.Sprintf("F%d", levels), []string{"x"}, []string{"y"}))
	m.Inline(func(*onnx.Function) bool { return true })
	if n := len(m.Graph.Nodes); n < 1000 || n > 1<<17 {
		t.Errorf("%d nodes", n)
	}
	if problems := onnx.Check(m); len(problems) > 0 {
		t.Errorf("not well formed: %v", problems[0])
	}
}

// A chain of functions, and one where each calls the next inside a graph, are long to follow and no more.
func TestInlineOfLongChains(t *testing.T) {
	const length = 50000
	chain := func(node func(callee string) *onnx.Node) *onnx.Model {
		functions := []*onnx.Function{function("F0", []string{"a"}, []string{"c"}, onnx.NewNode("Relu", []string{"a"}, []string{"c"}))}
		for i := range length {
			functions = append(functions, function(fmt.Sprintf("F%d", i+1), []string{"a"}, []string{"c"}, node(fmt.Sprintf("F%d", i))))
		}
		return calling(functions, call("f", fmt.Sprintf("F%d", length), []string{"x"}, []string{"y"}))
	}
	all := func(*onnx.Function) bool { return true }
	m := chain(func(callee string) *onnx.Node { return call("n", callee, []string{"a"}, []string{"c"}) })
	if got := m.Inline(all); got < 100 || len(m.Graph.Nodes) != 1 {
		t.Errorf("%d calls replaced, %d nodes left", got, len(m.Graph.Nodes))
	}
	m = chain(func(callee string) *onnx.Node {
		g := &onnx.Graph{Name: "g", Nodes: []*onnx.Node{call("", callee, []string{"a"}, []string{"z"})}, Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("z", onnx.Float, 2, 2)}}
		return onnx.NewNode("If", []string{"a"}, []string{"c"}, onnx.GraphAttr("then_branch", g))
	})
	m.Inline(all)
	if err := m.Walk(func(*onnx.Scope) error { return nil }); err != nil {
		t.Errorf("graphs lie too deep in each other: %v", err)
	}
}
