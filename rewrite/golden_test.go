package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// goldenGraphs are small graphs that show one thing each. All take x [batch, 64].
func goldenGraphs() map[string]*onnx.Model {
	rng := rand.New(rand.NewPCG(30, 31))
	w := func(name string, dims ...int64) *onnx.Tensor {
		size := int64(1)
		for _, d := range dims {
			size *= d
		}
		return floats(name, dims, normal(rng, int(size)))
	}
	x := func() []*onnx.ValueInfo { return []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)} }
	out := func(name string, n int) []*onnx.ValueInfo {
		return []*onnx.ValueInfo{onnx.NewValueInfo(name, onnx.Float, "batch", n)}
	}

	// IR 3 lists initializers as inputs, and the nodes have no names. The opset is one where Slice takes attributes.
	old := newModel(3, 8, &onnx.Graph{
		Inputs: append(x(), onnx.NewValueInfo("w", onnx.Float, 48, 64), onnx.NewValueInfo("b", onnx.Float, 48),
			onnx.NewValueInfo("w2", onnx.Float, 48, 40)),
		Initializers: []*onnx.Tensor{w("w", 48, 64), w("b", 48), w("w2", 48, 40)},
		Nodes: []*onnx.Node{
			node("", "Gemm", []string{"x", "w", "b"}, []string{"h"}, onnx.IntAttr("transB", 1)),
			node("", "Relu", []string{"h"}, []string{"r"}),
			node("", "MatMul", []string{"r", "w2"}, []string{"y"}),
		},
		Outputs: out("y", 40),
	})

	// Both branches of an If use a weight of the outer graph, and one has a Constant of its own.
	branch := func(extra bool) *onnx.Graph {
		g := &onnx.Graph{Name: "branch", Nodes: []*onnx.Node{node("shared", "Gemm", []string{"x", "w", "b"}, []string{"h"})}}
		if extra {
			g.Nodes = append(g.Nodes,
				node("own", "Constant", nil, []string{"inner"}, onnx.TensorAttr("value", w("", 48, 48))),
				node("second", "MatMul", []string{"h", "inner"}, []string{"h2"}))
		}
		g.Outputs = out(g.Nodes[len(g.Nodes)-1].Outputs[0], 48)
		return g
	}
	nested := newModel(8, 17, &onnx.Graph{
		Inputs:       append(x(), onnx.NewValueInfo("which", onnx.Bool)),
		Initializers: []*onnx.Tensor{w("w", 64, 48), w("b", 48)},
		Nodes: []*onnx.Node{node("choice", "If", []string{"which"}, []string{"y"},
			onnx.GraphAttr("then_branch", branch(true)), onnx.GraphAttr("else_branch", branch(false)))},
		Outputs: out("y", 48),
	})

	// Types and annotations of values that go must go with them; the names we would like are taken.
	annotated := newModel(8, 17, &onnx.Graph{
		Inputs:       x(),
		Initializers: []*onnx.Tensor{w("w", 64, 48), w("w.codes", 48), onnx.NewFloat16Tensor("half", []int64{48, 48}, normal(rng, 48*48))},
		ValueInfo:    []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 48), onnx.NewValueInfo("full", onnx.Float, 48, 48)},
		QuantizationAnnotations: []*onnx.TensorAnnotation{
			{TensorName: "w"}, {TensorName: "x"},
		},
		Nodes: []*onnx.Node{
			node("fc", "MatMul", []string{"x", "w"}, []string{"y"}),
			node("bias", "Add", []string{"y", "w.codes"}, []string{"z"}),
			node("cast", "Cast", []string{"half"}, []string{"full"}, onnx.IntAttr("to", 1)),
			node("turn", "Transpose", []string{"full"}, []string{"turned"}),
			node("fc2", "MatMul", []string{"z", "turned"}, []string{"out"}),
		},
		Outputs: out("out", 48),
	})

	shared := newModel(8, 17, &onnx.Graph{
		Inputs:       x(),
		Initializers: []*onnx.Tensor{w("w", 64, 64), w("c", 2, 64)},
		Nodes: []*onnx.Node{
			node("a", "MatMul", []string{"x", "w"}, []string{"h"}),
			node("b", "Gemm", []string{"h", "w"}, []string{"i"}),
			node("turned", "Gemm", []string{"i", "w", "x"}, []string{"j"}, onnx.IntAttr("transB", 1), onnx.FloatAttr("beta", 0.5)),
			node("twice", "Gemm", []string{"j", "w"}, []string{"y"}, onnx.FloatAttr("alpha", 2)),
		},
		Outputs: out("y", 64),
	})
	return map[string]*onnx.Model{"ir3": old, "subgraphs": nested, "annotated": annotated, "shared": shared}
}

func TestGolden(t *testing.T) {
	for name, m := range goldenGraphs() {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			fmt.Fprintf(&b, "-- before --\n%s-- sites --\n", dump(t, m))
			for _, s := range find(t, m) {
				fmt.Fprintf(&b, "%s %s %s K=%d N=%d %s %s\n", s.Name, s.Op, s.Initializer, s.K, s.N, s.Status, s.Reason)
			}
			apply(t, m)
			after, _, _ := strings.Cut(dump(t, m), "function ") // the body has a golden file of its own
			fmt.Fprintf(&b, "-- after --\n%s", after)
			golden(t, name, b.String())
		})
	}
}

// TestGoldenBodies shows the function for the three forms it has.
func TestGoldenBodies(t *testing.T) {
	rng := rand.New(rand.NewPCG(32, 33))
	_, w := onGrid(t, rng, "d4:4", 40, 64)
	for _, opset := range []int64{8, 11, 17} {
		m, _ := chainModel(opset, onnx.Float, w)
		apply(t, m)
		_, body, _ := strings.Cut(dump(t, m), "function ")
		golden(t, fmt.Sprintf("body%d", opset), "function "+body)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update and look at the difference):\n%s", path, got)
	}
}

// TestGoldenGraphsRun compares the golden graphs before and after.
func TestGoldenGraphsRun(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(34, 35))
	for name, m := range goldenGraphs() {
		t.Run(name, func(t *testing.T) {
			before := onnx.Clone(m)
			apply(t, m)
			inputs := map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 2*64), 2, 64)}
			for _, which := range []bool{true, false} {
				if name == "subgraphs" {
					inputs["which"] = tensor.Of([]bool{which})
				}
				sameOutputs(t, before, m, inputs, 0.25) // 4 bits; that the right weight is in the right place
			}
		})
	}
}
