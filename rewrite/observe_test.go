package rewrite_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// observed runs the observed form of m once for each set of inputs and returns what was gathered.
func observed(t *testing.T, m *onnx.Model, o ort.SessionOptions, inputs ...map[string]*tensor.Tensor) ([]rewrite.Observation, *ort.Observations) {
	t.Helper()
	library, runtime := testenv.Ops(t), testenv.ORT(t)
	m = onnx.Clone(m)
	list, err := rewrite.Observe(m, find(t, m), nil)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, m)
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	rt, err := ort.Open(ort.Options{Library: runtime})
	if err != nil {
		t.Fatal(err)
	}
	o.OpsLibrary = library
	s, err := rt.NewSessionFromBytes(b, t.TempDir(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, dump(t, m))
	}
	defer s.Close()
	gathered, err := ort.OpenObservations(library)
	if err != nil {
		t.Fatal(err)
	}
	gathered.ResetAll()
	for _, in := range inputs {
		if _, err := s.Run(context.Background(), in); err != nil {
			t.Fatal(err)
		}
	}
	return list, gathered
}

// secondMoments is Σ a aᵀ of rows [rows × k], the upper triangle.
func secondMoments(a []float32, k int) []float64 {
	var h []float64
	for i := range k {
		for j := i; j < k; j++ {
			var sum float64
			for r := 0; r < len(a); r += k {
				sum += float64(a[r+i]) * float64(a[r+j])
			}
			h = append(h, sum)
		}
	}
	return h
}

func checkMoments(t *testing.T, gathered *ort.Observations, tag string, rows []float32, k int) {
	t.Helper()
	about, err := gathered.Get(tag)
	if err != nil {
		tags, _ := gathered.Tags()
		t.Fatalf("%v; there are %q", err, tags)
	}
	if about.Columns != k || about.Rows != int64(len(rows)/k) || about.BadRows != 0 || !about.Full {
		t.Fatalf("%s: got %+v, want %d rows of %d", tag, about, len(rows)/k, k)
	}
	if low, high := float64(slices.Min(rows)), float64(slices.Max(rows)); about.Min != low || about.Max != high {
		t.Errorf("%s: between %v and %v, want %v and %v", tag, about.Min, about.Max, low, high)
	}
	got, want := make([]float64, k*(k+1)/2), secondMoments(rows, k)
	if err := gathered.Moments(tag, 0, k, got); err != nil {
		t.Fatal(err)
	}
	largest := slices.Max(want)
	for i := range want {
		if e := math.Abs(got[i] - want[i]); !(e <= 1e-5*largest) {
			t.Fatalf("%s: moment %d is %v, want %v", tag, i, got[i], want[i])
		}
	}
	sums, mean := make([]float64, k), make([]float64, k)
	if err := gathered.Sums(tag, sums); err != nil {
		t.Fatal(err)
	}
	for i, v := range rows {
		mean[i%k] += float64(v)
	}
	for i := range sums {
		if math.Abs(sums[i]-mean[i]) > 1e-4 {
			t.Fatalf("%s: sum %d is %v, want %v", tag, i, sums[i], mean[i])
		}
	}
}

// relu is what the node of that name computes.
func relu(v []float32) []float32 {
	w := slices.Clone(v)
	for i := range w {
		w[i] = max(w[i], 0)
	}
	return w
}

// turn transposes the last two axes of [batch, rows, cols].
func turn(v []float32, rows, cols int) []float32 {
	w := make([]float32, 0, len(v))
	for at := 0; at < len(v); at += rows * cols {
		for c := range cols {
			for r := range rows {
				w = append(w, v[at+r*cols+c])
			}
		}
	}
	return w
}

