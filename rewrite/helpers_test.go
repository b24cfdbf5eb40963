package rewrite_test

import (
	"bytes"
	"context"
	"flag"
	"math"
	"math/rand/v2"
	"os"
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

var update = flag.Bool("update", false, "write the golden files anew; inspect the difference")

func parseCodec(t testing.TB, name string) *lattice.Codec {
	t.Helper()
	c, err := lattice.ParseCodec(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rows is a matrix in memory as a quant.Source.
type rows struct {
	n, k int
	v    []float32
}

func (r rows) Dims() (n, k int) { return r.n, r.k }

func (r rows) Rows(dst []float32, n0, n1 int) error {
	copy(dst, r.v[n0*r.k:n1*r.k])
	return nil
}

// transposed returns the matrix [K × N].
func (r rows) transposed() []float32 {
	v := make([]float32, len(r.v))
	for i := range r.n {
		for j := range r.k {
			v[j*r.n+i] = r.v[i*r.k+j]
		}
	}
	return v
}

// times returns the matrix with every element multiplied by f.
func (r rows) times(f float32) rows {
	v := make([]float32, len(r.v))
	for i, x := range r.v {
		v[i] = x * f
	}
	return rows{r.n, r.k, v}
}

func normal(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// onGrid returns a coded random matrix and the very numbers it stands for, so that a model which holds them loses nothing
// by being rewritten.
func onGrid(t testing.TB, rng *rand.Rand, codec string, n, k int) (*quant.Matrix, rows) {
	t.Helper()
	r, err := quant.Quantize(context.Background(), rows{n, k, normal(rng, n*k)}, quant.Options{Codec: parseCodec(t, codec)})
	if err != nil {
		t.Fatal(err)
	}
	w := rows{n, k, make([]float32, n*k)}
	if err := r.Matrix.DecodeRows(w.v, 0, n); err != nil {
		t.Fatal(err)
	}
	return r.Matrix, w
}

// newModel returns a model with one graph.
func newModel(ir, opset int64, g *onnx.Graph) *onnx.Model {
	m := onnx.NewModel(ir, opset, "g")
	g.Name = "g"
	m.Graph = g
	return m
}

func floats(name string, dims []int64, v []float32) *onnx.Tensor {
	return onnx.NewTensor(name, dims, v)
}

func node(name, op string, inputs, outputs []string, attrs ...*onnx.Attribute) *onnx.Node {
	n := onnx.NewNode(op, inputs, outputs, attrs...)
	n.Name = name
	return n
}

// find lists the sites of m.
func find(t testing.TB, m *onnx.Model) []rewrite.Site {
	t.Helper()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return sites
}

// apply replaces every candidate of m, by the matrix with its dimensions or, without one, by what rounding to nearest gives.
func apply(t testing.TB, m *onnx.Model, matrices ...*quant.Matrix) *rewrite.Result {
	t.Helper()
	var replacements []rewrite.Replacement
	options := quant.Options{Codec: parseCodec(t, "d4:4,4:g2,3,4,6")}
	if library, err := cudaops.FindLibrary(""); err == nil { // the same weights in a fourth of the time
		if options.Encoder, err = ort.OpenEncoder(library, options.Codec); err != nil {
			t.Fatal(err)
		}
	}
	coded := map[*rewrite.Weight]*quant.Matrix{}
	for _, s := range find(t, m) {
		if s.Status != rewrite.Candidate {
			continue
		}
		for _, q := range matrices {
			if q.N == s.N && q.K == s.K {
				coded[s.Weight] = q
			}
		}
		if coded[s.Weight] == nil {
			r, err := quant.Quantize(context.Background(), s.Weight, options)
			if err != nil {
				t.Fatal(err)
			}
			coded[s.Weight] = r.Matrix
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: coded[s.Weight]})
	}
	result, err := rewrite.Apply(m, replacements, "test")
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, m)
	return result
}

// wellFormed fails the test when m, written and read again, is no proper model.
func wellFormed(t testing.TB, m *onnx.Model) {
	t.Helper()
	for _, p := range onnx.Check(reopen(t, m)) {
		t.Errorf("after rewriting: %v", p)
	}
}

func reopen(t testing.TB, m *onnx.Model) *onnx.Model {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := onnx.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func count(m *onnx.Model, op string) int {
	n := 0
	for _, s := range m.Scopes() {
		if s.Function != nil {
			continue
		}
		for _, node := range s.Nodes() {
			if node.OpType == op {
				n++
			}
		}
	}
	return n
}

// run runs m in ONNX Runtime and returns its outputs as float32.
func run(t testing.TB, m *onnx.Model, level ort.OptimizationLevel, inputs map[string]*tensor.Tensor) map[string][]float32 {
	t.Helper()
	return runWith(t, m, ort.SessionOptions{Optimization: level}, inputs)
}

func runWith(t testing.TB, m *onnx.Model, o ort.SessionOptions, inputs map[string]*tensor.Tensor) map[string][]float32 {
	t.Helper()
	o.Threads = 1
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(path, o)
	if err != nil {
		t.Fatalf("%+v: %v\n%s", o, err, dump(t, m))
	}
	defer s.Close()
	out, err := s.Run(context.Background(), inputs)
	if err != nil {
		t.Fatalf("%+v: %v\n%s", o, err, dump(t, m))
	}
	values := map[string][]float32{}
	for name, v := range out {
		switch v.Type {
		case tensor.Float32:
			x, _ := tensor.View[float32](v)
			values[name] = x
		case tensor.Float16Type:
			h, _ := tensor.View[tensor.Float16](v)
			for _, x := range h {
				values[name] = append(values[name], x.Float32())
			}
		}
	}
	return values
}

// sameOutputs compares two models at both ends of the optimization levels. The tolerance is relative to the largest output.
func sameOutputs(t testing.TB, want, got *onnx.Model, inputs map[string]*tensor.Tensor, tolerance float64) {
	t.Helper()
	reference := run(t, want, ort.OptimizeDisabled, inputs)
	for _, level := range []ort.OptimizationLevel{ort.OptimizeDisabled, ort.OptimizeAll} {
		outputs := run(t, got, level, inputs)
		if len(outputs) != len(reference) {
			t.Fatalf("%v: %d outputs, want %d", level, len(outputs), len(reference))
		}
		for name, w := range reference {
			if e := relativeError(w, outputs[name]); !(e <= tolerance) {
				t.Errorf("%v: output %q differs by %.2g of its largest value, more than %.2g\n%s", level, name, e, tolerance, dump(t, got))
			}
		}
	}
}

// sameByBothPaths is sameOutputs, and runs got with the native library too, which keeps activations in 16 bits.
func sameByBothPaths(t testing.TB, want, got *onnx.Model, inputs map[string]*tensor.Tensor, tolerance float64) {
	t.Helper()
	sameOutputs(t, want, got, inputs, tolerance)
	reference := run(t, want, ort.OptimizeDisabled, inputs)
	native := runWith(t, got, ort.SessionOptions{OpsLibrary: testenv.Ops(t), Config: map[string]string{"ai.coset.accuracy": "1"}}, inputs)
	for name, w := range reference {
		if e := relativeError(w, native[name]); !(e <= tolerance+1e-3) {
			t.Errorf("native: output %q differs by %.2g of its largest value\n%s", name, e, dump(t, got))
		}
	}
}

func relativeError(want, got []float32) float64 {
	if len(want) != len(got) {
		return math.Inf(1)
	}
	var largest, worst float64
	for i, w := range want {
		largest = max(largest, math.Abs(float64(w)))
		worst = max(worst, math.Abs(float64(w)-float64(got[i])))
	}
	if worst == 0 {
		return 0
	}
	return worst / largest
}

func dump(t testing.TB, m *onnx.Model) string {
	t.Helper()
	var b bytes.Buffer
	if err := onnx.Fprint(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
