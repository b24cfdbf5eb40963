package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// convForm is a graph with one Conv of x by W [40 × 37], stored with the given kernel.
type convForm struct {
	name   string
	x      []int64 // shape of x
	kernel []int64 // ones, unless it is no product
	opset  int64   // 0 for 17
	fixed  bool    // declare the shape of x; otherwise batch and space are symbols
	attrs  []*onnx.Attribute
	bias   string  // of the Conv: "", constant or input
	add    []int64 // shape of a constant that is added behind, nil for none
	weight string  // how W is stored: "" as it is, node, flat or turned
	before []int64 // the permutation of a Transpose of x, nil for none
	reason rewrite.Reason
	absent bool // it is no site
	folded bool // the Add is gone afterwards
	turns  int  // Transpose nodes afterwards; 0 for 2
}

func (f convForm) model(rng *rand.Rand, w rows) (*onnx.Model, map[string]*tensor.Tensor) {
	dims := make([]any, len(f.x))
	for i, d := range f.x {
		dims[i] = d
		if !f.fixed && i != 1 && f.before == nil {
			dims[i] = fmt.Sprintf("d%d", i)
		}
	}
	stored := append([]int64{formN, formK}, f.kernel...)
	g := &onnx.Graph{
		Inputs:  []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, dims...)},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("out", onnx.Float, onnx.UnknownRank)},
	}
	size := 1
	for _, d := range f.x {
		size *= int(d)
	}
	fed := map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, size), f.x...)}
	x, weight := "x", "w"
	if f.before != nil {
		g.Nodes = append(g.Nodes, node("before", "Transpose", []string{"x"}, []string{"xt"}, onnx.IntsAttr("perm", f.before...)))
		x = "xt"
	}
	switch f.weight {
	case "":
		g.Initializers = append(g.Initializers, floats("w", stored, w.v))
	case "node":
		g.Nodes = append(g.Nodes, node("stored", "Constant", nil, []string{"w"}, onnx.TensorAttr("value", floats("", stored, w.v))))
	case "flat":
		g.Initializers = append(g.Initializers, floats("flat", []int64{formN, formK}, w.v), onnx.NewTensor("to", []int64{int64(len(stored))}, stored))
		g.Nodes = append(g.Nodes, node("shaped", "Reshape", []string{"flat", "to"}, []string{"w"}))
	case "turned":
		g.Initializers = append(g.Initializers, floats("turned", []int64{1, formK, 1, formN}, w.transposed()))
		g.Nodes = append(g.Nodes, node("turn", "Transpose", []string{"turned"}, []string{"w"}, onnx.IntsAttr("perm", 3, 1, 0, 2)))
	}
	inputs := []string{x, weight}
	switch f.bias {
	case "constant":
		g.Initializers = append(g.Initializers, floats("b", []int64{formN}, normal(rng, formN)))
		inputs = append(inputs, "b")
	case "input":
		g.Inputs = append(g.Inputs, onnx.NewValueInfo("b", onnx.Float, formN))
		fed["b"] = tensor.Of(normal(rng, formN), formN)
		inputs = append(inputs, "b")
	}
	g.Nodes = append(g.Nodes, node("conv", "Conv", inputs, []string{"y"}, f.attrs...))
	y := "y"
	if f.add != nil {
		g.Initializers = append(g.Initializers, floats("more", f.add, normal(rng, int(slices.Max(f.add)))))
		g.Nodes = append(g.Nodes, node("add", "Add", []string{"y", "more"}, []string{"z"}))
		y = "z"
	}
	g.Nodes = append(g.Nodes, node("", "Identity", []string{y}, []string{"out"}))
	opset := f.opset
	if opset == 0 {
		opset = 17
	}
	return newModel(8, opset, g), fed
}

