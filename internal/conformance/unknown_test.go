package conformance

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// Dimensions of which nothing is known, not even a name, as behind an Expand in exports of PyTorch: the nodes behind the operators
// must not infer numbers from them.
func TestUnknownDimensions(t *testing.T) {
	const n, k = 48, 40
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	m := onnx.NewModel(10, 20, "unknown")
	g := m.Graph
	g.Initializers = []*onnx.Tensor{
		onnx.NewTensor("w", []int64{k, n}, numbers(1, n*k)), onnx.NewTensor("table", []int64{n, k}, numbers(2, n*k)),
		onnx.NewTensor("heads", []int64{4}, []int64{1, 3, -1, 12}), onnx.NewTensor("parts", []int64{4}, []int64{1, 3, -1, 10}),
		onnx.NewTensor("four", []int64{4, 1}, []float32{1, 1, 1, 1}),
	}
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("a", onnx.Float, nil, 3, k), onnx.NewValueInfo("i", onnx.Int64, nil, 3)}
	g.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"a", "w"}, []string{"y"}), onnx.NewNode("Gather", []string{"table", "i"}, []string{"z"}),
	}
	for _, v := range [][2]string{{"y", "heads"}, {"z", "parts"}} {
		g.Nodes = append(g.Nodes, onnx.NewNode("Reshape", []string{v[0], v[1]}, []string{v[1] + "_"}),
			onnx.NewNode("Mul", []string{v[1] + "_", "four"}, []string{v[0] + "_out"}))
		g.Outputs = append(g.Outputs, onnx.NewValueInfo(v[0]+"_out", onnx.Float, nil, nil, nil, nil))
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		coded, err := quant.Quantize(context.Background(), s.Weight, quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: coded.Matrix})
	}
	if done, err := rewrite.Apply(m, replacements, "test"); err != nil || done.Nodes != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	path := filepath.Join(t.TempDir(), "unknown.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []ort.SessionOptions{{}, {OpsLibrary: testenv.Ops(t)}, {OpsLibrary: testenv.Ops(t), Optimization: ort.OptimizeDisabled}} {
		s, err := openRuntime(t).NewSession(path, o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(context.Background(), map[string]*tensor.Tensor{
			"a": tensor.Of(numbers(3, 3*k), 1, 3, k), "i": tensor.Of([]int64{7, 0, 30}, 1, 3),
		})
		_ = s.Close()
		if err != nil {
			t.Fatal(err)
		}
		if y, z := out["y_out"].Shape, out["z_out"].Shape; !slices.Equal(y, []int64{1, 3, 4, 12}) || !slices.Equal(z, []int64{1, 3, 4, 10}) {
			t.Errorf("library %q: shapes %v and %v", o.OpsLibrary, y, z)
		}
	}
}
