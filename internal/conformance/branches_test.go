package conformance

import (
	"context"
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

// operands are a weight, by name, and what is multiplied with it.
type operands struct{ weight, rows string }

// branchedProducts writes a model of products with coded weights of 320 rows and 192 columns in both branches of an If, or, without other, of some alone. Of
// the products of a branch, in their order, the sum is an output of it; where gated, the first two are those of a gated network.
func branchedProducts(t *testing.T, some, other []operands, gated bool) string {
	t.Helper()
	const n, k = 320, 192
	c, err := lattice.ParseCodec("d4:4,4:g3,4,5,6")
	if err != nil {
		t.Fatal(err)
	}
	m := onnx.NewModel(10, 20, "branches")
	g := m.Graph
	g.Inputs = append(g.Inputs, onnx.NewValueInfo("x", onnx.Float, "batch", k), onnx.NewValueInfo("c", onnx.Bool, 1))
	g.Outputs = append(g.Outputs, onnx.NewValueInfo("y", onnx.Float, "batch", n))
	g.Nodes = append(g.Nodes, onnx.NewNode("Neg", []string{"x"}, []string{"z"}), onnx.NewNode("Abs", []string{"x"}, []string{"u"}))
	matrices := map[string]*quant.Matrix{}
	fill := func(b *onnx.Graph, products []operands) {
		var sum string
		add := func(v string) {
			if sum != "" {
				out := "sum_" + v
				b.Nodes = append(b.Nodes, onnx.NewNode("Sum", []string{sum, v}, []string{out}))
				v = out
			}
			sum = v
		}
		for _, p := range products {
			if matrices["w_"+p.weight] == nil {
				r, err := quant.Quantize(context.Background(), dense{n, k, numbers(uint64(p.weight[0]), n*k)}, quant.Options{Codec: c})
				if err != nil {
					t.Fatal(err)
				}
				matrices["w_"+p.weight] = r.Matrix
				g.Initializers = append(g.Initializers, onnx.NewTensor("w_"+p.weight, []int64{k, n}, make([]float32, n*k)))
			}
			b.Nodes = append(b.Nodes, onnx.NewNode("MatMul", []string{p.rows, "w_" + p.weight}, []string{p.weight}))
		}
		if gated {
			b.Nodes = append(b.Nodes, onnx.NewNode("Sigmoid", []string{products[0].weight}, []string{"open"}),
				onnx.NewNode("Mul", []string{products[0].weight, "open"}, []string{"gate"}), onnx.NewNode("Mul", []string{"gate", products[1].weight}, []string{"network"}))
			add("network")
			products = products[2:]
		}
		for _, p := range products {
			b.Nodes = append(b.Nodes, onnx.NewNode("Erf", []string{p.weight}, []string{"erf_" + p.weight}))
			add("erf_" + p.weight)
		}
		b.Nodes = append(b.Nodes, onnx.NewNode("Relu", []string{sum}, []string{"out"}))
	}
	if other == nil {
		fill(g, some)
		g.Nodes = append(g.Nodes, onnx.NewNode("Identity", []string{"out"}, []string{"y"}))
	} else {
		yes, no := &onnx.Graph{Name: "yes", Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("out", onnx.Float, "batch", n)}}, &onnx.Graph{Name: "no", Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("out", onnx.Float, "batch", n)}}
		fill(yes, some)
		fill(no, other)
		g.Nodes = append(g.Nodes, onnx.NewNode("If", []string{"c"}, []string{"y"}, onnx.GraphAttr("then_branch", yes), onnx.GraphAttr("else_branch", no)))
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, site := range slices.DeleteFunc(sites, func(s rewrite.Site) bool { return s.Status != rewrite.Candidate }) {
		replacements = append(replacements, rewrite.Replacement{Site: site, Matrix: matrices[site.Initializer]})
	}
	if len(replacements) != len(some)+len(other) {
		t.Fatalf("%d of %d weights can be coded", len(replacements), len(some)+len(other))
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "branches.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

// A weight that both branches of an If use is on the device once, though the model has it in each of them, joined with others where both join it with the
// same ones.
func TestProviderSharesWeightsOfBranches(t *testing.T) {
	ops, library, rt := testenv.Ops(t), testenv.Provider(t), openRuntime(t)
	about, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	device, err := about.Device()
	if err != nil {
		t.Fatal(err)
	}
	tables := int64(4096) // those of look-ups, which a GPU has once for weights that are joined
	if device == "host" {
		tables = 0
	}
	of := func(rows string, weights ...string) (all []operands) {
		for _, w := range weights {
			all = append(all, operands{w, rows})
		}
		return all
	}
	for _, c := range []struct {
		name                string
		some, other, single []operands // those of both branches, and what takes the memory that they may take
		gated               bool
		joined              int64
	}{
		{"one", of("x", "a"), of("z", "a"), of("x", "a"), false, 0},
		{"gated", of("x", "a", "b", "e"), of("z", "a", "b", "e"), of("x", "a", "b", "e"), true, 2},
		{"gates the other way", of("x", "a", "b"), of("z", "b", "a"), of("x", "a", "b"), true, 2},
		{"three", of("x", "a", "b", "e"), of("z", "a", "b", "e"), of("x", "a", "b", "e"), false, 2},
		{"in another order", of("x", "a", "b", "e"), of("x", "e", "a", "b"), of("x", "a", "b", "e"), false, 2},
		{"more in one branch", of("x", "a", "b", "e"), of("x", "a", "b"), of("x", "a", "b", "e"), false, 2},
		{"of other rows", of("x", "a", "b"), slices.Concat(of("x", "a"), of("z", "b")), slices.Concat(of("x", "a"), of("z", "b")), false, 0},
		{"apart", of("x", "a", "b"), of("x", "e", "f"), of("x", "a", "b", "e", "f"), false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := branchedProducts(t, c.some, c.other, c.gated)
			o := ort.SessionOptions{Threads: 1, OpsLibrary: ops, Provider: library, Config: keeping(cudaops.AccuracyAccurate)}
			bytes := func(path string) int64 {
				before := about.WeightBytes()
				s, err := rt.NewSession(path, o)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				return about.WeightBytes() - before
			}
			single := bytes(branchedProducts(t, c.single, nil, c.gated))
			before, _ := about.Joined()
			if got := bytes(path); got < single || got > single+tables || got == 0 {
				t.Errorf("the weights take %d bytes, want %d", got, single)
			}
			if after, _ := about.Joined(); after-before != c.joined {
				t.Errorf("%d groups of products joined, want %d", after-before, c.joined)
			}
			got, err := rt.NewSession(path, o)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			for round := range 10 {
				in := map[string]*tensor.Tensor{"x": tensor.Of(numbers(uint64(round), 3*192), 3, 192), "c": tensor.Of([]bool{round%2 == 0}, 1)}
				want := outputsOf(t, rt, path, ort.SessionOptions{Threads: 1, OpsLibrary: ops, Config: keeping(cudaops.AccuracyAccurate)}, in)
				out, err := got.Run(context.Background(), in)
				if err != nil {
					t.Fatal(err)
				}
				y := make([]float64, out["y"].Count())
				if err := out["y"].Floats(y, 0, int64(len(y))); err != nil {
					t.Fatal(err)
				}
				if d := relative(want, y); d > 2e-3 {
					t.Errorf("run %d: a relative error of %g", round, d)
				}
			}
			if left := about.WeightBytes(); left < single {
				t.Errorf("%d bytes with a session open", left)
			}
		})
	}
	if left := about.WeightBytes(); left != 0 {
		t.Errorf("%d bytes of weights without a session", left)
	}
}
