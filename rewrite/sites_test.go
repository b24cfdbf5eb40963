package rewrite_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// zoo returns one graph with a site for every reason, and a few of every other kind.
func zoo() *onnx.Model {
	w := func(name string, dims ...int64) *onnx.Tensor {
		size := int64(1)
		for _, d := range dims {
			size *= d
		}
		return floats(name, dims, make([]float32, size))
	}
	double := onnx.NewTensor("double", []int64{64, 32}, make([]float64, 64*32))
	g := &onnx.Graph{
		Inputs: []*onnx.ValueInfo{
			onnx.NewValueInfo("x", onnx.Float, "batch", 64), onnx.NewValueInfo("xd", onnx.Double, "batch", 64),
			onnx.NewValueInfo("given", onnx.Float, 64, 32), onnx.NewValueInfo("overridable", onnx.Float, 64, 32),
			onnx.NewValueInfo("ids", onnx.Int64, "batch"),
		},
		Initializers: []*onnx.Tensor{
			w("good", 64, 32), w("overridable", 64, 32), w("vector", 64), w("batch", 2, 64, 32), w("tiny", 64, 8), w("narrow", 8, 4096),
			double, w("tied", 64, 32), w("shown", 64, 32), w("moved", 32, 64), w("fused", 64, 32), w("excluded", 64, 32),
			w("b", 64), onnx.NewTensor("shape", []int64{2}, []int64{64, 32}),
		},
		Nodes: []*onnx.Node{
			node("fc", "MatMul", []string{"x", "good"}, []string{"y0"}),
			node("", "MatMul", []string{"x", "given"}, []string{"y1"}),
			node("fc", "MatMul", []string{"x", "overridable"}, []string{"y2"}),
			node("", "MatMul", []string{"x", "vector"}, []string{"y3"}),
			node("", "MatMul", []string{"x", "batch"}, []string{"y4"}),
			node("MatMul_1", "MatMul", []string{"x", "tiny"}, []string{"y5"}),
			node("wide", "Gemm", []string{"y5", "narrow"}, []string{"y6"}),
			node("double", "MatMul", []string{"xd", "double"}, []string{"y7"}),
			node("tied", "MatMul", []string{"x", "tied"}, []string{"y8"}),
			node("embed", "Gather", []string{"tied", "ids"}, []string{"y9"}),
			node("shown", "MatMul", []string{"x", "shown"}, []string{"y10"}),
			node("t", "Transpose", []string{"moved"}, []string{"turned"}),
			node("r", "Reshape", []string{"turned", "shape"}, []string{"y11"}), // a legal no-op
			node("computed", "Relu", []string{"good2"}, []string{"positive"}),
			node("moved", "Gemm", []string{"x", "y11"}, []string{"y12"}),
			node("late", "MatMul", []string{"x", "positive"}, []string{"y13"}),
			node("skip me", "MatMul", []string{"x", "excluded"}, []string{"y14"}),
		},
	}
	g.Initializers = append(g.Initializers, w("good2", 64, 32), w("mask", 64, 64))
	g.Initializers = append(g.Initializers, onnx.NewTensor("codes", []int64{32, 2, 16}, make([]uint8, 32*2*16)), w("scales", 64))
	coded := node("coded", "MatMulNBits", []string{"x", "codes", "scales"}, []string{"y17"}, onnx.IntAttr("K", 64), onnx.IntAttr("N", 32),
		onnx.IntAttr("bits", 4), onnx.IntAttr("block_size", 32))
	coded.Domain = "com.microsoft"
	fused := node("fused", "GemmFastGelu", []string{"x", "fused"}, []string{"y15"})
	fused.Domain = "com.microsoft"
	masked := node("masked", "Attention", []string{"y0", "y0", "y0", "mask"}, []string{"y16"}) // of ONNX: the mask is no weight
	g.Nodes = append(g.Nodes, fused, masked, coded)
	for _, n := range g.Nodes {
		for _, out := range n.Outputs {
			if strings.HasPrefix(out, "y") && out != "y5" && out != "y11" {
				g.Outputs = append(g.Outputs, onnx.NewValueInfo(out, onnx.Float, onnx.UnknownRank))
			}
		}
	}
	g.Outputs = append(g.Outputs, onnx.NewValueInfo("shown", onnx.Float, 64, 32))
	return newModel(8, 17, g)
}

