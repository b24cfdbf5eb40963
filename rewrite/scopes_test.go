package rewrite_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// TestLoopBody codes a weight of the outer graph that the body of a Loop multiplies its state by.
func TestLoopBody(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(80, 81))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 48, 48)
	body := &onnx.Graph{
		Name: "body",
		Inputs: []*onnx.ValueInfo{
			onnx.NewValueInfo("i", onnx.Int64), onnx.NewValueInfo("on", onnx.Bool), onnx.NewValueInfo("state", onnx.Float, 2, 48),
		},
		Nodes: []*onnx.Node{
			node("step", "MatMul", []string{"state", "w"}, []string{"product"}),
			node("bias", "Add", []string{"product", "b"}, []string{"biased"}),
			node("squash", "Tanh", []string{"biased"}, []string{"next"}),
			node("again", "Identity", []string{"on"}, []string{"go"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("go", onnx.Bool), onnx.NewValueInfo("next", onnx.Float, 2, 48)},
	}
	m := newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 48)},
		Initializers: []*onnx.Tensor{
			floats("w", []int64{48, 48}, w.transposed()), floats("b", []int64{48}, normal(rng, 48)),
			onnx.NewTensor("times", nil, []int64{3}), onnx.NewTensor("yes", nil, []bool{true}),
		},
		Nodes:   []*onnx.Node{node("loop", "Loop", []string{"times", "yes", "x"}, []string{"y"}, onnx.GraphAttr("body", body))},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, 48)},
	})
	before := onnx.Clone(m)
	apply(t, m, matrix)
	if len(m.Graph.Initializers) != 2 || len(m.Graph.Nodes[0].Attributes[0].G.Nodes) != 3 {
		t.Errorf("weight and bias should be in the body, the Add folded:\n%s", dump(t, m))
	}
	sameOutputs(t, before, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 96), 2, 48)}, 1e-5)
}

// TestSitesInFunctions reports what a function of the model multiplies by, and leaves it.
func TestSitesInFunctions(t *testing.T) {
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)},
		Initializers: []*onnx.Tensor{floats("w", []int64{64, 32}, make([]float32, 2048))},
		Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 32)},
	})
	call := node("call", "Dense", []string{"x", "w"}, []string{"y"})
	call.Domain = "local"
	m.Graph.Nodes = []*onnx.Node{call}
	m.SetOpset("local", 1)
	f := &onnx.Function{Domain: "local", Name: "Dense", Inputs: []string{"a", "b"}, Outputs: []string{"c"}, Nodes: []*onnx.Node{
		node("given", "MatMul", []string{"a", "b"}, []string{"p"}),
		node("", "Constant", nil, []string{"k"}, onnx.TensorAttr("value", floats("", []int64{32, 32}, make([]float32, 1024)))),
		node("own", "MatMul", []string{"p", "k"}, []string{"c"}),
	}}
	f.SetOpset("", 17)
	m.Functions = []*onnx.Function{f}
	sites := find(t, m)
	if len(sites) != 2 || sites[0].Reason != rewrite.UnsupportedAttr || sites[1].Reason != rewrite.UnsupportedAttr || sites[1].K != 32 {
		t.Errorf("sites %+v", sites)
	}
}

// TestPruneTellsOfNothingThatIsGone removes declarations and annotations together with their values, and keeps what an
// annotation of another value names.
func TestPruneTellsOfNothingThatIsGone(t *testing.T) {
	m := goldenGraphs()["annotated"]
	m.Graph.QuantizationAnnotations[1].QuantParameterTensorNames = []*onnx.Property{{Key: "SCALE_TENSOR", Value: "half"}}
	apply(t, m)
	if m.Graph.Initializer("half") == nil || m.Graph.Initializer("w") != nil {
		t.Errorf("half is named by an annotation, w by nothing:\n%s", dump(t, m))
	}
	if v, q := m.Graph.ValueInfo, m.Graph.QuantizationAnnotations; len(v) != 1 || v[0].Name != "full" || len(q) != 1 || q[0].TensorName != "x" {
		t.Errorf("%d declarations and %d annotations are left", len(v), len(q))
	}
	m = goldenGraphs()["annotated"]
	apply(t, m)
	if v := m.Graph.ValueInfo; len(v) != 0 {
		t.Errorf("%q is still declared", v[0].Name)
	}
}

// TestTrainingKeepsItsWeights leaves a weight in float that training information updates.
func TestTrainingKeepsItsWeights(t *testing.T) {
	_, w := onGrid(t, rand.New(rand.NewPCG(82, 83)), "d4:4", 40, 64)
	m, _ := chainModel(17, onnx.Float, w)
	m.TrainingInfo = []*onnx.TrainingInfo{{
		Algorithm: &onnx.Graph{Name: "step", Nodes: []*onnx.Node{node("", "Neg", []string{"w0"}, []string{"new"}),
			node("", "MatMul", []string{"new", "w0"}, []string{"unused"})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("new", onnx.Float, 64, 40)}},
		UpdateBinding: []*onnx.Property{{Key: "w0", Value: "new"}},
	}}
	if sites := find(t, m); len(sites) != 1 || sites[0].Reason != rewrite.SharedWithFloat {
		t.Errorf("sites %+v", sites)
	}
}

// TestBranchesShareCodes: what two branches multiply by, as the two halves of a merged decoder do, lies in the file once, and is
// counted so.
func TestBranchesShareCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(82, 83))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 128, 128)
	branch := func(name string) *onnx.Graph {
		return &onnx.Graph{
			Name:    name,
			Nodes:   []*onnx.Node{node(name, "MatMul", []string{"x", "w"}, []string{name + "_y"})},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo(name+"_y", onnx.Float, 2, 128)},
		}
	}
	m := newModel(8, 17, &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 2, 128), onnx.NewValueInfo("past", onnx.Bool)},
		Initializers: []*onnx.Tensor{floats("w", []int64{128, 128}, w.transposed())},
		Nodes: []*onnx.Node{node("if", "If", []string{"past"}, []string{"y"},
			onnx.GraphAttr("then_branch", branch("with")), onnx.GraphAttr("else_branch", branch("without")))},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, 128)},
	})
	r := apply(t, m, matrix)
	codes, gains, codebook := int64(len(matrix.Codes)), int64(len(matrix.Gains)), int64(256*4)
	if codes < rewrite.ExternalThreshold || gains >= rewrite.ExternalThreshold {
		t.Fatalf("%d bytes of codes and %d of gains test nothing", codes, gains)
	}
	if want := 2*(matrix.Bytes()+codebook) - codes; r.Nodes != 2 || r.Matrices != 1 || r.Bytes != want {
		t.Errorf("%+v, want %d bytes", r, want)
	}
	files, err := m.Save(filepath.Join(t.TempDir(), "m.onnx"), onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: rewrite.ExternalThreshold})
	if err != nil || len(files) != 2 || files[1].Bytes != codes {
		t.Errorf("%+v, %v, want %d bytes of data", files, err, codes)
	}
}
