package conformance

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// codecs are the presets (named by their bits), and one for every form that the format can take: one and several levels, packed
// digits, radices that are no power of two, every lattice, one to five gains, 16-bit digits.
var codecs = []string{
	"4", "3", "2",
	"d4:3,3:g1,2", "e8:2,2:g2,3", "e8:3", "e8:4", "z2:4,4", "z1:16", "z1:16:g3,4,5,6", "z1:4:g3,4,5,7", "d4:8:g3,4,5,7", "d4:2,8:g1,2,3,4,5",
}

// turned are the codecs whose weights are coded under a rotation where the columns allow one, and the rows are not tableRows: the
// models of these have nodes with and without, those of the others none with.
var turned = []string{"3", "e8:2,2:g2,3", "d4:8:g3,4,5,7"}

// rotation returns what the weight of a layer is turned by.
func (l layer) rotation(codec string) *quant.Rotation {
	if l.n == tableRows || !slices.Contains(turned, codec) {
		return nil
	}
	return quant.NewRotation(l.k, 3)
}

var (
	rows    = []int{1, 10, 50, 64, 65, tableRows}
	columns = []int{1, 7, 8, 9, 63, 100, 192}
	batches = []int{0, 1, 3, 17}
	// wide has enough tiles for the value look-up kernels.
	wide = layer{n: 640, k: 192}
)

// A layer is one HNLQLinear node of a model, or an HNLQGather. All with the same n and k share one weight.
type layer struct {
	n, k   int
	bias   bool
	gather bool
}

func (l layer) weight() string { return fmt.Sprintf("w_%d_%d", l.n, l.k) }
func (l layer) input() string {
	if l.gather {
		return "ids"
	}
	return fmt.Sprintf("a_%d", l.k)
}
func (l layer) output() string {
	if l.gather {
		return fmt.Sprintf("rows_%d_%d", l.n, l.k)
	}
	return fmt.Sprintf("y_%d_%d_%v", l.n, l.k, l.bias)
}

// width is the last dimension of the output.
func (l layer) width() int {
	if l.gather {
		return l.k
	}
	return l.n
}

// tableRows is the N of the weights that an HNLQGather takes rows of as well: those without a rotation in any codec.
const tableRows = 200

// ids are rows of a table, every other one counted from its end.
func ids(batch int) []int64 {
	v := make([]int64, batch)
	for i := range v {
		v[i] = int64((61*i+batch)%tableRows - i%2*tableRows)
	}
	return v
}

func layers() []layer {
	list := []layer{wide, {n: wide.n, k: wide.k, bias: true}}
	for _, n := range rows {
		for _, k := range columns {
			list = append(list, layer{n: n, k: k}, layer{n: n, k: k, bias: true})
		}
	}
	for _, k := range columns {
		list = append(list, layer{n: tableRows, k: k, gather: true})
	}
	return list
}

// A suite is one model: every layer in one codec and one element type.
type suite struct {
	codec string
	dtype onnx.DataType
}

func suites() []suite {
	var list []suite
	for _, c := range codecs {
		list = append(list, suite{c, onnx.Float}, suite{c, onnx.Float16})
	}
	return list
}

func (s suite) String() string {
	return strings.NewReplacer(":", "_", ",", "-").Replace(s.codec) + "_" + s.dtype.String()
}
func (s suite) model(dir string) string     { return filepath.Join(dir, s.String()+".onnx") }
func (s suite) reference(dir string) string { return filepath.Join(dir, s.String()+".ref") }

// numbers are float16 values, so that both element types compute with the same ones.
func numbers(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 17))
	v := make([]float32, n)
	for i := range v {
		v[i] = tensor.ToFloat16(float32(rng.NormFloat64())).Float32()
	}
	return v
}

func activations(k, batch int) []float32 { return numbers(uint64(1000*k+batch), batch*k) }
func bias(n int) []float32               { return numbers(uint64(n), n) }

// inputs are the activations of every layer.
func (s suite) inputs(batch int) map[string]*tensor.Tensor {
	in := map[string]*tensor.Tensor{layer{gather: true}.input(): tensor.Of(ids(batch), int64(batch))}
	for _, k := range columns {
		in[layer{k: k}.input()] = s.tensor(activations(k, batch), int64(batch), int64(k))
	}
	return in
}

func (s suite) tensor(v []float32, shape ...int64) *tensor.Tensor {
	if s.dtype == onnx.Float {
		return tensor.Of(v, shape...)
	}
	h := make([]tensor.Float16, len(v))
	for i, x := range v {
		h[i] = tensor.ToFloat16(x)
	}
	return tensor.Of(h, shape...)
}

// dense is a weight in memory.
type dense struct {
	n, k int
	v    []float32
}

func (d dense) Dims() (n, k int) { return d.n, d.k }

func (d dense) Rows(dst []float32, n0, n1 int) error {
	copy(dst, d.v[n0*d.k:n1*d.k])
	return nil
}

// coded holds the weights of all layers in one codec.
func coded(t *testing.T, name string) map[string]*quant.Matrix {
	t.Helper()
	c, err := lattice.ParseCodec(name)
	if len(name) == 1 {
		c, err = lattice.Preset(int(name[0] - '0'))
	}
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]*quant.Matrix{}
	for _, l := range layers() {
		if m[l.weight()] != nil {
			continue
		}
		src := dense{l.n, l.k, numbers(uint64(l.n*1000+l.k), l.n*l.k)}
		r, err := quant.Quantize(context.Background(), src, quant.Options{Codec: c, Rotation: l.rotation(name)})
		if err != nil {
			t.Fatal(err)
		}
		m[l.weight()] = r.Matrix
	}
	return m
}