func TestReasons(t *testing.T) {
	sites, err := rewrite.FindSites(zoo(), rewrite.Options{Exclude: []string{"skip*"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"fc MatMul good 64x32 candidate",
		"MatMul_1#1 MatMul  0x0 skipped dynamic-b",
		"fc#2 MatMul overridable 0x0 skipped replaceable",
		"MatMul_3 MatMul vector 0x0 skipped rank",
		"MatMul_4 MatMul batch 0x0 skipped rank",
		"MatMul_1 MatMul tiny 64x8 skipped too-small",
		"wide Gemm narrow 8x4096 skipped too-small",
		"double MatMul double 0x0 skipped dtype",
		"tied MatMul tied 64x32 skipped shared-with-float",
		"shown MatMul shown 64x32 skipped shared-with-float",
		"moved Gemm moved 64x32 candidate",
		"late MatMul good2 0x0 skipped unfolded",
		"skip me MatMul excluded 64x32 skipped excluded",
		"fused GemmFastGelu fused 0x0 skipped fused-op",
		"coded MatMulNBits codes 0x0 skipped already-quantized",
	}
	for i, s := range sites {
		got := strings.TrimSpace(fmt.Sprintf("%s %s %s %dx%d %s %s", s.Name, s.Op, s.Initializer, s.K, s.N, s.Status, s.Reason))
		if i >= len(want) || got != want[i] {
			t.Errorf("site %d: %s", i, got)
		}
		if s.Op == "MatMulNBits" && s.Weights != 64*32 {
			t.Errorf("two of the %d weights of %s lie in a byte", s.Weights, s.Name)
		}
		if s.Index != i || s.Status == rewrite.Skipped && s.Detail == "" {
			t.Errorf("site %d: index %d, detail %q", i, s.Index, s.Detail)
		}
	}
	if len(sites) != len(want) {
		t.Errorf("%d sites, want %d", len(sites), len(want))
	}
	// good, moved of good, batch (twice the size), tied, shown, moved, excluded, fused, coded, double, narrow (16 times), tiny (¼), vector
	if _, got := rewrite.Coverage(sites); got < 0.05 || got > 0.2 {
		t.Errorf("coverage %v", got)
	}
}

// A weight that is computed from constants before it is turned and multiplied is told from one that an input scales, and from one
// that is made up in every run.
func TestUnfolded(t *testing.T) {
	matrix := []int64{64, 64}
	m := newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64), onnx.NewValueInfo("given", onnx.Float, 64, 64)},
		Initializers: []*onnx.Tensor{
			floats("w", matrix, make([]float32, 4096)), floats("a", []int64{64, 8}, make([]float32, 512)), floats("b", []int64{8, 64}, make([]float32, 512)),
		},
		Nodes: []*onnx.Node{
			node("product", "MatMul", []string{"a", "b"}, []string{"ab"}), node("add", "Add", []string{"w", "ab"}, []string{"merged"}),
			node("t", "Transpose", []string{"merged"}, []string{"turned"}), node("adapted", "MatMul", []string{"x", "turned"}, []string{"y0"}),
			node("mul", "Mul", []string{"merged", "given"}, []string{"product2"}), node("scaled", "MatMul", []string{"x", "product2"}, []string{"y1"}),
			node("random", "RandomNormal", nil, []string{"made up"}, onnx.IntsAttr("shape", 64, 64)),
			node("noise", "MatMul", []string{"x", "made up"}, []string{"y2"}),
		},
		Outputs: []*onnx.ValueInfo{
			onnx.NewValueInfo("y0", onnx.Float, "batch", 64), onnx.NewValueInfo("y1", onnx.Float, "batch", 64), onnx.NewValueInfo("y2", onnx.Float, "batch", 64),
		},
	})
	want := map[string]rewrite.Reason{"product": rewrite.TooSmall, "adapted": rewrite.Unfolded, "scaled": rewrite.DynamicB, "noise": rewrite.DynamicB}
	for _, s := range find(t, m) {
		if s.Reason != want[s.Name] {
			t.Errorf("%s: %q, want %q", s.Name, s.Reason, want[s.Name])
		}
	}
}

// A sparse weight is constant; that it stays is no property of the model, as with a product of two activations.
func TestSparseWeight(t *testing.T) {
	m := newModel(8, 17, &onnx.Graph{
		Inputs:  []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)},
		Nodes:   []*onnx.Node{node("sparse", "MatMul", []string{"x", "w"}, []string{"y"})},
		SparseInitializers: []*onnx.SparseTensor{{
			Values: floats("w", []int64{2}, []float32{1, 2}), Indices: onnx.NewTensor("", []int64{2}, []int64{3, 70}), Dims: []int64{64, 64},
		}},
	})
	if sites := find(t, m); len(sites) != 1 || sites[0].Reason != rewrite.UnsupportedAttr || !strings.Contains(sites[0].Detail, "sparse") {
		t.Errorf("sites: %+v", sites)
	}
}

