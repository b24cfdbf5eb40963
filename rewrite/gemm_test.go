package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// gemmForm is one way of writing Y = alpha·A'·B' + beta·C with a constant on one side.
type gemmForm struct {
	left           bool // the constant is A
	transA, transB bool
	alpha, beta    float32
	addend         string // the form of C
}

// addends are the forms of C: constant unless marked dynamic. Y is [M × N].
var addends = []string{"none", "scalar", "[1]", "[N]", "[1,N]", "[M,1]", "[M,N]", "dynamic [N]", "dynamic [M,N]"}

// Rows, columns and the other side of the products in these tests.
const formN, formK, formP = 40, 37, 3

func (f gemmForm) String() string {
	return fmt.Sprintf("left=%v,transA=%v,transB=%v,alpha=%v,beta=%v,C=%s", f.left, f.transA, f.transB, f.alpha, f.beta, f.addend)
}

// model builds the form around a weight that is w/alpha, so that its code is that of w.
func (f gemmForm) model(rng *rand.Rand, w rows) (*onnx.Model, map[string]*tensor.Tensor) {
	g := &onnx.Graph{}
	inputs := map[string]*tensor.Tensor{}
	feed := func(name string, dims ...int64) {
		size := int64(1)
		list := make([]any, len(dims))
		for i, d := range dims {
			size *= d
			list[i] = d
		}
		g.Inputs = append(g.Inputs, onnx.NewValueInfo(name, onnx.Float, list...))
		inputs[name] = tensor.Of(normal(rng, int(size)), dims...)
	}
	stored := w.times(1 / f.alpha)
	m, n := int64(formP), int64(formN)
	if f.left {
		m, n = n, m
		dims, v := []int64{formN, formK}, stored.v
		if f.transA {
			dims, v = []int64{formK, formN}, stored.transposed()
		}
		g.Initializers = append(g.Initializers, floats("A", dims, v))
		if f.transB {
			feed("B", formP, formK)
		} else {
			feed("B", formK, formP)
		}
	} else {
		dims, v := []int64{formK, formN}, stored.transposed()
		if f.transB {
			dims, v = []int64{formN, formK}, stored.v
		}
		g.Initializers = append(g.Initializers, floats("B", dims, v))
		if f.transA {
			feed("A", formK, formP)
		} else {
			feed("A", formP, formK)
		}
	}
	names := []string{"A", "B", "C"}
	constant := func(dims ...int64) {
		size := int64(1)
		for _, d := range dims {
			size *= d
		}
		g.Initializers = append(g.Initializers, floats("C", dims, normal(rng, int(size))))
	}
	switch f.addend {
	case "none":
		names = names[:2]
	case "scalar":
		constant()
	case "[1]":
		constant(1)
	case "[N]":
		constant(n)
	case "[1,N]":
		constant(1, n)
	case "[M,1]":
		constant(m, 1)
	case "[M,N]":
		constant(m, n)
	case "dynamic [N]":
		feed("C", n)
	case "dynamic [M,N]":
		feed("C", m, n)
	}
	flag := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	g.Nodes = []*onnx.Node{node("gemm", "Gemm", names, []string{"Y"},
		onnx.IntAttr("transA", flag(f.transA)), onnx.IntAttr("transB", flag(f.transB)),
		onnx.FloatAttr("alpha", f.alpha), onnx.FloatAttr("beta", f.beta))}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("Y", onnx.Float, m, n)}
	return newModel(8, 13, g), inputs
}

func TestEveryFormOfGemm(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(1, 2))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", formN, formK)
	for _, left := range []bool{false, true} {
		for _, trans := range []int{0, 1, 2, 3} {
			for _, addend := range addends {
				for _, scale := range [][2]float32{{1, 1}, {0.5, -2}, {-4, 0}} {
					f := gemmForm{left, trans&1 != 0, trans&2 != 0, scale[0], scale[1], addend}
					t.Run(f.String(), func(t *testing.T) { f.check(t, rng, matrix, w) })
				}
			}
		}
	}
}

func (f gemmForm) check(t *testing.T, rng *rand.Rand, matrix *quant.Matrix, w rows) {
	m, inputs := f.model(rng, w)
	before := onnx.Clone(m)
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil || len(sites) != 1 || sites[0].Weight == nil {
		t.Fatalf("%+v, %v", sites, err)
	}
	// What is to be coded is W, alpha included.
	got := make([]float32, formN*formK)
	if err := sites[0].Weight.Rows(got, 0, formN); err != nil || !slices.Equal(got, w.v) {
		t.Fatalf("the weight to code is not alpha times the constant, %v", err)
	}
	// The same in the order in which it is stored, in two parts.
	stored := w.v
	if sites[0].Weight.Columns() {
		stored = w.transposed()
	}
	for _, at := range []int{0, 7} {
		got := make([]float32, len(stored)-2*at)
		if err := sites[0].Weight.Numbers(got, int64(at)); err != nil || !slices.Equal(got, stored[at:len(stored)-at]) {
			t.Errorf("stored numbers from %d on: %v", at, err)
		}
	}
	if err := sites[0].Weight.Numbers(got, 1); err == nil {
		t.Error("numbers beyond the last are read")
	}
	apply(t, m, matrix)
	if count(m, "Gemm") != 0 || count(m, "HNLQLinear") != 1 {
		t.Fatalf("not replaced:\n%s", dump(t, m))
	}
	// A constant C with one number per output channel, or one number in all, needs no Add of its own.
	perChannel := map[string]bool{"none": true, "scalar": true, "[1]": true, "[N]": !f.left, "[1,N]": !f.left, "[M,1]": f.left}
	if want := perChannel[f.addend] || f.beta == 0; (count(m, "Add") == 0) != want {
		t.Errorf("folded: %v, want %v\n%s", !want, want, dump(t, m))
	}
	sameOutputs(t, before, m, inputs, 2e-6)
}

// TestGemmDropsWhatCountsForNothing: a C times zero has no reader once the Gemm is gone, but where something else reads it.
func TestGemmDropsWhatCountsForNothing(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := newModel(8, 17, &onnx.Graph{
			Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
			Initializers: []*onnx.Tensor{floats("w", []int64{64, 48}, make([]float32, 64*48)), floats("C", []int64{48}, make([]float32, 48))},
			Nodes:        []*onnx.Node{node("gemm", "Gemm", []string{"x", "w", "C"}, []string{"y"}, onnx.FloatAttr("beta", 0))},
			Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 48)},
		})
		if shared {
			m.Graph.Nodes = append(m.Graph.Nodes, node("again", "Add", []string{"y", "C"}, []string{"z"}))
			m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo("z", onnx.Float, "batch", 48))
		}
		apply(t, m)
		wellFormed(t, m)
		if got := m.Graph.Initializer("C") != nil; got != shared {
			t.Errorf("read elsewhere: %v, there: %v\n%s", shared, got, dump(t, m))
		}
	}
}
