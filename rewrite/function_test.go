package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// chainModel multiplies A [2, 3, K] by each weight in turn, with a bias after the first, in float32 or float16.
func chainModel(opset int64, dt onnx.DataType, weights ...rows) (*onnx.Model, map[string]*tensor.Tensor) {
	g := &onnx.Graph{Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x0", dt, 2, "sequence", weights[0].k)}}
	store := func(name string, dims []int64, v []float32) {
		if dt == onnx.Float16 {
			g.Initializers = append(g.Initializers, onnx.NewFloat16Tensor(name, dims, v))
		} else {
			g.Initializers = append(g.Initializers, floats(name, dims, v))
		}
	}
	rng := rand.New(rand.NewPCG(3, uint64(opset)))
	x := "x0"
	for i, w := range weights {
		name := fmt.Sprintf("w%d", i)
		store(name, []int64{int64(w.k), int64(w.n)}, w.transposed())
		y := fmt.Sprintf("x%d", i+1)
		g.Nodes = append(g.Nodes, node("fc"+name, "MatMul", []string{x, name}, []string{y}))
		x = y
		if i == 0 {
			store("b", []int64{int64(w.n)}, normal(rng, w.n))
			g.Nodes = append(g.Nodes, node("bias", "Add", []string{"b", y}, []string{"biased"}))
			x = "biased"
		}
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(x, dt, 2, "sequence", weights[len(weights)-1].n)}
	input := normal(rng, 6*weights[0].k)
	shape := []int64{2, 3, int64(weights[0].k)}
	feed := tensor.Of(input, shape...)
	if dt == onnx.Float16 {
		half := make([]tensor.Float16, len(input))
		for i, v := range input {
			half[i] = tensor.ToFloat16(v)
		}
		feed = tensor.Of(half, shape...)
	}
	return newModel(8, opset, g), map[string]*tensor.Tensor{"x0": feed}
}

// TestBodyAtEveryOpset runs the portable body for every way the format can store a weight.
func TestBodyAtEveryOpset(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(4, 5))
	var matrices []*quant.Matrix
	var weights []rows
	for _, c := range []struct {
		codec string
		n, k  int
	}{
		{"d4:4,4:g2,3,4,6", 130, 100},   // bytes, four gains, indexed scales, rows and columns that leave a rest
		{"d4:2,4:g3,4,5,7", 65, 130},    // two digits to a byte
		{"z1:16", 48, 65},               // eight digits in four bytes, no gains
		{"e8:4", 33, 48},                // 16-bit digits
		{"z2:3,5:g1,2,3", 1700, 33},     // odd radices, a gain index with no gain of its own
		{"d4:4:g1,2,3,4,5,6", 17, 1700}, // sixteen gain indices, and a scale for every row
	} {
		m, w := onGrid(t, rng, c.codec, c.n, c.k)
		matrices, weights = append(matrices, m), append(weights, w)
	}
	for opset := int64(rewrite.MinOpset); opset <= rewrite.MaxOpset; opset++ {
		t.Run(fmt.Sprint("opset ", opset), func(t *testing.T) {
			m, inputs := chainModel(opset, onnx.Float, weights...)
			before := onnx.Clone(m)
			apply(t, m, matrices...)
			if count(m, "HNLQLinear") != len(weights) || count(m, "Add") != 0 {
				t.Fatalf("not replaced:\n%s", dump(t, m))
			}
			sameOutputs(t, before, m, inputs, 1e-5)
		})
	}
}

// TestFormsOfTheBody runs the forms that a function has for models of one kind of weight: steps that none of them needs are left out, and one that is
// most of its model is put together in another way than one of many.
func TestFormsOfTheBody(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(104, 5))
	for _, c := range []struct {
		codec string
		side  int
	}{
		{"d4:4,4:g2,3,4,6", 64}, // nothing left over
		{"d4:2,4:g2,3,4,6", 64}, // digits that share a byte
		{"d4:4,4:g2,3,4,6", 72}, // gains left over
		{"d4:4", 64},            // one level, no gains
		{"z1:16", 100},          // columns left over, no gains
		{"e8:2,2:g1,2,3", 100},
		{"d4:4,4,4", 63}, // rows left over
	} {
		matrix, w := onGrid(t, rng, c.codec, c.side, c.side)
		for _, opset := range []int64{7, 9, 11, 12, 13, 17, 25} {
			for _, count := range []int{1, 4} {
				m, inputs := chainModel(opset, onnx.Float, slices.Repeat([]rows{w}, count)...)
				before := onnx.Clone(m)
				if r := apply(t, m, matrix); r.Nodes != count {
					t.Fatalf("%s %d opset %d: %d nodes of %d", c.codec, c.side, opset, r.Nodes, count)
				}
				sameOutputs(t, before, m, inputs, 1e-5)
			}
		}
	}
}