// What is not followed to its weight counts among what is not quantized: else --min-coverage would pass a model of which half stays float.
func TestCoverageCountsWhatIsNotFollowed(t *testing.T) {
	matrix := []int64{64, 64}
	weight := func(name string) *onnx.Tensor { return floats(name, matrix, make([]float32, 4096)) }
	m := newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64), onnx.NewValueInfo("replaceable", onnx.Float, 64, 64)},
		Initializers: []*onnx.Tensor{weight("good"), weight("replaceable"), weight("masked"), floats("factor", nil, []float32{2}),
			weight("scaled"), floats("table", []int64{64, 256}, make([]float32, 64*256))},
		SparseInitializers: []*onnx.SparseTensor{{Dims: matrix, Values: floats("sparse", []int64{1}, []float32{1}),
			Indices: onnx.NewTensor("", []int64{1}, []int64{7})}},
		Nodes: []*onnx.Node{
			node("product", "Mul", []string{"factor", "masked"}, []string{"twice"}),
			node("a", "MatMul", []string{"x", "good"}, []string{"y0"}), node("b", "MatMul", []string{"x", "replaceable"}, []string{"y1"}),
			node("c", "MatMul", []string{"x", "twice"}, []string{"y2"}), node("d", "MatMul", []string{"x", "sparse"}, []string{"y3"}),
			node("e", "MatMul", []string{"x", "twice"}, []string{"y4"}), // the same weight once more
			node("q", "QuantizeLinear", []string{"scaled", "factor"}, []string{"quantized"}),
			node("look", "Gather", []string{"table", "x"}, []string{"rows"}), node("largest", "ReduceMax", []string{"rows"}, []string{"scale"}),
			node("dq", "DequantizeLinear", []string{"quantized", "scale"}, []string{"back"}), // by a scale of which no part is its weight
			node("f", "MatMul", []string{"x", "back"}, []string{"y5"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y0", onnx.Float, "batch", 64)},
	})
	if weights, share := rewrite.Coverage(find(t, m)); weights != 5*4096 || share != 0.2 {
		t.Errorf("%v of %d weights can be quantized, want a fifth of %d", share, weights, 5*4096)
	}
}

// The same goes for what reaches a product only as a parameter of a function, once for each weight that a call gives it.
func TestCoverageCountsParametersOfFunctions(t *testing.T) {
	matrix := []int64{64, 64}
	weight := func(name string) *onnx.Tensor { return floats(name, matrix, make([]float32, 4096)) }
	call := func(function, x, w, y string) *onnx.Node {
		n := node(y, function, []string{x, w}, []string{y})
		n.Domain = "local"
		return n
	}
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
		Initializers: []*onnx.Tensor{weight("good"), weight("first"), weight("second"), weight("third")},
		Nodes: []*onnx.Node{
			node("a", "MatMul", []string{"x", "good"}, []string{"y0"}), call("Dense", "x", "first", "y1"), call("Dense", "y1", "second", "y2"),
			call("Twice", "y2", "third", "y3"), call("Dense", "y3", "first", "y4"), call("Dense", "y4", "x", "y5"),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y0", onnx.Float, "batch", 64)},
	})
	m.SetOpset("local", 1)
	function := func(name string, nodes ...*onnx.Node) {
		f := &onnx.Function{Domain: "local", Name: name, Inputs: []string{"a", "b"}, Outputs: []string{"c"}, Nodes: nodes}
		f.SetOpset("", 17)
		f.SetOpset("local", 1)
		m.Functions = append(m.Functions, f)
	}
	function("Dense", node("turn", "Transpose", []string{"b"}, []string{"turned"}), node("product", "MatMul", []string{"a", "turned"}, []string{"c"}))
	function("Twice", call("Dense", "a", "b", "half"), call("Dense", "half", "b", "c")) // a function that hands its parameter on
	if weights, share := rewrite.Coverage(find(t, m)); weights != 4*4096 || share != 0.25 {
		t.Errorf("%v of %d weights can be quantized, want a quarter of %d", share, weights, 4*4096)
	}
}

// size stands for so many bytes that nobody reads.
type size int64

func (s size) Size() int64 { return int64(s) }

func (s size) WriteTo(io.Writer) (int64, error) { return 0, errors.ErrUnsupported }

// A table longer than the function body can count would make a file that neither runs on it nor can be read back.
func TestTooManyRowsAreSkipped(t *testing.T) {
	for _, c := range []struct {
		rows int64
		want rewrite.Status
	}{{1 << 24, rewrite.Candidate}, {1<<24 + 1, rewrite.Skipped}} {
		table := onnx.NewStreamTensor("table", onnx.Float, []int64{c.rows, 16}, size(4*16*c.rows))
		m := newModel(8, 17, &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, "n")},
			Initializers: []*onnx.Tensor{table},
			Nodes:        []*onnx.Node{node("look", "Gather", []string{"table", "ids"}, []string{"y"})},
			Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "n", 16)},
		})
		sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
		if err != nil || len(sites) != 1 || sites[0].Status != c.want {
			t.Errorf("%d rows: %+v, %v, want %s", c.rows, sites, err, c.want)
		}
	}
}

