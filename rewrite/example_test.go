package rewrite_test

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// Example codes the weights of a model with one MatMul and one Add, and takes them out again.
func Example() {
	rng := rand.New(rand.NewPCG(1, 2))
	m := onnx.NewModel(8, 17, "dense")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Initializers = []*onnx.Tensor{
		onnx.NewTensor("w", []int64{64, 48}, normal(rng, 64*48)),
		onnx.NewTensor("b", []int64{48}, normal(rng, 48)),
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"p"}),
		onnx.NewNode("Add", []string{"p", "b"}, []string{"y"}),
	}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 48)}

	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		panic(err)
	}
	codec, err := lattice.ParseCodec("d4:4,4:g2,3,4,6")
	if err != nil {
		panic(err)
	}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		fmt.Printf("%s of %q, %d × %d: %s\n", s.Name, s.Initializer, s.N, s.K, s.Status)
		coded, err := quant.Quantize(context.Background(), s.Weight, quant.Options{Codec: codec})
		if err != nil {
			panic(err)
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: coded.Matrix})
	}
	if _, err := rewrite.Apply(m, replacements, "example"); err != nil {
		panic(err)
	}
	for _, n := range m.Graph.Nodes {
		fmt.Println(n.OpID(), n.Outputs)
	}
	if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP32}); err != nil {
		panic(err)
	}
	for _, n := range m.Graph.Nodes {
		fmt.Println(n.OpID(), n.Outputs)
	}
	// Output:
	// MatMul_0 of "w", 48 × 64: candidate
	// ai.coset::HNLQLinear [y]
	// ::MatMul [y.product]
	// ::Add [y]
}
