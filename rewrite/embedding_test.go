package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// tiedModel looks rows of a table up, multiplies them by a weight, and gives their products with the whole table: by a MatMul
// with its transpose, or by a Gemm. A second Gather reads the same table.
func tiedModel(opset int64, table, weight rows, gemm bool) (*onnx.Model, map[string]*tensor.Tensor) {
	g := &onnx.Graph{
		Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, "count"), onnx.NewValueInfo("one", onnx.Int32, 1, 2)},
		Initializers: []*onnx.Tensor{floats("table", []int64{int64(table.n), int64(table.k)}, table.v), floats("w", []int64{int64(weight.k), int64(weight.n)}, weight.transposed())},
		Nodes: []*onnx.Node{
			node("look", "Gather", []string{"table", "ids"}, []string{"rows"}),
			node("again", "Gather", []string{"table", "one"}, []string{"row"}, onnx.IntAttr("axis", 0)),
			node("layer", "MatMul", []string{"rows", "w"}, []string{"hidden"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "count", table.n), onnx.NewValueInfo("row", onnx.Float, 1, 2, table.k)},
	}
	if gemm {
		g.Nodes = append(g.Nodes, node("head", "Gemm", []string{"hidden", "table"}, []string{"logits"}, onnx.IntAttr("transB", 1)))
	} else {
		g.Nodes = append(g.Nodes, node("turn", "Transpose", []string{"table"}, []string{"turned"}, onnx.IntsAttr("perm", 1, 0)),
			node("head", "MatMul", []string{"hidden", "turned"}, []string{"logits"}))
	}
	return newModel(8, opset, g), map[string]*tensor.Tensor{"ids": tensor.Of([]int64{3, 0, 79, 17, 3}, 5), "one": tensor.Of([]int32{78, 1}, 1, 2)}
}

func replaceAll(t *testing.T, m *onnx.Model, matrices map[string]*quant.Matrix) *rewrite.Result {
	t.Helper()
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	var list []rewrite.Replacement
	for _, s := range sites {
		if s.Status != rewrite.Candidate {
			t.Fatalf("%s: %s %s", s.Name, s.Reason, s.Detail)
		}
		list = append(list, rewrite.Replacement{Site: s, Matrix: matrices[s.Initializer]})
	}
	r, err := rewrite.Apply(m, list, "test")
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, m)
	return r
}

// A table that Gather and the last product share is stored once, in the file and in what is exported from it, and the model
// computes what it computed.
func TestTiedEmbedding(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(21, 4))
	coded, table := onGrid(t, rng, "d4:4,4:g2,3,4,6", 80, 64)
	layer, weight := onGrid(t, rng, "d4:2,4:g3,4,5,7", 64, 64)
	turned, turnedWeight := turnedOnGrid(t, rng, "d4:4:g1,2,3,4", 64, 64)
	for _, opset := range []int64{7, 9, 10, 12, 13, 18, 25} { // those at which the decoder changes, and the last
		for _, gemm := range []bool{false, true} {
			t.Run(fmt.Sprintf("opset %d, Gemm %v", opset, gemm), func(t *testing.T) {
				if gemm && opset != 13 && opset != 18 {
					t.Skip("the last product alone differs")
				}
				matrices, w := map[string]*quant.Matrix{"table": coded, "w": layer}, weight
				if opset%2 == 0 { // a rotation elsewhere in the model is none of the table's business
					matrices["w"], w = turned, turnedWeight
				}
				before, inputs := tiedModel(opset, table, w, gemm)
				m := onnx.Clone(before)
				r := replaceAll(t, m, matrices)
				if r.Matrices != 2 || r.Nodes != 4 || count(m, cudaops.GatherName) != 2 || count(m, cudaops.OpName) != 2 || len(m.Functions) != 2 {
					t.Errorf("%+v, %d functions: want 2 matrices in 4 nodes", r, len(m.Functions))
				}
				if m.Graph.Initializer("table") != nil {
					t.Error("the float table is still there")
				}
				sameOutputs(t, before, m, inputs, 1e-5)

				plain := reopen(t, m)
				x, err := rewrite.Export(plain, rewrite.ExportOptions{Format: rewrite.FP32})
				if err != nil || x.Matrices != 2 {
					t.Fatalf("%+v, %v: want 2 matrices", x, err)
				}
				sameOutputs(t, before, plain, inputs, 1e-5)
			})
		}
	}
}

// The sites of a table hold one weight, whether a product reads it through a Transpose or turns it itself: it is coded once, for all.
func TestTiedSitesShareTheWeight(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 8))
	_, table := onGrid(t, rng, "d4:4,4:g2,3,4,6", 80, 64)
	_, square := onGrid(t, rng, "d4:4,4:g2,3,4,6", 64, 64)
	for _, gemm := range []bool{false, true} {
		m, _ := tiedModel(17, table, square, gemm)
		sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
		if err != nil {
			t.Fatal(err)
		}
		var shared *rewrite.Weight
		for _, s := range sites {
			if s.Initializer != "table" {
				continue
			}
			if shared == nil {
				shared = s.Weight
			}
			if s.Weight != shared || !s.Weight.Gathered() {
				t.Errorf("Gemm %v: %s has a weight of its own, or one that is not known to be gathered", gemm, s.Name)
			}
		}
	}

	// A square table and its transpose are two matrices.
	m, _ := tiedModel(17, square, square, false)
	m.Graph.Nodes[4] = node("head", "MatMul", []string{"hidden", "table"}, []string{"logits"})
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		if s.Name == "head" && s.Weight.Gathered() {
			t.Error("a product with the table itself shares the weight of one with its transpose")
		}
	}
}

// Without being asked for, an embedding stays, and what shares it says why it stays float.
func TestEmbeddingOnRequest(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 4))
	_, table := onGrid(t, rng, "d4:4", 80, 64)
	m, _ := tiedModel(17, table, table, true)
	sites := find(t, m)
	if len(sites) != 2 || sites[1].Reason != rewrite.SharedWithFloat {
		t.Errorf("%+v", sites)
	}
	all, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil || len(all) != 4 || all[0].Name != "layer" || all[2].Op != "Gather" {
		t.Fatalf("%v, %+v", err, all)
	}
	if all[1].Weight != all[2].Weight || !all[1].Weight.Gathered() || all[0].Weight.Gathered() {
		t.Error("the table is not one weight")
	}
	// Excluded, it is again a reader of the float table.
	kept, err := rewrite.FindSites(m, rewrite.Options{Embedding: true, Exclude: []string{"look"}})
	if err != nil || kept[1].Reason != rewrite.SharedWithFloat || kept[3].Reason != rewrite.SharedWithFloat {
		t.Errorf("%v, %+v", err, kept)
	}
}

// A matrix under a rotation is refused: HNLQGather does not turn rows back.
func TestEmbeddingWithoutRotation(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 4))
	turned, table := turnedOnGrid(t, rng, "d4:4", 80, 64)
	m, _ := tiedModel(17, table, table, true)
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: sites[2], Matrix: turned}}, "test"); err == nil {
		t.Error("it was taken")
	}
}
