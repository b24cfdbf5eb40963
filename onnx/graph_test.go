package onnx

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestIndexScopes(t *testing.T) {
	m := tinyModel()
	x := NewIndex(m)
	if got := len(x.Scopes); got != 3 {
		t.Fatalf("%d scopes, want main, then, else", got)
	}
	main := x.GraphScope(m.Graph)
	then := x.GraphScope(m.Graph.Nodes[1].Attr("then_branch").G)
	if then == nil || then.Parent != main || then.Path != "graph/choice.then_branch" {
		t.Fatalf("then: %+v", then)
	}
	xw := x.Lookup(then, "xw")
	if xw == nil || xw.Scope != main || xw.Node.OpType != "MatMul" || len(xw.Uses) != 2 {
		t.Fatalf("xw: %+v", xw)
	}
	if u := xw.Uses[0]; u.Scope != then || u.Node.OpType != "Add" || u.Input != 0 {
		t.Errorf("first use of xw: %+v", u)
	}
	if w := x.Lookup(main, "W"); !w.IsConstant() || w.Initializer.Name != "W" {
		t.Errorf("W: %+v", w)
	}
	if in := x.Lookup(main, "x"); in.Input == nil || in.IsConstant() {
		t.Errorf("x: %+v", in)
	}
	if y := x.Lookup(main, "y"); len(y.Uses) != 1 || y.Uses[0].Node != nil {
		t.Errorf("y is read by %+v, want the output of the graph", y.Uses)
	}
	if x.Lookup(main, "then_y") != nil {
		t.Error("the main graph sees into the branch")
	}
	if got := x.Undefined(); len(got) != 0 {
		t.Errorf("undefined: %+v", got)
	}

	// A name defined in the branch hides the outer one there.
	g := then.Graph
	g.Initializers = []*Tensor{NewTensor("b", []int64{2}, []float32{0, 0})}
	x = NewIndex(m)
	then = x.GraphScope(g)
	if b := x.Lookup(then, "b"); b.Scope != then || len(b.Uses) != 1 {
		t.Errorf("inner b: %+v", b)
	}
	if b := x.Lookup(then.Parent, "b"); b.Scope != then.Parent || len(b.Uses) != 1 {
		t.Errorf("outer b: %+v", b)
	}
	if got := m.Graph.Nodes[1].Captures(); !slices.Equal(got, []string{"xw", "b"}) {
		t.Errorf("the If captures %q", got)
	}
}

func TestFunctionsAreScopes(t *testing.T) {
	m := functionModel()
	for _, p := range Check(m) {
		t.Error(p)
	}
	x := NewIndex(m)
	s := x.FunctionScope(m.Functions[0])
	if s == nil || s.Path != "function my.domain::Scale" {
		t.Fatalf("scope %+v", s)
	}
	if v := x.Lookup(s, "X"); v == nil || !v.Param || len(v.Uses) != 1 {
		t.Errorf("X: %+v", v)
	}
	if m.FindFunction(m.Graph.Nodes[0]) != m.Functions[0] {
		t.Error("the function of the node is not found")
	}
	f := m.Functions[0]
	f.SetOpset("my.other", 3)
	if v, ok := f.Opset("my.other"); v != 3 || !ok {
		t.Errorf("the function imports my.other %d, %v", v, ok)
	}
	if _, ok := m.Opset("my.other"); ok {
		t.Error("the model imports what the function does")
	}
	if m.FindFunction(NewNode("Scale", nil, nil)) != nil {
		t.Error("a function of another domain is found")
	}
}

// functionModel calls a function whose factor is an attribute.
func functionModel() *Model {
	m := NewModel(8, 17, "main")
	m.SetOpset("my.domain", 1)
	m.Graph.Inputs = []*ValueInfo{NewValueInfo("x", Float, 2)}
	m.Graph.Outputs = []*ValueInfo{NewValueInfo("y", Float, 2)}
	call := NewNode("Scale", []string{"x"}, []string{"y"}, FloatAttr("factor", 2))
	call.Domain = "my.domain"
	m.Graph.Nodes = []*Node{call}
	f := &Function{Domain: "my.domain", Name: "Scale", Inputs: []string{"X"}, Outputs: []string{"Y"}, Attributes: []string{"factor"}}
	f.SetOpset("", 17)
	f.Nodes = []*Node{
		NewNode("Constant", nil, []string{"c"}, RefAttr("value_float", "factor", AttrFloat)),
		NewNode("Mul", []string{"X", "c"}, []string{"Y"}),
	}
	m.Functions = []*Function{f}
	return m
}

func TestNames(t *testing.T) {
	m := tinyModel()
	n := NewNames(m)
	for _, tt := range [][2]string{{"xw", "xw_1"}, {"xw", "xw_2"}, {"fresh", "fresh"}, {"fresh", "fresh_1"}, {"mm", "mm_1"},
		{"then_y", "then_y_1"}, {"W", "W_1"}, {"", "_1"}} {
		if got := n.Unique(tt[0]); got != tt[1] {
			t.Errorf("Unique(%q) = %q, want %q", tt[0], got, tt[1])
		}
	}
	if !NewNames(functionModel()).Has("c") {
		t.Error("a name inside a function is free")
	}
}

