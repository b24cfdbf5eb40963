package rewrite_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// batchN and batchK are the sizes of the matrices of a batch, the smallest that are taken apart.
const batchN, batchK = 132, 128

// batchForm is a graph with one product of x and a batch of constant matrices [.., K, N], or [.., N, K] on the left.
type batchForm struct {
	name     string
	x        []int64 // shape of x without the axes of a matrix
	declared []any   // the same as declared; nil for no shape
	lead     []int64 // axes of the batch
	left     bool
	opset    int64 // 0 for 17
	op       string
	attrs    []*onnx.Attribute
	through  string // a node between the stored weight and the product: Transpose or Cast
}

func elements(dims []int64) int {
	n := 1
	for _, d := range dims {
		n *= int(d)
	}
	return n
}

// anything declares shapes as they are.
func anything(dims []int64) []any {
	list := make([]any, len(dims))
	for i, d := range dims {
		list[i] = d
	}
	return list
}

// grid are matrices that codes stand for exactly, and their numbers.
type grid struct {
	matrices []*quant.Matrix
	rows     []rows
}

func newGrid(t testing.TB, rng *rand.Rand, count int) (g grid) {
	for range count {
		m, r := onGrid(t, rng, "d4:4,4:g2,3,4,6", batchN, batchK)
		g.matrices, g.rows = append(g.matrices, m), append(g.rows, r)
	}
	return g
}

// model returns the graph with the first matrices of g, and inputs for it. Its second output is the shape of the first.
func (f batchForm) model(rng *rand.Rand, g grid) (*onnx.Model, map[string]*tensor.Tensor) {
	const tokens = 3
	transposed := f.through == "Transpose"
	matrix, places := []int64{batchK, batchN}, []int64{tokens, batchK}
	if f.left {
		matrix, places = []int64{batchN, batchK}, []int64{batchK, tokens}
	}
	if transposed {
		slices.Reverse(matrix)
	}
	for _, a := range f.attrs {
		if a.Name == "transA" && !f.left || a.Name == "transB" && f.left {
			slices.Reverse(places)
		} else if strings.HasPrefix(a.Name, "trans") {
			slices.Reverse(matrix)
		}
	}
	var v []float32
	for i := range elements(f.lead) {
		if r := g.rows[i]; matrix[0] == batchK {
			v = append(v, r.transposed()...)
		} else {
			v = append(v, r.v...)
		}
	}
	shape := append(slices.Clone(f.x), places...)
	info := onnx.NewValueInfo("x", onnx.Float, onnx.UnknownRank)
	if f.declared != nil {
		info = onnx.NewValueInfo("x", onnx.Float, append(slices.Clone(f.declared), anything(places)...)...)
	}
	graph := &onnx.Graph{Inputs: []*onnx.ValueInfo{info}, Initializers: []*onnx.Tensor{floats("w", append(slices.Clone(f.lead), matrix...), v)}}
	weight := "w"
	switch f.through {
	case "Transpose":
		perm := make([]int64, len(f.lead)+2)
		for i := range perm {
			perm[i] = int64(i)
		}
		perm[len(perm)-1], perm[len(perm)-2] = perm[len(perm)-2], perm[len(perm)-1]
		graph.Nodes = append(graph.Nodes, node("turn", "Transpose", []string{"w"}, []string{"wt"}, onnx.IntsAttr("perm", perm...)))
		weight = "wt"
	case "Cast":
		graph.Nodes = append(graph.Nodes, node("cast", "Cast", []string{"w"}, []string{"wt"}, onnx.IntAttr("to", int64(onnx.Float))))
		weight = "wt"
	}
	inputs := []string{"x", weight}
	if f.left {
		slices.Reverse(inputs)
	}
	product := node("experts", "MatMul", inputs, []string{"y"}, f.attrs...)
	product.DocString = "of all experts"
	opset := f.opset
	if opset == 0 {
		opset = 17
	}
	graph.Nodes = append(graph.Nodes, product,
		node("", "Shape", []string{"y"}, []string{"shape"}), node("", "Cast", []string{"shape"}, []string{"dims"}, onnx.IntAttr("to", int64(onnx.Float))))
	graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank), onnx.NewValueInfo("dims", onnx.Float, onnx.UnknownRank)}
	m := newModel(8, opset, graph)
	if f.op != "" {
		product.OpType, product.Domain = f.op, "com.microsoft"
		m.SetOpset("com.microsoft", 1)
	}
	return m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, elements(shape)), shape...)}
}

