package conformance

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// gatedNetwork writes a model of gate * sigmoid(gate) * up with coded weights of 640 rows, each in a codec of its own.
func gatedNetwork(t *testing.T, dtype onnx.DataType, codecs ...string) string {
	t.Helper()
	const n, k = 640, 192
	m := onnx.NewModel(10, 20, "gated")
	g := m.Graph
	g.Inputs = append(g.Inputs, onnx.NewValueInfo("x", dtype, "batch", "tokens", k))
	g.Outputs = append(g.Outputs, onnx.NewValueInfo("y", dtype, "batch", "tokens", n))
	weights := map[string]*quant.Matrix{}
	for i, name := range []string{"gate", "up"} {
		c, err := lattice.ParseCodec(codecs[i])
		if err != nil {
			t.Fatal(err)
		}
		r, err := quant.Quantize(context.Background(), dense{n, k, numbers(uint64(i), n*k)}, quant.Options{Codec: c})
		if err != nil {
			t.Fatal(err)
		}
		weights["w_"+name] = r.Matrix
		w := onnx.NewTensor("w_"+name, []int64{k, n}, make([]float32, n*k)) // the code takes its place
		if dtype == onnx.Float16 {
			w = onnx.NewFloat16Tensor("w_"+name, []int64{k, n}, make([]float32, n*k))
		}
		g.Initializers = append(g.Initializers, w)
		g.Nodes = append(g.Nodes, onnx.NewNode("MatMul", []string{"x", "w_" + name}, []string{name}))
	}
	g.Nodes = append(g.Nodes, onnx.NewNode("Sigmoid", []string{"gate"}, []string{"open"}),
		onnx.NewNode("Mul", []string{"gate", "open"}, []string{"gated"}), onnx.NewNode("Mul", []string{"gated", "up"}, []string{"y"}))
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, site := range sites {
		replacements = append(replacements, rewrite.Replacement{Site: site, Matrix: weights[site.Initializer]})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "gated.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

// The provider multiplies by the weights of a gated network at once where they are coded alike, with the results of two products.
func TestProviderJoinsGatedNetworks(t *testing.T) {
	ops, library, rt := testenv.Ops(t), testenv.Provider(t), openRuntime(t)
	about, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	d4, z1 := "d4:4,4:g3,4,5,6", "z1:16:g3,4,5,6"
	for _, c := range []struct {
		gate, up string
		joined   int64
	}{{d4, d4, 1}, {z1, z1, 1}, {"d4:4:g3,4,5,7", "d4:4:g3,4,5,7", 1}, {d4, z1, 0}} {
		for _, dtype := range []onnx.DataType{onnx.Float, onnx.Float16} {
			t.Run(c.gate+" "+c.up+" "+dtype.String(), func(t *testing.T) {
				path := gatedNetwork(t, dtype, c.gate, c.up)
				run := func(provider string, batch int) []float64 {
					s, err := rt.NewSession(path, ort.SessionOptions{Threads: 1, OpsLibrary: ops, Provider: provider, Config: keeping(cudaops.AccuracyAccurate)})
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": suite{dtype: dtype}.tensor(numbers(5, batch*3*192), int64(batch), 3, 192)})
					if err != nil {
						t.Fatal(err)
					}
					v := make([]float64, out["y"].Count())
					if err := out["y"].Floats(v, 0, int64(len(v))); err != nil {
						t.Fatal(err)
					}
					return v
				}
				for _, batch := range []int{0, 1, 5, 40} {
					want := run("", batch)
					before, _ := about.Joined()
					got := run(library, batch)
					if after, _ := about.Joined(); after-before != c.joined {
						t.Errorf("%d networks joined, want %d", after-before, c.joined)
					}
					var wrong, norm float64
					for i := range want {
						wrong += (want[i] - got[i]) * (want[i] - got[i])
						norm += want[i] * want[i]
					}
					if math.Sqrt(wrong) > 2e-3*math.Sqrt(norm) || len(got) != len(want) {
						t.Errorf("batch %d: %d numbers with a relative error of %g", batch, len(got), math.Sqrt(wrong/norm))
					}
				}
			})
		}
	}
}
