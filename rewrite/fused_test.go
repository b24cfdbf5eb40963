package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// fusedModel has one node of com.microsoft, between the input x and the output y.
func fusedModel(op string, x []int64, inputs []string, stored []*onnx.Tensor, attrs ...*onnx.Attribute) *onnx.Model {
	n := node("fused", op, inputs, []string{"y"}, attrs...)
	n.Domain = "com.microsoft"
	dims := make([]any, len(x))
	for i, d := range x {
		dims[i] = d
	}
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, dims...)},
		Initializers: stored,
		Nodes:        []*onnx.Node{n},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)},
	})
	m.SetOpset("com.microsoft", 1)
	return m
}

func flag01(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// TestFusedMatMul replaces what ONNX Runtime makes of a MatMul with a Transpose or a factor beside it: the factor goes into the weight,
// and the activation is turned where the node did that.
func TestFusedMatMul(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(90, 91))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", formN, formK)
	for _, left := range []bool{false, true} {
		for trans := range 4 {
			for _, alpha := range []float32{1, 0.125} {
				for _, batch := range [][]int64{nil, {2}, {2, 1}} {
					transA, transB := trans&1 != 0, trans&2 != 0
					t.Run(fmt.Sprintf("left=%v,transA=%v,transB=%v,alpha=%v,batch=%v", left, transA, transB, alpha, batch), func(t *testing.T) {
						stored, turned := w.times(1/alpha), transB
						x, inputs := []int64{formP, formK}, []string{"x", "w"}
						if left {
							inputs, turned = []string{"w", "x"}, !transA
						}
						if left && !transB || !left && transA {
							x = []int64{formK, formP}
						}
						dims, v := []int64{formK, formN}, stored.transposed()
						if turned {
							dims, v = []int64{formN, formK}, stored.v
						}
						x = append(append([]int64{}, batch...), x...)
						m := fusedModel("FusedMatMul", x, inputs, []*onnx.Tensor{floats("w", dims, v)},
							onnx.IntAttr("transA", flag01(transA)), onnx.IntAttr("transB", flag01(transB)), onnx.FloatAttr("alpha", alpha))
						before := onnx.Clone(m)
						apply(t, m, matrix)
						if count(m, "FusedMatMul") != 0 || count(m, "HNLQLinear") != 1 || count(m, "Mul") != 0 {
							t.Fatalf("not replaced by one product:\n%s", dump(t, m))
						}
						size := 1
						for _, d := range x {
							size *= int(d)
						}
						sameByBothPaths(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, size), x...)}, 2e-6)
					})
				}
			}
		}
	}
}

// TestFusedGemm: what the node does to each element of its result stands behind the product, after all that is added to that.
func TestFusedGemm(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(92, 93))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", formN, formK)
	alpha, beta, gamma := onnx.FloatAttr("activation_alpha", 0.3), onnx.FloatAttr("activation_beta", 0.4), onnx.FloatAttr("activation_gamma", 1.25)
	for _, f := range []struct {
		function string
		attrs    []*onnx.Attribute
	}{
		{"Relu", nil}, {"Sigmoid", nil}, {"Softplus", nil}, {"Softsign", nil}, {"Tanh", nil}, {"Elu", []*onnx.Attribute{alpha}},
		{"LeakyRelu", []*onnx.Attribute{alpha}}, {"ThresholdedRelu", []*onnx.Attribute{alpha}}, {"HardSigmoid", []*onnx.Attribute{alpha, beta}},
		{"Selu", []*onnx.Attribute{alpha, gamma}},
	} {
		for _, bias := range [][]int64{nil, {formN}, {formP, 1}, {formP, formN}} { // folded, added behind, or absent
			t.Run(fmt.Sprintf("%s, C %v", f.function, bias), func(t *testing.T) {
				stored, inputs := []*onnx.Tensor{floats("w", []int64{formN, formK}, w.times(2).v)}, []string{"x", "w"}
				if bias != nil {
					size := 1
					for _, d := range bias {
						size *= int(d)
					}
					stored, inputs = append(stored, floats("C", bias, normal(rng, size))), append(inputs, "C")
				}
				attrs := append([]*onnx.Attribute{onnx.IntAttr("transB", 1), onnx.FloatAttr("alpha", 0.5), onnx.FloatAttr("beta", -2)}, f.attrs...)
				attrs = append(attrs, onnx.StringAttr("activation", f.function))
				m := fusedModel("FusedGemm", []int64{formP, formK}, inputs, stored, attrs...)
				// An Add behind a function is no bias of the product.
				m.Graph.Initializers = append(m.Graph.Initializers, floats("later", []int64{formN}, normal(rng, formN)))
				m.Graph.Nodes = append(m.Graph.Nodes, node("add", "Add", []string{"y", "later"}, []string{"z"}))
				m.Graph.Outputs[0].Name = "z"
				before := onnx.Clone(m)
				apply(t, m, matrix)
				if count(m, "FusedGemm") != 0 || count(m, "HNLQLinear") != 1 || count(m, f.function) != 1 {
					t.Fatalf("not replaced:\n%s", dump(t, m))
				}
				sameByBothPaths(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, formP*formK), formP, formK)}, 2e-6)
			})
		}
	}
}

// TestFusedForms: those that are left say why, and none is left out of the list.
func TestFusedForms(t *testing.T) {
	square := floats("w", []int64{64, 64}, make([]float32, 4096))
	unknown := func(m *onnx.Model) *onnx.Model {
		m.Graph.Inputs[0] = onnx.NewValueInfo("x", onnx.Float, onnx.UnknownRank)
		return m
	}
	right := []string{"x", "w"}
	for _, tt := range []struct {
		name   string
		m      *onnx.Model
		reason rewrite.Reason
		detail string
	}{
		{"the old name", fusedModel("TransposeMatMul", []int64{2, 64}, right, []*onnx.Tensor{square}, onnx.FloatAttr("alpha", 2)), "", ""},
		{"two activations", fusedModel("FusedMatMul", []int64{64, 64}, []string{"x", "x"}, nil), rewrite.DynamicB, "input of the graph"},
		{"axes of the batch", fusedModel("FusedMatMul", []int64{2, 3, 64}, right, []*onnx.Tensor{square}, onnx.IntAttr("transBatchA", 1)), rewrite.UnsupportedAttr, "axes of a batch"},
		{"unknown rank", unknown(fusedModel("FusedMatMul", nil, right, []*onnx.Tensor{square}, onnx.IntAttr("transA", 1))), rewrite.UnsupportedAttr, "rank is not known"},
		{"unknown rank that does not matter", unknown(fusedModel("FusedMatMul", nil, right, []*onnx.Tensor{square}, onnx.IntAttr("transB", 1))), "", ""},
		{"another function", fusedModel("FusedGemm", []int64{2, 64}, right, []*onnx.Tensor{square}, onnx.StringAttr("activation", "Erf")), rewrite.UnsupportedAttr, `"Erf"`},
		{"no slope", fusedModel("FusedGemm", []int64{2, 64}, right, []*onnx.Tensor{square}, onnx.StringAttr("activation", "LeakyRelu")), rewrite.UnsupportedAttr, "activation_alpha"},
	} {
		sites := find(t, tt.m)
		if len(sites) != 1 || sites[0].Reason != tt.reason || !strings.Contains(sites[0].Detail, tt.detail) {
			t.Errorf("%s: %+v, want reason %q with %q", tt.name, sites, tt.reason, tt.detail)
		}
	}
}