// anyBatch returns a random form that is taken apart.
func anyBatch(rng *rand.Rand) batchForm {
	pick := func(n ...int64) int64 { return n[rng.IntN(len(n))] }
	e := pick(2, 3)
	f := batchForm{left: rng.IntN(4) == 0, opset: pick(8, 10, 11, 12, 13, 17, 18, 20, 21, 23, 25)}
	f.lead = [][]int64{{e}, {e}, {1, e}, {e, 1}, {1, e, 1}}[rng.IntN(5)]
	for i := range rng.IntN(4) { // axes of x, from the last on
		d := pick(1, 2, 3)
		if at := len(f.lead) - 1 - i; at >= 0 && f.lead[at] != 1 {
			d = pick(1, e)
		}
		f.x = append([]int64{d}, f.x...)
	}
	f.declared = anything(f.x)
	for i := range f.declared {
		if rng.IntN(2) == 0 {
			f.declared[i] = fmt.Sprintf("d%d", i)
		}
	}
	f.through = []string{"", "", "Transpose", "Cast"}[rng.IntN(4)]
	f.name = fmt.Sprintf("%v (%v) times %v, left %v, opset %d, %s", f.x, f.declared, f.lead, f.left, f.opset, f.through)
	return f
}

// applyInOrder replaces the candidates by the matrices, in their order.
func applyInOrder(t testing.TB, m *onnx.Model, matrices []*quant.Matrix) *rewrite.Result {
	t.Helper()
	var replacements []rewrite.Replacement
	for i, s := range find(t, m) {
		if s.Status != rewrite.Candidate || s.N != batchN || s.K != batchK || s.Initializer != "w" || s.Name != fmt.Sprintf("experts.%d", i) {
			t.Fatalf("site %+v\n%s", s, dump(t, m))
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: matrices[i]})
	}
	result, err := rewrite.Apply(m, replacements, "test")
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, m)
	return result
}

// splitUp takes the one batch of m apart.
func splitUp(t testing.TB, m *onnx.Model) {
	t.Helper()
	if got := rewrite.SplitBatches(m); got != 1 {
		t.Fatalf("%d products taken apart, want 1: %+v", got, find(t, m))
	}
	wellFormed(t, m)
}

