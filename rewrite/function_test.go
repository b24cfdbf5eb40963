package rewrite_test

import (
	"fmt"
	"math/rand/v2"
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
