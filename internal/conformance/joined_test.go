package conformance

import (
	"context"
	"maps"
	"math"
	"path/filepath"
	"slices"
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

// factor is a weight of k columns, in a codec.
type factor struct {
	name  string
	rows  int
	codec string
}

// sharedRows writes a model of products of x [batch, tokens, k] with coded weights, each named by its weight, and of what uses them.
func sharedRows(t *testing.T, dtype onnx.DataType, k int, weights []factor, use func(g *onnx.Graph)) string {
	t.Helper()
	m := onnx.NewModel(10, 20, "shared")
	g := m.Graph
	g.Inputs = append(g.Inputs, onnx.NewValueInfo("x", dtype, "batch", "tokens", k))
	matrices := map[string]*quant.Matrix{}
	for i, weight := range weights {
		c, err := lattice.ParseCodec(weight.codec)
		if err != nil {
			t.Fatal(err)
		}
		r, err := quant.Quantize(context.Background(), dense{weight.rows, k, numbers(uint64(i), weight.rows*k)}, quant.Options{Codec: c})
		if err != nil {
			t.Fatal(err)
		}
		matrices["w_"+weight.name] = r.Matrix
		zeros := make([]float32, weight.rows*k) // the code takes their place
		w := onnx.NewTensor("w_"+weight.name, []int64{int64(k), int64(weight.rows)}, zeros)
		if dtype == onnx.Float16 {
			w = onnx.NewFloat16Tensor("w_"+weight.name, []int64{int64(k), int64(weight.rows)}, zeros)
		}
		g.Initializers = append(g.Initializers, w)
		g.Nodes = append(g.Nodes, onnx.NewNode("MatMul", []string{"x", "w_" + weight.name}, []string{weight.name}))
	}
	use(g)
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sites = slices.DeleteFunc(sites, func(s rewrite.Site) bool { return s.Status != rewrite.Candidate })
	if len(sites) != len(weights) {
		t.Fatalf("%d of %d weights can be coded", len(sites), len(weights))
	}
	var replacements []rewrite.Replacement
	for _, site := range sites {
		replacements = append(replacements, rewrite.Replacement{Site: site, Matrix: matrices[site.Initializer]})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "shared.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

// gatedNetwork writes a model of gate * sigmoid(gate) * up with coded weights of 640 rows, each in a codec of its own.
func gatedNetwork(t *testing.T, dtype onnx.DataType, codecs ...string) string {
	t.Helper()
	const n, k = 640, 192
	return sharedRows(t, dtype, k, []factor{{"gate", n, codecs[0]}, {"up", n, codecs[1]}}, func(g *onnx.Graph) {
		g.Outputs = append(g.Outputs, onnx.NewValueInfo("y", dtype, "batch", "tokens", n))
		g.Nodes = append(g.Nodes, onnx.NewNode("Sigmoid", []string{"gate"}, []string{"open"}),
			onnx.NewNode("Mul", []string{"gate", "open"}, []string{"gated"}), onnx.NewNode("Mul", []string{"gated", "up"}, []string{"y"}))
	})
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
					x := suite{dtype: dtype}.tensor(numbers(5, batch*3*192), int64(batch), 3, 192)
					return outputsOf(t, rt, path, ort.SessionOptions{Threads: 1, OpsLibrary: ops, Provider: provider, Config: keeping(cudaops.AccuracyAccurate)}, map[string]*tensor.Tensor{"x": x})
				}
				for _, batch := range []int{0, 1, 5, 40} {
					want := run("", batch)
					before, _ := about.Joined()
					got := run(library, batch)
					if after, _ := about.Joined(); after-before != c.joined {
						t.Errorf("%d networks joined, want %d", after-before, c.joined)
					}
					if len(got) != len(want) || relative(want, got) > 2e-3 {
						t.Errorf("batch %d: %d numbers with a relative error of %g", batch, len(got), relative(want, got))
					}
				}
			})
		}
	}
}