func marshal(t testing.TB, m *onnx.Model) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBatches codes batches of matrices, one by one, without a loss: the outputs are those of the float model, and so are their shapes. What is not
// coded becomes the node again that it was, and what is made plain again one product.
func TestBatches(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(90, 91))
	g := newGrid(t, rng, 3)
	forms := []batchForm{
		{name: "tokens of each expert", x: []int64{3}, declared: []any{3}, lead: []int64{3}},
		{name: "the same tokens", x: nil, declared: []any{}, lead: []int64{3}},
		{name: "the same tokens, opset 7", x: nil, declared: []any{}, lead: []int64{3}, opset: 7},
		{name: "the same tokens, opset 21", x: nil, declared: []any{}, lead: []int64{1, 3}, opset: 21},
		{name: "symbolic", x: []int64{3}, declared: []any{"experts"}, lead: []int64{3}, opset: 8},
		{name: "symbolic, but one", x: []int64{1}, declared: []any{"experts"}, lead: []int64{3}, opset: 18},
		{name: "left", x: []int64{2, 3}, declared: []any{"b", 3}, lead: []int64{3}, left: true},
		{name: "fused", x: []int64{3}, declared: []any{3}, lead: []int64{3}, op: "FusedMatMul", attrs: []*onnx.Attribute{onnx.IntAttr("transA", 1), onnx.FloatAttr("alpha", 1)}},
		{name: "fused, transposed", x: []int64{3}, declared: []any{3}, lead: []int64{3}, op: "FusedMatMul", attrs: []*onnx.Attribute{onnx.IntAttr("transB", 1)}},
	}
	for range 40 {
		forms = append(forms, anyBatch(rng))
	}
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			m, fed := f.model(rng, g)
			before := onnx.Clone(m)
			splitUp(t, m)
			undone := onnx.Clone(m)
			if got := rewrite.JoinBatches(undone); got != 1 || !bytes.Equal(marshal(t, undone), marshal(t, before)) {
				t.Errorf("%d put together again\n%s\nfrom\n%s", got, dump(t, undone), dump(t, before))
			}
			applyInOrder(t, m, g.matrices)
			if rewrite.JoinBatches(m) != 0 || count(m, "MatMul") != 0 || m.Graph.Initializer("w") != nil || m.Graph.Initializer("w.1.codes") == nil && f.through == "" {
				t.Errorf("left:\n%s", dump(t, m))
			}
			sameOutputs(t, before, m, fed, 2e-6)

			m = reopen(t, m)
			if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP32}); err != nil {
				t.Fatal(err)
			}
			turned := f.left || f.attrs != nil && f.attrs[0].Name == "transA"
			if got := rewrite.JoinBatches(m); got != 1 && !turned {
				t.Errorf("%d products are one again\n%s", got, dump(t, m))
			}
			wellFormed(t, m)
			sameOutputs(t, before, m, fed, 2e-6)
			if bytes.Contains(marshal(t, m), []byte("cosetq")) {
				t.Errorf("the export still speaks of us:\n%s", dump(t, m))
			}
		})
	}
}

// TestBatchesNatively runs the kernels of the native library on the pieces, in float32 and float16, and the execution provider.
func TestBatchesNatively(t *testing.T) {
	testenv.Ops(t)
	rng := rand.New(rand.NewPCG(92, 93))
	g := newGrid(t, rng, 3)
	f := batchForm{x: []int64{2, 3}, declared: []any{"b", "e"}, lead: []int64{1, 3}}
	m, fed := f.model(rng, g)
	before := onnx.Clone(m)
	splitUp(t, m)
	applyInOrder(t, m, g.matrices)
	sameByBothPaths(t, before, m, fed, 2e-6)
	library := testenv.Provider(t)
	want := run(t, before, ort.OptimizeDisabled, fed)["y"]
	for _, opset := range []int64{11, 17, 21} {
		f.opset = opset
		m, _ := f.model(rng, g)
		splitUp(t, m)
		applyInOrder(t, m, g.matrices)
		m.Graph.Outputs = m.Graph.Outputs[:1] // shapes are for the host
		got := runWith(t, m, ort.SessionOptions{OpsLibrary: testenv.Ops(t), Provider: library, Config: map[string]string{"ai.coset.accuracy": "1"}}, fed)["y"]
		if e := relativeError(want, got); !(e <= 1e-3) {
			t.Errorf("provider, opset %d: differs by %.2g of the largest value", opset, e)
		}
	}

	f.opset = 0
	m, fed = f.model(rng, g)
	x, _ := tensor.View[float32](fed["x"])
	halves := make([]tensor.Float16, len(x))
	for i, v := range x {
		halves[i] = tensor.Float16(onnx.Float16FromFloat32(v))
	}
	fed["x"] = tensor.Of(halves, fed["x"].Shape...)
	w, _ := m.Graph.Initializer("w").Float32s()
	*m.Graph.Initializer("w") = *onnx.NewFloat16Tensor("w", m.Graph.Initializer("w").Dims, w)
	m.Graph.Inputs[0] = onnx.NewValueInfo("x", onnx.Float16, "b", "e", 3, batchK)
	m.Graph.Outputs[0] = onnx.NewValueInfo("y", onnx.Float16, onnx.UnknownRank)
	before = onnx.Clone(m)
	splitUp(t, m)
	applyInOrder(t, m, g.matrices)
	sameByBothPaths(t, before, m, fed, 3e-3)
}