func TestObserveEveryForm(t *testing.T) {
	const k, n, rows = 40, 48, 12
	rng := rand.New(rand.NewPCG(1, 2))
	w := floats("w", []int64{k, n}, normal(rng, k*n))
	wt := floats("wt", []int64{n, k}, normal(rng, k*n))
	x3, x2 := normal(rng, 2*rows*k), normal(rng, rows*k)
	g := &onnx.Graph{
		Initializers: []*onnx.Tensor{w, wt},
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "b", "s", k), onnx.NewValueInfo("z", onnx.Float, "s", k),
			onnx.NewValueInfo("zt", onnx.Float, k, "s"), onnx.NewValueInfo("xt", onnx.Float, "b", k, "s")},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y5", onnx.Float, onnx.UnknownRank)},
		Nodes: []*onnx.Node{
			node("a", "Relu", []string{"x"}, []string{"xr"}),
			node("q", "MatMul", []string{"xr", "w"}, []string{"y1"}),
			node("k", "MatMul", []string{"xr", "w"}, []string{"y2"}),
			node("gemm", "Gemm", []string{"z", "wt"}, []string{"y3"}, onnx.IntAttr("transB", 1)),
			node("gemmA", "Gemm", []string{"zt", "w"}, []string{"y4"}, onnx.IntAttr("transA", 1)),
			node("left", "MatMul", []string{"wt", "xt"}, []string{"y5"}),
		},
	}
	m := newModel(9, 17, g)
	inputs := map[string]*tensor.Tensor{"x": tensor.Of(x3, 2, rows, k), "z": tensor.Of(x2, rows, k),
		"zt": tensor.Of(turn(x2, rows, k), k, rows), "xt": tensor.Of(turn(x3, rows, k), 2, k, rows)}
	var first []float64
	for _, o := range []ort.SessionOptions{
		{Optimization: ort.OptimizeDisabled, Threads: 1}, {Optimization: ort.OptimizeBasic, Threads: 2},
		{Optimization: ort.OptimizeExtended}, {Optimization: ort.OptimizeAll, Threads: 3},
	} {
		list, gathered := observed(t, m, o, inputs)
		if len(list) != 4 {
			t.Fatalf("%d observations, want 4: %+v", len(list), list)
		}
		if got := list[0]; !slices.Equal(got.Sites, []int{0, 1}) || !slices.Equal(got.Weights, []string{"w"}) {
			t.Errorf("the activation of two sites: %+v", got)
		}
		checkMoments(t, gathered, "xr", relu(x3), k)
		checkMoments(t, gathered, "z", x2, k)
		checkMoments(t, gathered, "zt", x2, k)
		checkMoments(t, gathered, "xt", x3, k)
		h := make([]float64, k*(k+1)/2)
		if err := gathered.Moments("xr", 0, k, h); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = h
		}
		if !slices.Equal(first, h) {
			t.Errorf("%+v gives other numbers", o)
		}
	}
}

func TestObserveFloat16(t *testing.T) {
	const k, n, rows = 40, 48, 300
	rng := rand.New(rand.NewPCG(3, 4))
	x := normal(rng, rows*k)
	halves := make([]tensor.Float16, len(x))
	for i := range x {
		halves[i] = tensor.ToFloat16(x[i])
		x[i] = halves[i].Float32()
	}
	g := &onnx.Graph{
		Initializers: []*onnx.Tensor{onnx.NewFloat16Tensor("w", []int64{k, n}, normal(rng, k*n))},
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float16, "s", k)},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float16, "s", n)},
		Nodes:        []*onnx.Node{node("m", "MatMul", []string{"x", "w"}, []string{"y"})},
	}
	_, gathered := observed(t, newModel(9, 17, g), ort.SessionOptions{}, map[string]*tensor.Tensor{"x": tensor.Of(halves, rows, k)})
	checkMoments(t, gathered, "x", x, k)
}