// outputsOf runs a model once, and gives the numbers of all outputs, by their names.
func outputsOf(t *testing.T, rt *ort.Runtime, path string, o ort.SessionOptions, inputs map[string]*tensor.Tensor) []float64 {
	t.Helper()
	s, err := rt.NewSession(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for _, name := range slices.Sorted(maps.Keys(out)) {
		v := make([]float64, out[name].Count())
		if err := out[name].Floats(v, 0, int64(len(v))); err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
	}
	return all
}

// relative is the norm of the difference of two vectors, over that of the first.
func relative(want, got []float64) float64 {
	var wrong, norm float64
	for i := range want {
		wrong += (want[i] - got[i]) * (want[i] - got[i])
		norm += want[i] * want[i]
	}
	if norm == 0 {
		return math.Sqrt(wrong)
	}
	return math.Sqrt(wrong / norm)
}

// The provider multiplies the same rows by weights that are coded alike at once, whatever takes the results: several of them, the graph's outputs, or an
// attention, which reads them where they are.
func TestProviderJoinsProducts(t *testing.T) {
	ops, library, rt := testenv.Ops(t), testenv.Provider(t), openRuntime(t)
	about, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	const k, heads, kv, width, past = 192, 8, 2, 32, 7
	d4, z1 := "d4:4,4:g3,4,5,6", "z1:16:g3,4,5,6"
	three := func(q, k, v string) []factor {
		return []factor{{"q", heads * width, q}, {"k", kv * width, k}, {"v", kv * width, v}}
	}
	results := func(dtype onnx.DataType, weights []factor) func(*onnx.Graph) {
		return func(g *onnx.Graph) {
			for i, w := range weights {
				if i == 1 { // one is an output, and used
					g.Outputs = append(g.Outputs, onnx.NewValueInfo(w.name, dtype, "batch", "tokens", w.rows))
				}
				g.Nodes = append(g.Nodes, onnx.NewNode("Sigmoid", []string{w.name}, []string{w.name + "_used"}))
				g.Outputs = append(g.Outputs, onnx.NewValueInfo(w.name+"_used", dtype, "batch", "tokens", w.rows))
			}
		}
	}
	attention := func(dtype onnx.DataType, order ...string) func(*onnx.Graph) {
		return func(g *onnx.Graph) {
			cache := []any{"batch", kv, past, width}
			g.Inputs = append(g.Inputs, onnx.NewValueInfo("past_key", dtype, cache...), onnx.NewValueInfo("past_value", dtype, cache...),
				onnx.NewValueInfo("last", onnx.Int32, "batch"), onnx.NewValueInfo("total", onnx.Int32, 1))
			n := onnx.NewNode("GroupQueryAttention", append(order, "past_key", "past_value", "last", "total"), []string{"y", "key", "value"},
				onnx.IntAttr("num_heads", heads), onnx.IntAttr("kv_num_heads", kv))
			n.Domain = "com.microsoft"
			g.Nodes = append(g.Nodes, n)
			g.Outputs = append(g.Outputs, onnx.NewValueInfo("y", dtype, "batch", "tokens", heads*width), onnx.NewValueInfo("key", dtype, "batch", kv, "all", width),
				onnx.NewValueInfo("value", dtype, "batch", kv, "all", width))
		}
	}
	for _, c := range []struct {
		name    string
		weights []factor
		order   []string // of an attention's inputs
		joined  int64
	}{
		{"all", three(d4, d4, d4), nil, 1},
		{"integers", three(z1, z1, z1), nil, 1},
		{"two of three", three(d4, z1, d4), nil, 1},
		{"two and two", []factor{{"a", 64, d4}, {"b", 64, z1}, {"c", 96, z1}, {"d", 80, d4}}, nil, 2},
		{"none", three(d4, z1, "d4:4:g3,4,5,7"), nil, 0},
		{"five", []factor{{"a", 64, d4}, {"b", 80, d4}, {"c", 96, d4}, {"d", 112, d4}, {"e", 128, d4}}, nil, 1},
		{"odd", []factor{{"a", 64, d4}, {"b", 75, d4}, {"c", 64, d4}}, nil, 1},
		{"too large", []factor{{"a", 10000, d4}, {"b", 10000, d4}}, nil, 0},
		{"attention", three(d4, d4, d4), []string{"q", "k", "v"}, 1},
		{"attention of other sizes", []factor{{"q", heads * width, d4}, {"v", kv * width, d4}, {"k", kv * width, d4}}, []string{"q", "k", "v"}, 1},
	} {
		for _, dtype := range []onnx.DataType{onnx.Float, onnx.Float16} {
			t.Run(c.name+" "+dtype.String(), func(t *testing.T) {
				use := results(dtype, c.weights)
				if c.order != nil {
					use = attention(dtype, c.order...)
				}
				path := sharedRows(t, dtype, k, c.weights, use)
				for _, shape := range [][2]int64{{1, 1}, {1, 3}, {5, 1}, {0, 4}} {
					numbersOf := func(seed uint64, dims ...int64) *tensor.Tensor {
						n := int64(1)
						for _, d := range dims {
							n *= d
						}
						return suite{dtype: dtype}.tensor(numbers(seed, int(n)), dims...)
					}
					inputs := map[string]*tensor.Tensor{"x": numbersOf(5, shape[0], shape[1], k)}
					if c.order != nil {
						if shape[0] != 1 {
							continue
						}
						total := int32(past + shape[1])
						inputs["past_key"], inputs["past_value"] = numbersOf(6, shape[0], kv, past, width), numbersOf(7, shape[0], kv, past, width)
						inputs["last"], inputs["total"] = tensor.Of([]int32{total - 1}, 1), tensor.Of([]int32{total}, 1)
					}
					o := ort.SessionOptions{Threads: 1, OpsLibrary: ops, Config: keeping(cudaops.AccuracyAccurate)}
					want := outputsOf(t, rt, path, o, inputs)
					o.Provider = library
					before, _ := about.Joined()
					got := outputsOf(t, rt, path, o, inputs)
					if after, _ := about.Joined(); after-before != c.joined {
						t.Errorf("%d products joined, want %d", after-before, c.joined)
					}
					limit := 2e-3
					if c.order != nil && dtype == onnx.Float16 {
						limit = 5e-3 // queries and keys are rounded, and so are scores of some size
					}
					if len(got) != len(want) || relative(want, got) > limit {
						t.Errorf("%v: %d numbers with a relative error of %g", shape, len(got), relative(want, got))
					}
				}
			})
		}
	}
}