// write builds the model of a suite as `cosetq quantize` does and saves it.
func (s suite) write(t *testing.T, dir string, weights map[string]*quant.Matrix) {
	t.Helper()
	m := onnx.NewModel(10, 20, s.String())
	g := m.Graph
	g.Inputs = append(g.Inputs, onnx.NewValueInfo(layer{gather: true}.input(), onnx.Int64, "batch"))
	for _, k := range columns {
		g.Inputs = append(g.Inputs, onnx.NewValueInfo(layer{k: k}.input(), s.dtype, "batch", k))
	}
	done := map[string]bool{}
	add := func(name string, dims []int64, v []float32) {
		if done[name] {
			return
		}
		done[name] = true
		tensor := onnx.NewTensor(name, dims, v)
		if s.dtype == onnx.Float16 {
			tensor = onnx.NewFloat16Tensor(name, dims, v)
		}
		g.Initializers = append(g.Initializers, tensor)
	}
	for _, l := range layers() {
		// The numbers do not matter: they are replaced by the code.
		add(l.weight(), []int64{int64(l.k), int64(l.n)}, make([]float32, l.n*l.k))
		out := l.output()
		if l.gather {
			table := l.weight() + "_t"
			g.Nodes = append(g.Nodes, onnx.NewNode("Transpose", []string{l.weight()}, []string{table + out}),
				onnx.NewNode("Gather", []string{table + out, l.input()}, []string{out}))
			g.Outputs = append(g.Outputs, onnx.NewValueInfo(out, s.dtype, "batch", l.k))
			continue
		}
		if l.bias {
			b := fmt.Sprintf("b_%d", l.n)
			add(b, []int64{int64(l.n)}, bias(l.n))
			g.Nodes = append(g.Nodes, onnx.NewNode("Add", []string{out + "_0", b}, []string{out}))
			out += "_0"
		}
		g.Nodes = append(g.Nodes, onnx.NewNode("MatMul", []string{l.input(), l.weight()}, []string{out}))
		g.Outputs = append(g.Outputs, onnx.NewValueInfo(l.output(), s.dtype, "batch", l.n))
	}
	if err := m.Scopes()[0].Sort(); err != nil {
		t.Fatal(err)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{Embedding: true})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, site := range sites {
		if site.Reason == rewrite.TooSmall { // not worth it, but the kernels must be right
			site.Status, site.Reason = rewrite.Candidate, ""
		}
		replacements = append(replacements, rewrite.Replacement{Site: site, Matrix: weights[site.Initializer]})
	}
	r, err := rewrite.Apply(m, replacements, "test")
	if err != nil {
		t.Fatal(err)
	}
	if r.Nodes != len(layers()) {
		t.Fatalf("%d nodes, want %d", r.Nodes, len(layers()))
	}
	if _, err := m.Save(s.model(dir), onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: 4096}); err != nil {
		t.Fatal(err)
	}
}

// An expectation is what a layer must give: the values, and the norm they would have without cancellation, which errors
// are measured by.
type expectation struct {
	norm   float64
	values []float64
}

// expect multiplies the decoded weight in float64.
func expect(t *testing.T, l layer, m *quant.Matrix, batch int) expectation {
	t.Helper()
	w := make([]float32, l.n*l.k)
	if err := m.DecodeRows(w, 0, l.n); err != nil {
		t.Fatal(err)
	}
	e := expectation{values: make([]float64, 0, batch*l.width())}
	var squares float64
	if l.gather {
		for _, id := range ids(batch) {
			row := int(id+tableRows) % tableRows
			for _, v := range w[row*l.k:][:l.k] {
				squares += float64(v) * float64(v)
				e.values = append(e.values, float64(v))
			}
		}
		e.norm = math.Sqrt(squares)
		return e
	}
	a, b := activations(l.k, batch), bias(l.n)
	for i := range batch {
		for r := range l.n {
			var sum, a2, w2 float64
			for c := range l.k {
				x, y := float64(a[i*l.k+c]), float64(w[r*l.k+c])
				sum, a2, w2 = sum+x*y, a2+x*x, w2+y*y
			}
			squares += a2 * w2
			if l.bias {
				sum += float64(b[r])
				squares += float64(b[r]) * float64(b[r])
			}
			e.values = append(e.values, sum)
		}
	}
	e.norm = math.Sqrt(squares)
	return e
}

// writeReference stores what all layers give, for the processes that run the kernels.
func writeReference(t *testing.T, path string, weights map[string]*quant.Matrix) {
	t.Helper()
	var raw []byte
	for _, batch := range batches {
		for _, l := range layers() {
			e := expect(t, l, weights[l.weight()], batch)
			for _, v := range append([]float64{e.norm}, e.values...) {
				raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(v))
			}
		}
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readReference(t *testing.T, path string) map[int]map[layer]expectation {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next := func() float64 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(raw))
		raw = raw[8:]
		return v
	}
	all := map[int]map[layer]expectation{}
	for _, batch := range batches {
		all[batch] = map[layer]expectation{}
		for _, l := range layers() {
			e := expectation{norm: next(), values: make([]float64, batch*l.width())}
			for i := range e.values {
				e.values[i] = next()
			}
			all[batch][l] = e
		}
	}
	return all
}