// TestSkippedSharerMakesOthersFloat leaves a weight alone when one of its sites is excluded.
func TestSkippedSharerMakesOthersFloat(t *testing.T) {
	build := func() *onnx.Model {
		return newModel(8, 17, &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
			Initializers: []*onnx.Tensor{floats("w", []int64{64, 64}, normal(rand.New(rand.NewPCG(1, 1)), 4096))},
			Nodes: []*onnx.Node{
				node("a", "MatMul", []string{"x", "w"}, []string{"y"}), node("b", "MatMul", []string{"y", "w"}, []string{"z"}),
				node("c", "Gemm", []string{"z", "w"}, []string{"out"}, onnx.IntAttr("transB", 1)),
			},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("out", onnx.Float, "batch", 64)},
		})
	}
	sites, err := rewrite.FindSites(build(), rewrite.Options{Exclude: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []rewrite.Reason{rewrite.SharedWithFloat, rewrite.Excluded, rewrite.SharedWithFloat} {
		if sites[i].Reason != want {
			t.Errorf("%s: %q, want %q", sites[i].Name, sites[i].Reason, want)
		}
	}
	// Without the exclusion a and b share one code, c has one of the transposed matrix.
	m := build()
	sites = find(t, m)
	if sites[0].Weight != sites[1].Weight || sites[0].Weight == sites[2].Weight {
		t.Error("a and b should share a weight, and c have another")
	}
	if r := apply(t, m); r.Nodes != 3 || r.Matrices != 2 || m.Graph.Initializer("w") != nil {
		t.Errorf("%+v\n%s", r, dump(t, m))
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		include, exclude string
		want             string // names of the candidates
		problem          string // part of the error
	}{
		{want: "fc moved skip me"},
		{include: "fc", want: "fc"},
		{include: "*e*", want: "moved skip me"},
		{include: "good", want: "fc"},
		{include: "init:goo?", want: "fc"},
		{include: "re:^m.*d$", want: "moved"},
		{include: "op:Gemm", want: "moved"},
		{include: "index:10-12", want: "moved skip me"},
		{include: "shape:64x*", exclude: "[fs]*", want: "moved"},
		{exclude: "shape:64x32", want: ""},
		{exclude: "skip mee", problem: `did you mean "skip me"`},
		{exclude: "op:Gem", problem: `did you mean "Gemm"`},
		{exclude: "re:(", problem: "missing closing"},
		{exclude: "index:3-1", problem: "range"},
		{exclude: "index:99", problem: "there are 15"},
		{exclude: "shape:64", problem: "KxN"},
		{exclude: "", want: "fc moved skip me"},
	} {
		var opts rewrite.Options
		if c.include != "" {
			opts.Include = []string{c.include}
		}
		if c.exclude != "" {
			opts.Exclude = []string{c.exclude}
		}
		sites, err := rewrite.FindSites(zoo(), opts)
		if c.problem != "" {
			var pe *rewrite.PatternError
			if !errors.As(err, &pe) || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("include %q exclude %q: error %v, want one with %q", c.include, c.exclude, err, c.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("include %q exclude %q: %v", c.include, c.exclude, err)
			continue
		}
		var names []string
		for _, s := range sites {
			if s.Status == rewrite.Candidate {
				names = append(names, s.Name)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("include %q exclude %q: %s, want %s", c.include, c.exclude, got, c.want)
		}
	}
}

// TestQuantizedAgain leaves coded nodes alone and codes the rest with them.
func TestQuantizedAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(20, 21))
	_, w := onGrid(t, rng, "d4:4,4", 40, 64)
	_, w2 := onGrid(t, rng, "d4:4,4", 33, 40)
	m, _ := chainModel(17, onnx.Float, w, w2)
	sites, err := rewrite.FindSites(m, rewrite.Options{Exclude: []string{"index:1"}})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := onGrid(t, rng, "d4:4,4", 40, 64)
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: sites[0], Matrix: first}}, "test"); err != nil {
		t.Fatal(err)
	}
	m = reopen(t, m)
	sites = find(t, m)
	if sites[0].Status != rewrite.Quantized || sites[0].K != 64 || sites[0].N != 40 || sites[1].Status != rewrite.Candidate {
		t.Fatalf("sites %+v", sites)
	}
	apply(t, m)
	if count(m, "HNLQLinear") != 2 || len(m.Functions) != 1 {
		t.Errorf("not both coded:\n%s", dump(t, m))
	}
	if _, err := rewrite.ReadLinears(m); err != nil {
		t.Error(err)
	}
}