func TestSort(t *testing.T) {
	m := tinyModel()
	slices.Reverse(m.Graph.Nodes) // the If reads xw only through its branches
	if err := m.CheckOrder(); !errors.Is(err, ErrOrder) || !strings.Contains(err.Error(), `"xw"`) {
		t.Errorf("CheckOrder: %v", err)
	}
	if err := m.Scopes()[0].Sort(); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckOrder(); err != nil {
		t.Error(err)
	}
	// Sorting keeps an order that is fine.
	a, b, c := NewNode("A", nil, []string{"a"}), NewNode("B", nil, []string{"b"}), NewNode("C", []string{"b", "a"}, []string{"c"})
	s := &Scope{Graph: &Graph{Nodes: []*Node{a, b, c}}}
	if err := s.Sort(); err != nil || !slices.Equal(s.Nodes(), []*Node{a, b, c}) {
		t.Errorf("sorted to %v, %v", s.Nodes(), err)
	}
}

func TestCheckFinds(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Model)
		want error
		says string
	}{
		{"cycle", func(m *Model) { m.Graph.Nodes[0].Inputs[0] = "y" }, ErrCycle, "choice -> mm -> choice"},
		{"self cycle", func(m *Model) { m.Graph.Nodes[0].Inputs[0] = "xw" }, ErrCycle, "mm -> mm"},
		{"undefined input", func(m *Model) { m.Graph.Nodes[0].Inputs[1] = "V" }, ErrUndefined, `node mm: reads a value that nothing defines: "V"`},
		{"undefined output", func(m *Model) { m.Graph.Outputs[0].Name = "z" }, ErrUndefined, `"z"`},
		{"undefined in a branch", func(m *Model) { m.Graph.Nodes[1].Attributes[0].G.Nodes[0].Inputs[1] = "V" }, ErrUndefined, "choice.then_branch"},
		{"later in the outer scope", func(m *Model) { slices.Reverse(m.Graph.Nodes) }, ErrOrder, `"xw"`},
		{"two definitions", func(m *Model) { m.Graph.Nodes[1].Outputs[0] = "xw" }, ErrDuplicate, `"xw", by node mm and by node choice`},
		{"output named like an input", func(m *Model) { m.Graph.Nodes[0].Outputs[0] = "x" }, ErrDuplicate, `"x"`},
		{"two initializers", func(m *Model) { m.Graph.Initializers[1].Name = "W" }, ErrDuplicate, "two initializers"},
		{"no outputs", func(m *Model) { m.Graph.Outputs = nil }, ErrIncomplete, "no outputs"},
		{"no opset", func(m *Model) { m.OpsetImports = nil }, ErrIncomplete, "operator set"},
		{"foreign domain", func(m *Model) { m.Graph.Nodes[0].Domain = "x.y" }, ErrIncomplete, `"x.y"`},
		{"no operator", func(m *Model) { m.Graph.Nodes[0].OpType = "" }, ErrIncomplete, "names no operator"},
		{"two attributes", func(m *Model) { m.Graph.Nodes[1].Attributes[1].Name = "then_branch" }, ErrDuplicate, "then_branch"},
		{"no IR version", func(m *Model) { m.IRVersion = 0 }, ErrIncomplete, "IR version"},
		{"no graph", func(m *Model) { m.Graph = nil }, ErrIncomplete, "no graph"},
		{"reference outside a function", func(m *Model) { m.Graph.Nodes[0].SetAttr(RefAttr("a", "b", AttrInt)) }, ErrIncomplete, "function"},
		{"wrong size", func(m *Model) { m.Graph.Initializers[0].Dims[0]++ }, ErrTensorSize, `initializer "W"`},
		{"nil node", func(m *Model) { m.Graph.Nodes[0] = nil }, ErrIncomplete, "node 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tinyModel()
			if p := Check(m); len(p) != 0 {
				t.Fatalf("before the edit: %v", p)
			}
			tt.edit(m)
			var all []string
			for _, p := range Check(m) {
				all = append(all, p.Error())
				if errors.Is(p, tt.want) && strings.Contains(p.Error(), tt.says) {
					return
				}
			}
			t.Errorf("want %v saying %q, got %q", tt.want, tt.says, all)
		})
	}
}

func TestCheckFunctions(t *testing.T) {
	m := functionModel()
	m.IRVersion = 7
	f := m.Functions[0]
	f.SetOpset("my.domain", 1)
	rec := NewNode("Scale", []string{"X"}, []string{"r"})
	rec.Domain = "my.domain"
	f.Nodes = append(f.Nodes, rec)
	m.Functions = append(m.Functions, Clone(f))
	var got []string
	for _, p := range Check(m) {
		got = append(got, p.Error())
	}
	for _, want := range []string{"need IR version 8", "calls itself: my.domain::Scale -> my.domain::Scale", "defined twice"} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("nothing says %q in %q", want, got)
		}
	}
}