// Sites inside the branches of If and the body of Loop, one on a value from outside and one on a value of the inside that
// both branches call by the same name.
func TestObserveSubgraphs(t *testing.T) {
	const k, n, rows = 40, 40, 5
	rng := rand.New(rand.NewPCG(5, 6))
	branch := func(name, weight string, op string) *onnx.Graph {
		return &onnx.Graph{
			Name: name,
			Nodes: []*onnx.Node{
				node("", op, []string{"x"}, []string{"inner"}),
				node(name+"_in", "MatMul", []string{"inner", weight}, []string{name + "_y"}),
				node(name+"_out", "MatMul", []string{"x", weight}, []string{name + "_z"}),
				node("", "Add", []string{name + "_y", name + "_z"}, []string{name + "_sum"}),
			},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo(name+"_sum", onnx.Float, "s", n)},
		}
	}
	body := &onnx.Graph{
		Name:   "body",
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("i", onnx.Int64), onnx.NewValueInfo("go", onnx.Bool), onnx.NewValueInfo("state", onnx.Float, "s", k)},
		Nodes: []*onnx.Node{
			node("", "Add", []string{"state", "one"}, []string{"next"}),
			node("in_loop", "MatMul", []string{"next", "w3"}, []string{"dead"}),
			node("", "Identity", []string{"go"}, []string{"go_on"}),
			node("", "ReduceSum", []string{"dead"}, []string{"total"}, onnx.IntAttr("keepdims", 0)),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("go_on", onnx.Bool), onnx.NewValueInfo("next", onnx.Float, "s", k), onnx.NewValueInfo("total", onnx.Float)},
	}
	g := &onnx.Graph{
		Initializers: []*onnx.Tensor{
			floats("w1", []int64{k, n}, normal(rng, k*n)), floats("w2", []int64{k, n}, normal(rng, k*n)), floats("w3", []int64{k, n}, normal(rng, k*n)),
			floats("one", nil, []float32{1}), onnx.NewTensor("three", nil, []int64{3}), onnx.NewTensor("true", nil, []bool{true}),
		},
		Inputs:  []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "s", k), onnx.NewValueInfo("cond", onnx.Bool)},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "s", n), onnx.NewValueInfo("last", onnx.Float, "s", k), onnx.NewValueInfo("totals", onnx.Float, "t")},
		Nodes: []*onnx.Node{
			node("if", "If", []string{"cond"}, []string{"y"}, onnx.GraphAttr("then_branch", branch("then", "w1", "Relu")), onnx.GraphAttr("else_branch", branch("else", "w2", "Neg"))),
			node("loop", "Loop", []string{"three", "true", "x"}, []string{"last", "totals"}, onnx.GraphAttr("body", body)),
		},
	}
	m := newModel(9, 17, g)
	x := normal(rng, rows*k)
	for _, level := range []ort.OptimizationLevel{ort.OptimizeDisabled, ort.OptimizeAll} {
		in := func(cond bool) map[string]*tensor.Tensor {
			return map[string]*tensor.Tensor{"x": tensor.Of(x, rows, k), "cond": tensor.Of([]bool{cond})}
		}
		_, gathered := observed(t, m, ort.SessionOptions{Optimization: level}, in(true))
		checkMoments(t, gathered, "x", x, k)
		checkMoments(t, gathered, "inner", relu(x), k)
		if _, err := gathered.Get("inner#2"); err == nil {
			t.Errorf("%v: a branch that was not taken was observed", level)
		}
		var steps []float32
		for i := range 3 {
			for _, v := range x {
				steps = append(steps, add(v, i+1))
			}
		}
		checkMoments(t, gathered, "next", steps, k)
		_, gathered = observed(t, m, ort.SessionOptions{Optimization: level}, in(true), in(false), in(false))
		if o, err := gathered.Get("inner#2"); err != nil || o.Rows != 2*rows {
			t.Errorf("%v: the other branch: %+v, %v", level, o, err)
		}
	}
}

// add adds 1 so often, as the loop does.
func add(v float32, times int) float32 {
	for range times {
		v++
	}
	return v
}