// TestBatchesThatStay names the reason, and changes nothing.
func TestBatchesThatStay(t *testing.T) {
	rng := rand.New(rand.NewPCG(94, 95))
	ofRank := func(dims ...int64) *onnx.Tensor { return floats("w", dims, normal(rng, elements(dims))) }
	for _, f := range []struct {
		detail string
		x      *onnx.ValueInfo
		w      *onnx.Tensor
		opset  int64
		attr   *onnx.Attribute
	}{
		{detail: "rank that is not known", x: onnx.NewValueInfo("x", onnx.Float, onnx.UnknownRank), w: ofRank(2, 128, 128)},
		{detail: "a vector", x: onnx.NewValueInfo("x", onnx.Float, 128), w: ofRank(2, 128, 128)},
		{detail: "several axes", x: onnx.NewValueInfo("x", onnx.Float, 2, 2, 1, 128), w: ofRank(2, 2, 128, 128)},
		{detail: "up to 256", x: onnx.NewValueInfo("x", onnx.Float, 257, 1, 16), w: ofRank(257, 16, 1024)},
		{detail: "coding each pays from", x: onnx.NewValueInfo("x", onnx.Float, 2, 1, 128), w: ofRank(2, 128, 127)},
		{detail: "K = 16", x: onnx.NewValueInfo("x", onnx.Float, 2, 1, 15), w: ofRank(2, 15, 2048)},
		{detail: "no Expand", x: onnx.NewValueInfo("x", onnx.Float, "e", 1, 128), w: ofRank(2, 128, 128), opset: 7},
		{detail: "the other factor one of 3", x: onnx.NewValueInfo("x", onnx.Float, 3, 1, 128), w: ofRank(2, 128, 128)},
		{detail: "moves the axes", x: onnx.NewValueInfo("x", onnx.Float, 2, 1, 128), w: ofRank(2, 128, 128), attr: onnx.IntAttr("transBatchB", 1)},
	} {
		t.Run(f.detail, func(t *testing.T) {
			product := node("experts", "MatMul", []string{"x", "w"}, []string{"y"})
			m := newModel(8, max(f.opset, 7), &onnx.Graph{Inputs: []*onnx.ValueInfo{f.x}, Initializers: []*onnx.Tensor{f.w}, Nodes: []*onnx.Node{product},
				Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)}})
			if f.opset == 0 {
				m.SetOpset("", 17)
			}
			if f.attr != nil {
				product.OpType, product.Domain = "FusedMatMul", "com.microsoft"
				product.SetAttr(f.attr)
			}
			before := marshal(t, m)
			if got := rewrite.SplitBatches(m); got != 0 || !bytes.Equal(before, marshal(t, m)) {
				t.Errorf("%d taken apart:\n%s", got, dump(t, m))
			}
			if s := find(t, m); len(s) != 1 || s[0].Status != rewrite.Skipped || !strings.Contains(s[0].Detail, f.detail) {
				t.Errorf("sites %+v, want one skipped because of %q", s, f.detail)
			}
		})
	}
}

// TestBatchObserved gathers what each matrix is multiplied by, and once what all are.
func TestBatchObserved(t *testing.T) {
	rng := rand.New(rand.NewPCG(96, 97))
	const count, tokens = 3, 3
	for _, x := range [][]int64{{2, count}, {2, 1}} {
		f := batchForm{x: x, declared: anything(x), lead: []int64{count}}
		m, fed := f.model(rng, newGrid(t, rng, count))
		splitUp(t, m)
		list, gathered := observed(t, m, ort.SessionOptions{Threads: 1}, fed)
		if len(list) != int(x[1]) {
			t.Fatalf("%d observations: %+v", len(list), list)
		}
		v, _ := tensor.View[float32](fed["x"])
		for e, o := range list {
			var want []float32
			for b := range int(x[0]) {
				at := (b*len(list) + e) * tokens * batchK
				want = append(want, v[at:at+tokens*batchK]...)
			}
			checkMoments(t, gathered, o.Tag, want, batchK)
			if len(o.Sites) != count/len(list) {
				t.Errorf("observation %d is of the sites %v", e, o.Sites)
			}
		}
	}
}