// convForms covers spatial ranks, strides, padding, biases and ways to store the weight.
func convForms() []convForm {
	ints, str := onnx.IntsAttr, onnx.StringAttr
	strides := func(s ...int64) []*onnx.Attribute { return []*onnx.Attribute{ints("strides", s...)} }
	attrs := func(a ...*onnx.Attribute) []*onnx.Attribute { return a }
	const n, k = formN, formK
	forms := []convForm{
		{name: "line", x: []int64{2, k, 5}, kernel: []int64{1}},
		{name: "plane", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}},
		{name: "space", x: []int64{2, k, 3, 4, 2}, kernel: []int64{1, 1, 1}, bias: "constant"},
		{name: "fixed shape", x: []int64{1, k, 3, 4}, kernel: []int64{1, 1}, fixed: true, bias: "constant"},
		{name: "line, bias", x: []int64{2, k, 5}, kernel: []int64{1}, bias: "constant"},
		{name: "plane, bias input", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, bias: "input"},
		{name: "plane, bias input and Add", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, bias: "input", add: []int64{n, 1, 1}},
		{name: "Add of channels", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, add: []int64{n, 1, 1}, folded: true},
		{name: "Add of channels, rank 4", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, add: []int64{1, n, 1, 1}, folded: true},
		{name: "Add of a scalar", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, add: []int64{1}, folded: true},
		{name: "Add of columns", x: []int64{2, k, 3, n}, kernel: []int64{1, 1}, add: []int64{n}},
		{name: "longer Add", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, add: []int64{1, 1, n, 1, 1}},
		{name: "no padding", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, attrs: attrs(ints("pads", 0, 0, 0, 0), ints("kernel_shape", 1, 1), ints("dilations", 3, 2))},
		{name: "padding", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, attrs: attrs(ints("pads", 1, 0, 1, 0)), reason: rewrite.UnsupportedAttr},
		{name: "groups", x: []int64{2, 2 * k, 3, 4}, kernel: []int64{1, 1}, attrs: attrs(onnx.IntAttr("group", 2)), absent: true},
		{name: "kernel", x: []int64{2, k, 3, 4}, kernel: []int64{1, 3}, absent: true},
		{name: "strides, line", x: []int64{2, k, 7}, kernel: []int64{1}, attrs: strides(3)},
		{name: "strides, plane", x: []int64{2, k, 5, 8}, kernel: []int64{1, 1}, attrs: strides(2, 3), bias: "constant"},
		{name: "strides of one axis", x: []int64{2, k, 5, 8, 3}, kernel: []int64{1, 1, 1}, attrs: strides(1, 1, 2)},
		{name: "strides, opset 10", x: []int64{2, k, 5, 8}, kernel: []int64{1, 1}, opset: 10, attrs: strides(2, 2)},
		{name: "strides, opset 9", x: []int64{2, k, 5, 8}, kernel: []int64{1, 1}, opset: 9, attrs: strides(2, 2), reason: rewrite.UnsupportedAttr},
		{name: "large strides of SAME", x: []int64{2, k, 5, 8}, kernel: []int64{1, 1}, attrs: attrs(str("auto_pad", "SAME_UPPER"), ints("strides", 3, 3)), reason: rewrite.UnsupportedAttr},
		{name: "from channels last", x: []int64{2, 3, 4, k}, kernel: []int64{1, 1}, before: []int64{0, 3, 1, 2}, turns: 1},
		{name: "from another order", x: []int64{3, 2, 4, k}, kernel: []int64{1, 1}, before: []int64{1, 3, 0, 2}, turns: 3},
		{name: "stored in a node", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, weight: "node"},
		{name: "stored flat", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, weight: "flat"},
		{name: "stored turned", x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, weight: "turned"},
	}
	for _, auto := range []string{"VALID", "SAME_UPPER", "SAME_LOWER"} {
		for _, size := range []int64{7, 8} {
			forms = append(forms, convForm{name: fmt.Sprintf("%s of %d", auto, size), x: []int64{1, k, size, 5}, kernel: []int64{1, 1}, fixed: true,
				attrs: attrs(str("auto_pad", auto), ints("strides", 2, 1))})
		}
	}
	for _, opset := range []int64{7, 9, 11, 13, 18, 21, 22} {
		forms = append(forms, convForm{name: fmt.Sprintf("opset %d", opset), x: []int64{2, k, 3, 4}, kernel: []int64{1, 1}, opset: opset, bias: "constant"})
	}
	return forms
}

// TestPointwise replaces convolutions that are products, and those alone.
func TestPointwise(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(20, 21))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", formN, formK)
	for _, f := range convForms() {
		t.Run(f.name, func(t *testing.T) {
			size := 1
			for _, d := range f.kernel {
				size *= int(d)
			}
			stored := w
			if size > 1 {
				stored = rows{formN, formK, normal(rng, formN*formK*size)}
			}
			m, fed := f.model(rng, stored)
			before := onnx.Clone(m)
			sites := find(t, m)
			if f.absent {
				if len(sites) != 0 {
					t.Fatalf("sites %+v, want none", sites)
				}
				return
			}
			if len(sites) != 1 || sites[0].Reason != f.reason || sites[0].Op != "Conv" {
				t.Fatalf("sites %+v, want one Conv with reason %q", sites, f.reason)
			}
			if f.reason != "" {
				return
			}
			if s := sites[0]; s.N != formN || s.K != formK || s.Axis != 1-len(f.x) {
				t.Errorf("site of %d × %d along axis %d", s.N, s.K, s.Axis)
			}
			apply(t, m, matrix)
			if f.add != nil && (count(m, "Add") == 0) != f.folded {
				t.Errorf("folded: %v, want %v\n%s", !f.folded, f.folded, dump(t, m))
			}
			want := f.turns
			if want == 0 {
				want = 2
			}
			if count(m, "Conv") != 0 || count(m, "Transpose") != want {
				t.Errorf("want %d Transpose and no Conv\n%s", want, dump(t, m))
			}
			sameOutputs(t, before, m, fed, 2e-6)
		})
	}
}

// TestPointwiseObserved gathers the second moments of the channels, at the places that the strides keep.
func TestPointwiseObserved(t *testing.T) {
	const k = formK
	rng := rand.New(rand.NewPCG(22, 23))
	_, w := onGrid(t, rng, "d4:4,4", formN, k)
	f := convForm{x: []int64{2, k, 3, 5}, kernel: []int64{1, 1}, attrs: []*onnx.Attribute{onnx.IntsAttr("strides", 2, 2)}}
	m, fed := f.model(rng, w)
	// A second one reads the same value at every place.
	m.Graph.Nodes = append(m.Graph.Nodes, node("dense", "Conv", []string{"x", "w"}, []string{"dense"}))
	m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo("dense", onnx.Float, onnx.UnknownRank))
	list, gathered := observed(t, m, ort.SessionOptions{Threads: 1}, fed)
	if len(list) != 2 {
		t.Fatalf("%d observations, want 2: %+v", len(list), list)
	}
	x, _ := tensor.View[float32](fed["x"])
	at := func(step int) (rows []float32) {
		for b := range 2 {
			for i := 0; i < 3; i += step {
				for j := 0; j < 5; j += step {
					for c := range k {
						rows = append(rows, x[((b*k+c)*3+i)*5+j])
					}
				}
			}
		}
		return rows
	}
	checkMoments(t, gathered, list[0].Tag, at(2), k)
	checkMoments(t, gathered, list[1].Tag, at(1), k)
}