func TestOpsets(t *testing.T) {
	m := NewModel(8, 17, "g")
	if v, ok := m.Opset("ai.onnx"); v != 17 || !ok {
		t.Errorf("standard opset %d, %v", v, ok)
	}
	m.SetOpset("ai.onnx", 18)
	if v, _ := m.Opset(""); v != 18 || len(m.OpsetImports) != 1 {
		t.Errorf("%d in %d imports", v, len(m.OpsetImports))
	}
	if _, ok := m.Opset("x"); ok {
		t.Error("an opset nobody imported")
	}
}

func TestBuilders(t *testing.T) {
	n := NewNode("Op", nil, nil, IntAttr("i", 3), FloatAttr("f", .5), StringAttr("s", "x"), IntsAttr("is", 1, 2))
	if n.Int("i", 0) != 3 || n.Float("f", 0) != .5 || n.Str("s", "") != "x" || !slices.Equal(n.Ints("is"), []int64{1, 2}) {
		t.Error("attributes read back differently")
	}
	if n.Int("f", 7) != 7 || n.Int("none", 7) != 7 || n.Str("i", "d") != "d" {
		t.Error("an attribute of another type, or none, must give the default")
	}
	n.SetAttr(IntAttr("i", 4))
	if n.Int("i", 0) != 4 || len(n.Attributes) != 4 {
		t.Error("SetAttr does not replace")
	}
	dt, dims, ok := NewValueInfo("v", Float16, "N", 3, nil, int64(0)).TensorType()
	if dt != Float16 || !slices.Equal(dims, []int64{-1, 3, -1, 0}) || !ok {
		t.Errorf("%v %v %v", dt, dims, ok)
	}
	if _, dims, ok := NewValueInfo("v", Float, UnknownRank).TensorType(); dims != nil || !ok {
		t.Errorf("unknown rank: %v %v", dims, ok)
	}
	if _, dims, _ := NewValueInfo("v", Float).TensorType(); dims == nil {
		t.Error("a scalar has a shape")
	}
	if v, err := NewTensor("b", []int64{2}, []bool{true, false}).Int64s(); err != nil || !slices.Equal(v, []int64{1, 0}) {
		t.Errorf("%v %v", v, err)
	}
	if v, err := NewStringTensor("s", []int64{1}, []string{"ä"}).Strings(); err != nil || v[0] != "ä" {
		t.Errorf("%v %v", v, err)
	}
	if v, err := NewFloat16Tensor("h", []int64{1}, []float32{1.5}).Float32s(); err != nil || v[0] != 1.5 {
		t.Errorf("%v %v", v, err)
	}
	if v, err := Scalar("s", int64(-5)).Int64s(); err != nil || v[0] != -5 {
		t.Errorf("%v %v", v, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("3 values for 2 places: no panic")
		}
	}()
	NewTensor("x", []int64{2}, []float32{1, 2, 3})
}

func TestFprint(t *testing.T) {
	for name, m := range map[string]*Model{"tiny": tinyModel(), "function": functionModel()} {
		var b strings.Builder
		if err := Fprint(&b, m); err != nil {
			t.Fatal(err)
		}
		path := "testdata/" + name + ".txt"
		if os.Getenv("COSETQ_UPDATE") != "" {
			write(t, path, []byte(b.String()))
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s: got\n%swant\n%s(COSETQ_UPDATE=1 rewrites the file; look at the difference)", name, b.String(), want)
		}
	}
}

// No standard operator holds a list of graphs, but a model may.
func TestFprintGraphs(t *testing.T) {
	m := tinyModel()
	m.Graph.Nodes = []*Node{NewNode("Both", nil, nil, &Attribute{Name: "bodies", Type: AttrGraphs, Graphs: []*Graph{
		{Nodes: []*Node{NewNode("Relu", []string{"a"}, []string{"b"})}}, {Nodes: []*Node{NewNode("Neg", []string{"c"}, []string{"d"})}},
	}})}
	var b strings.Builder
	if err := Fprint(&b, m); err != nil {
		t.Fatal(err)
	}
	want := "    bodies[0]:\n      b = Relu(a)\n    bodies[1]:\n      d = Neg(c)\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("got\n%swith none of\n%s", b.String(), want)
	}
}

func ExampleFprint() {
	m := NewModel(8, 17, "affine")
	m.Graph.Inputs = []*ValueInfo{NewValueInfo("x", Float, "N", 3)}
	m.Graph.Initializers = []*Tensor{NewTensor("W", []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6})}
	m.Graph.Nodes = []*Node{NewNode("MatMul", []string{"x", "W"}, []string{"y"})}
	m.Graph.Outputs = []*ValueInfo{NewValueInfo("y", Float, "N", 2)}
	Fprint(os.Stdout, m)
	fmt.Println(len(Check(m)), "problems")
	// Output:
	// model ir=8 producer=""
	// import "" 17
	// graph "affine"
	//   input  x tensor(float)[N,3]
	//   init   W float[3,2]
	//   y = MatMul(x, W)
	//   output y tensor(float)[N,2]
	// 0 problems
}