// TestSharedBatches takes two products of the same activations, and two with the same weights in the branches of an If, apart.
func TestSharedBatches(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(98, 99))
	g := newGrid(t, rng, 3)
	f := batchForm{x: []int64{3}, declared: []any{3}, lead: []int64{3}}
	m, fed := f.model(rng, g)
	gate := onnx.Clone(m.Graph.Nodes[0])
	gate.Name, gate.Outputs, gate.Inputs[1] = "gate", []string{"z"}, "v"
	v := onnx.Clone(m.Graph.Initializer("w"))
	v.Name = "v"
	m.Graph.Initializers = append(m.Graph.Initializers, v)
	branch := func(name, x string) *onnx.Graph {
		return &onnx.Graph{Name: name, Nodes: []*onnx.Node{node(name, "MatMul", []string{x, "u"}, []string{"in_" + name})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("in_"+name, onnx.Float, onnx.UnknownRank)}}
	}
	u := onnx.Clone(v)
	u.Name = "u"
	m.Graph.Initializers = append(m.Graph.Initializers, u, onnx.NewTensor("yes", nil, []bool{true}))
	m.Graph.Nodes = append(m.Graph.Nodes, gate, node("choose", "If", []string{"yes"}, []string{"chosen"},
		onnx.GraphAttr("then_branch", branch("then", "x")), onnx.GraphAttr("else_branch", branch("else", "x"))))
	for _, name := range []string{"z", "chosen"} {
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(name, onnx.Float, onnx.UnknownRank))
	}
	before := onnx.Clone(m)
	if got := rewrite.SplitBatches(m); got != 4 {
		t.Fatalf("%d taken apart", got)
	}
	wellFormed(t, m)
	splits := 0
	for _, n := range m.Graph.Nodes {
		if n.OpType == "Split" && n.Inputs[0] == "x" {
			splits++
		}
	}
	if splits != 1 {
		t.Errorf("x is split %d times\n%s", splits, dump(t, m))
	}
	undone := onnx.Clone(m)
	if rewrite.JoinBatches(undone) != 4 || !bytes.Equal(marshal(t, undone), marshal(t, before)) {
		t.Errorf("not as before:\n%s", dump(t, undone))
	}
	// One batch stays float, because one of its matrices is left out.
	sites, err := rewrite.FindSites(m, rewrite.Options{Exclude: []string{"gate.1"}})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for i, s := range sites {
		if s.Status == rewrite.Candidate {
			replacements = append(replacements, rewrite.Replacement{Site: sites[i], Matrix: g.matrices[i%3]})
		} else if s.Initializer != "v" || s.Batch != "z" {
			t.Errorf("site %+v", s)
		}
	}
	if len(replacements) != 9 {
		t.Fatalf("%d candidates", len(replacements))
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	if rewrite.JoinBatches(m) != 1 || count(m, "MatMul") != 1 || m.Graph.Initializer("v") == nil || m.Graph.Initializer("w") != nil || m.Graph.Initializer("u") != nil {
		t.Errorf("left:\n%s", dump(t, m))
	}
	wellFormed(t, m)
	sameOutputs(t, before, m, fed, 2e-6)
}

// TestBatchInHalfPrecision stacks weights of float16 behind one Cast.
func TestBatchInHalfPrecision(t *testing.T) {
	rng := rand.New(rand.NewPCG(100, 101))
	g := newGrid(t, rng, 2)
	f := batchForm{x: []int64{2}, declared: []any{2}, lead: []int64{2}}
	m, fed := f.model(rng, g)
	before := onnx.Clone(m)
	splitUp(t, m)
	applyInOrder(t, m, g.matrices)
	if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP16}); err != nil {
		t.Fatal(err)
	}
	if rewrite.JoinBatches(m) != 1 || count(m, "Cast") != 2 || count(m, "MatMul") != 1 {
		t.Errorf("exported:\n%s", dump(t, m))
	}
	if w := m.Graph.Initializer("w"); w == nil || w.DataType != onnx.Float16 || !slices.Equal(w.Dims, []int64{2, batchK, batchN}) {
		t.Errorf("the weight is %v", w)
	}
	sameOutputs(t, before, m, fed, 1e-3)
}
