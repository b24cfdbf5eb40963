package conformance

import (
	"context"
	"fmt"
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

// Activations have any number of dimensions; the output keeps all but the last, and the nodes behind it see its shape.
func TestRanks(t *testing.T) {
	testenv.Accurate(t)
	const n, k = 48, 40
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	coded, err := quant.Quantize(context.Background(), dense{n, k, numbers(1, n*k)}, quant.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	shapes := [][]int64{{k}, {3, k}, {2, 3, k}, {2, 1, 3, k}, {1, 1, 1, 2, k}}
	m := onnx.NewModel(10, 20, "ranks")
	g := m.Graph
	g.Initializers = append(g.Initializers, onnx.NewTensor("w", []int64{k, n}, make([]float32, n*k)))
	inputs := map[string]*tensor.Tensor{}
	for i, shape := range shapes {
		var dims, outDims []any
		count := 1
		for j, d := range shape {
			dims = append(dims, fmt.Sprintf("d%d_%d", i, j))
			outDims = append(outDims, nil)
			count *= int(d)
		}
		dims[len(dims)-1] = k
		in, y, out := fmt.Sprint("a", i), fmt.Sprint("y", i), fmt.Sprint("s", i)
		g.Inputs = append(g.Inputs, onnx.NewValueInfo(in, onnx.Float, dims...))
		g.Nodes = append(g.Nodes, onnx.NewNode("MatMul", []string{in, "w"}, []string{y}), onnx.NewNode("Relu", []string{y}, []string{out}))
		g.Outputs = append(g.Outputs, onnx.NewValueInfo(out, onnx.Float, outDims...))
		inputs[in] = tensor.Of(numbers(uint64(i), count), shape...)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: coded.Matrix})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ranks.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	w := make([]float32, n*k)
	if err := coded.Matrix.DecodeRows(w, 0, n); err != nil {
		t.Fatal(err)
	}
	for _, o := range []ort.SessionOptions{
		{}, {Optimization: ort.OptimizeDisabled}, {OpsLibrary: testenv.Ops(t)}, {OpsLibrary: testenv.Ops(t), Optimization: ort.OptimizeDisabled},
	} {
		s, err := openRuntime(t).NewSession(path, o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(context.Background(), inputs)
		_ = s.Close()
		if err != nil {
			t.Fatal(err)
		}
		for i, shape := range shapes {
			got := out[fmt.Sprint("s", i)]
			if want := append(slices.Clone(shape[:len(shape)-1]), n); !slices.Equal(got.Shape, want) {
				t.Errorf("library %q, %v: shape %v of %v, want %v", o.OpsLibrary, o.Optimization, got.Shape, shape, want)
				continue
			}
			values, err := tensor.View[float32](got)
			if err != nil {
				t.Fatal(err)
			}
			a, err := tensor.View[float32](inputs[fmt.Sprint("a", i)])
			if err != nil {
				t.Fatal(err)
			}
			if d := difference(product(a, w, n, k), values); !(d <= 1e-4) {
				t.Errorf("library %q, %v, shape %v: differs by %.2g", o.OpsLibrary, o.Optimization, shape, d)
			}
		}
	}
}

// product is max(A·Wᵀ, 0), computed in float64.
func product(a, w []float32, n, k int) []float32 {
	var y []float32
	for ; len(a) > 0; a = a[k:] {
		for r := range n {
			var sum float64
			for c := range k {
				sum += float64(a[c]) * float64(w[r*k+c])
			}
			y = append(y, float32(max(sum, 0)))
		}
	}
	return y
}