func TestObserveWideActivationsDiagonally(t *testing.T) {
	const k, rows = rewrite.MaxFullColumns + 8, 3
	rng := rand.New(rand.NewPCG(7, 8))
	x := normal(rng, rows*k)
	g := &onnx.Graph{
		Initializers: []*onnx.Tensor{floats("w", []int64{k, 1}, normal(rng, k))},
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "s", k)},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "s", 1)},
		Nodes:        []*onnx.Node{node("m", "MatMul", []string{"x", "w"}, []string{"y"})},
	}
	list, gathered := observed(t, newModel(9, 17, g), ort.SessionOptions{}, map[string]*tensor.Tensor{"x": tensor.Of(x, rows, k)})
	if list[0].Full {
		t.Fatal("all moments of a wide activation are taken")
	}
	got := make([]float64, k)
	if err := gathered.Moments("x", 0, k, got); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		want := float64(x[i])*float64(x[i]) + float64(x[k+i])*float64(x[k+i]) + float64(x[2*k+i])*float64(x[2*k+i])
		if math.Abs(got[i]-want) > 1e-9*want {
			t.Fatalf("moment %d is %v, want %v", i, got[i], want)
		}
	}
}

// Observers must run as soon as their activation is there, or all activations would wait in memory; and what only the
// outputs of the model need does not run at all.
func TestObserveInTheOrderOfTheModel(t *testing.T) {
	const k, layers = 40, 6
	rng := rand.New(rand.NewPCG(9, 10))
	g := &onnx.Graph{Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, "s", k)}}
	name := func(prefix string, i int) string { return prefix + string(rune('0'+i)) }
	for i := range layers {
		g.Initializers = append(g.Initializers, floats(name("w", i), []int64{k, k}, normal(rng, k*k)))
		g.Nodes = append(g.Nodes, node(name("mm", i), "MatMul", []string{name("x", i), name("w", i)}, []string{name("y", i)}),
			node(name("act", i), "Tanh", []string{name("y", i)}, []string{name("x", i+1)}))
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(name("x", layers), onnx.Float, "s", k)}
	m := newModel(9, 17, g)
	if _, err := rewrite.Observe(m, find(t, m), nil); err != nil {
		t.Fatal(err)
	}
	library := testenv.Ops(t)
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/m.onnx"
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	ran, err := rt.Placement(context.Background(), path, ort.SessionOptions{OpsLibrary: library},
		map[string]*tensor.Tensor{"x0": tensor.Of(normal(rng, 2*k), 2, k)})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range ran {
		order = append(order, r.Op)
	}
	want := strings.Repeat("Observe MatMul Tanh ", layers-1) + "Observe"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("ran %s\nwant %s", got, want)
	}
}

func TestObservationTagsDoNotDependOnPatterns(t *testing.T) {
	const k = 40
	rng := rand.New(rand.NewPCG(11, 12))
	g := &onnx.Graph{
		Initializers: []*onnx.Tensor{floats("w", []int64{k, k}, normal(rng, k*k)), floats("v", []int64{k, k}, normal(rng, k*k))},
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, k, k)},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y2", onnx.Float, k, k)},
		Nodes: []*onnx.Node{
			node("plain", "Gemm", []string{"x", "w"}, []string{"y"}),
			node("turned", "Gemm", []string{"x", "v"}, []string{"y1"}, onnx.IntAttr("transA", 1)),
			node("", "Add", []string{"y", "y1"}, []string{"y2"}),
		},
	}
	m := newModel(9, 17, g)
	all := rewrite.Observations(find(t, m))
	some, err := rewrite.FindSites(m, rewrite.Options{Exclude: []string{"plain"}})
	if err != nil {
		t.Fatal(err)
	}
	list := rewrite.Observations(some)
	if len(all) != 2 || len(list) != 2 || list[1].Tag != "x#2" || all[1].Tag != "x#2" {
		t.Fatalf("got %+v and %+v", all, list)
	}
	if len(list[0].Weights) != 0 || !slices.Equal(list[1].Weights, []string{"v"}) {
		t.Errorf("weights %v and %v", list[0].Weights, list[1].Weights)
	}
	if made, err := rewrite.Observe(m, some, nil); err != nil || len(made) != 1 || made[0].Tag != "x#2" {
		t.Errorf("observed %+v, %v", made, err)
	}
	none, err := rewrite.FindSites(newModel(9, 17, &onnx.Graph{}), rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rewrite.Observe(m, none, nil); err == nil {
		t.Error("a model without sites was observed")
	}
}