// TestBodyIsShort: ONNX Runtime takes time to load by the number of nodes of a model times that of the nodes which only constants feed.
func TestBodyIsShort(t *testing.T) {
	rng := rand.New(rand.NewPCG(105, 5))
	matrix, w := onGrid(t, rng, "d4:4,4:g3,4,5,6", 64, 64)
	m, _ := chainModel(17, onnx.Float, w, w)
	apply(t, m, matrix)
	fed := map[string]bool{"A": true} // by other nodes
	nodes, first := 0, 0
	for _, n := range m.Functions[0].Nodes {
		if n.OpType == "Constant" {
			continue
		}
		nodes++
		if !slices.ContainsFunc(n.Inputs, func(in string) bool { return fed[in] }) {
			first++
		}
		fed[n.Outputs[0]] = true
	}
	if nodes > 31 || first > 7 {
		t.Errorf("%d nodes, %d of them fed by constants alone:\n%s", nodes, first, dump(t, m))
	}
}

// TestNodesOfOldFiles: nodes that were written when the function read other attributes run beside new ones, on the function that takes the place of theirs.
func TestNodesOfOldFiles(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(106, 5))
	for _, name := range []string{"d4", "d4_packed", "z2_odd", "d4_turned"} {
		m, err := onnx.Open(filepath.Join("testdata", "compat", "v1", name+".onnx"))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		k := int(m.Graph.Nodes[0].Int("K", 0))
		matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 40, k)
		m.Graph.Initializers = append(m.Graph.Initializers, floats("new", []int64{int64(k), 40}, w.transposed()))
		m.Graph.Nodes = append(m.Graph.Nodes, node("beside", "MatMul", []string{"x0", "new"}, []string{"y"}))
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo("y", onnx.Float, 2, "sequence", 40))
		before := onnx.Clone(m)
		if r := apply(t, m, matrix); r.Nodes != 1 {
			t.Fatalf("%s: %d nodes", name, r.Nodes)
		}
		sameOutputs(t, before, m, map[string]*tensor.Tensor{"x0": tensor.Of(normal(rng, 6*k), 2, 3, int64(k))}, 1e-6)
	}
}

func TestBodyInFloat16(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(6, 7))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 40, 64)
	for _, opset := range []int64{7, 9, 13, 17, 21, 25} {
		m, inputs := chainModel(opset, onnx.Float16, w)
		before := onnx.Clone(m)
		apply(t, m, matrix)
		linears, err := rewrite.ReadLinears(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(linears) != 1 || linears[0].DType != onnx.Float16 {
			t.Fatalf("read back %d nodes:\n%s", len(linears), dump(t, m))
		}
		sameOutputs(t, before, m, inputs, 2e-3) // both round weights and outputs to 11 bits
	}
}

func TestOpsetsWithoutABody(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	matrix, w := onGrid(t, rng, "d4:4", 40, 64)
	for _, opset := range []int64{6, 26} {
		m, _ := chainModel(opset, onnx.Float, w)
		before := dump(t, m)
		sites := find(t, m)
		if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: sites[0], Matrix: matrix}}, "test"); err == nil {
			t.Errorf("opset %d: no error", opset)
		}
		if after := dump(t, m); after != before {
			t.Errorf("opset %d: changed in spite of the error:\n%s", opset, after)
		}
	}
}

// TestNamesOfInlining: a model that ONNX Runtime has saved keeps the names that it gave to what it inlined, and gives them again when it
// inlines our function the next time.
func TestNamesOfInlining(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(96, 97))
	weight := func(name string) *onnx.Tensor { return floats(name, []int64{64, 64}, normal(rng, 4096)) }
	const first, second = "_inlfunc_HNLQLinear_scaled", "_inlfunc_HNLQLinear_token_0_scaled.2"
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
		Initializers: []*onnx.Tensor{weight("w"), weight("v"), weight(first), weight(second)},
		Nodes: []*onnx.Node{
			node("a", "MatMul", []string{"x", "w"}, []string{"y0"}), node("b", "MatMul", []string{"y0", "v"}, []string{"y1"}),
			node("c", "Mul", []string{first, second}, []string{"_inlfunc_HNLQLinear_token_1_size"}),
			node("d", "Relu", []string{"_inlfunc_HNLQLinear_token_1_size"}, []string{"positive"}),
			node("e", "MatMul", []string{"y1", "positive"}, []string{"y"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)},
	})
	before := onnx.Clone(m)
	if r := apply(t, m); r.Nodes != 2 {
		t.Fatalf("%d nodes coded, two are to and one is to keep its names", r.Nodes)
	}
	sameByBothPaths(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 3*64), 3, 64)}, 0.25)
}
