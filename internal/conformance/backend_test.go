package conformance

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// enlarge is what the sizes of the matrices of a backend test are multiplied by, so that coding them pays.
const enlarge = 16

// Opsets and IR versions that models come with.
const (
	firstOpset, lastOpset = 7, 25
	firstIR, lastIR       = 3, 11
)

// slack is how much further than the codec's own error an output may be, relative to the norm of the product: rounding of
// float32 and of the integer kernels.
const slack = 1e-4

// matrixModels lists the backend tests whose graph multiplies matrices, by their path in the collection.
func matrixModels(t *testing.T, root string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "*", "*", "model.onnx"))
	if err != nil || len(paths) < 500 {
		t.Fatalf("%d backend tests in %s, %v", len(paths), root, err)
	}
	var found []string
	for _, path := range paths {
		m, err := onnx.Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, ok := m.Opset(""); ok && slices.ContainsFunc(m.Graph.Nodes, multiplies) {
			rel, _ := filepath.Rel(root, filepath.Dir(path))
			found = append(found, rel)
		}
		m.Close()
	}
	return found
}

func multiplies(n *onnx.Node) bool {
	return (n.Domain == "" || n.Domain == "ai.onnx") && (n.OpType == "MatMul" || n.OpType == "Gemm")
}

// readTensor reads a file with a TensorProto: it becomes the initializer of a model of nothing else.
func readTensor(path string) (*onnx.Tensor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const graphField, initializerField = 7, 5
	graph := protowire.AppendBytes(protowire.AppendTag(nil, initializerField, protowire.BytesType), b)
	m, err := onnx.Parse(protowire.AppendBytes(protowire.AppendTag(nil, graphField, protowire.BytesType), graph))
	if err != nil {
		return nil, err
	}
	return m.Graph.Initializers[0], nil
}

// fixSecond turns the second factor of every MatMul and Gemm that is an input of m into a constant: the recorded one, or a
// random one where dims says so.
func fixSecond(m *onnx.Model, recorded map[string]*onnx.Tensor) {
	for _, n := range m.Graph.Nodes {
		if !multiplies(n) || recorded[n.Inputs[1]] == nil {
			continue
		}
		name := n.Inputs[1]
		m.Graph.Inputs = slices.DeleteFunc(m.Graph.Inputs, func(v *onnx.ValueInfo) bool { return v.Name == name })
		if m.Graph.Initializer(name) == nil {
			c := *recorded[name]
			c.Name = name
			m.Graph.Initializers = append(m.Graph.Initializers, &c)
		}
	}
}

// backendModel opens a backend test with its recorded inputs, by name.
func backendModel(t *testing.T, dir string) (*onnx.Model, map[string]*onnx.Tensor) {
	t.Helper()
	m, err := onnx.Open(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	inputs := map[string]*onnx.Tensor{}
	for i, in := range m.Graph.Inputs {
		v, err := readTensor(filepath.Join(dir, "test_data_set_0", fmt.Sprintf("input_%d.pb", i)))
		if err != nil {
			continue // an optional input, or one with a default
		}
		inputs[in.Name] = v
	}
	return m, inputs
}

// Every MatMul and Gemm of ONNX's own tests, its second input made constant, is quantized or skipped for a reason, and no
// reason is missing that the sizes of those tests call for.
func TestBackendReasons(t *testing.T) {
	root := testenv.Backend(t)
	reasons := map[rewrite.Reason]int{}
	sites := 0
	for _, name := range matrixModels(t, root) {
		m, inputs := backendModel(t, filepath.Join(root, name))
		fixSecond(m, inputs)
		found, err := rewrite.FindSites(m, rewrite.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nodes := 0
		for _, n := range m.Graph.Nodes {
			if multiplies(n) {
				nodes++
			}
		}
		if len(found) < nodes {
			t.Errorf("%s: %d sites, %d nodes", name, len(found), nodes)
		}
		for _, s := range found {
			sites++
			reasons[s.Reason]++
			if s.Status == rewrite.Skipped && (s.Reason == "" || s.Detail == "") {
				t.Errorf("%s: %s is skipped without a reason", name, s.Name)
			}
			if s.Status == rewrite.Candidate && (s.Weights < rewrite.MinWeights || s.K < rewrite.MinColumns) {
				t.Errorf("%s: %s is a candidate with %d × %d weights", name, s.Name, s.N, s.K)
			}
		}
	}
	t.Logf("%d sites: %v", sites, reasons)
	// The tests in Debian's package are older and have no second factor that is computed.
	older := strings.HasPrefix(root, "/usr/")
	if reasons[rewrite.TooSmall] < 15 || reasons[rewrite.DynamicB] == 0 && !older || reasons[rewrite.Rank] == 0 {
		t.Errorf("reasons %v: the tests of MatMul and Gemm are not among them", reasons)
	}
}

// grown is a backend test of one node with matrices large enough to code.
type grown struct {
	name   string
	model  *onnx.Model
	inputs map[string]*tensor.Tensor
}

// grow multiplies the sizes of the matrices of a one-node model and fills them with random numbers. Axes of length 1
// broadcast and stay. ok is false when the test is not of that form.
func grow(t *testing.T, root, name string) (g grown, ok bool) {
	t.Helper()
	m, inputs := backendModel(t, filepath.Join(root, name))
	if len(m.Graph.Nodes) != 1 || len(inputs) < 2 {
		return g, false
	}
	for _, v := range inputs {
		if v.DataType != onnx.Float {
			return g, false
		}
	}
	n := m.Graph.Nodes[0]
	rng := rand.New(rand.NewPCG(uint64(len(name)), 77))
	g = grown{name: name, model: m, inputs: map[string]*tensor.Tensor{}}
	for _, in := range n.Inputs {
		dims := slices.Clone(inputs[in].Dims)
		for i := max(0, len(dims)-2); i < len(dims); i++ {
			if dims[i] > 1 {
				dims[i] *= enlarge
			}
		}
		count := int64(1)
		for _, d := range dims {
			count *= d
		}
		v := make([]float32, count)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		inputs[in] = onnx.NewTensor(in, dims, v)
		g.inputs[in] = tensor.Of(v, dims...)
		for _, info := range m.Graph.Inputs {
			if info.Name == in {
				sizes := make([]any, len(dims))
				for i, d := range dims {
					sizes[i] = d
				}
				info.Type = onnx.NewValueInfo(in, onnx.Float, sizes...).Type
			}
		}
	}
	m.Graph.Outputs[0].Type = onnx.NewValueInfo("", onnx.Float).Type
	m.Graph.Outputs[0].Type.Tensor.Shape = nil
	fixSecond(m, inputs)
	delete(g.inputs, n.Inputs[1])
	return g, true
}

// run executes a model on ONNX Runtime and returns its only output.
func (g grown) run(t *testing.T, m *onnx.Model, library string) ([]float32, error) {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	s, err := openRuntime(t).NewSessionFromBytes(b, t.TempDir(), ort.SessionOptions{OpsLibrary: library, Threads: 1})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out, err := s.Run(context.Background(), g.inputs)
	if err != nil {
		return nil, err
	}
	return tensor.View[float32](out[s.Outputs()[0].Name])
}

// check quantizes the only site of m and compares the outputs with those of m itself: no element may be further off than
// the norm of its row of activations times the norm of what its row of weights lost. It returns the SQNR of the weights.
func (g grown) check(t *testing.T, m *onnx.Model, codec *lattice.Codec, libraries ...string) float64 {
	t.Helper()
	want, err := g.run(t, m, "")
	if err != nil {
		t.Fatalf("the float model: %v", err)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil || len(sites) != 1 || sites[0].Status != rewrite.Candidate {
		t.Fatalf("sites %+v, %v", sites, err)
	}
	s := sites[0]
	res, err := quant.Quantize(context.Background(), s.Weight, quant.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	weight, decoded := make([]float32, s.N*s.K), make([]float32, s.N*s.K)
	if err := s.Weight.Rows(weight, 0, s.N); err != nil {
		t.Fatal(err)
	}
	if err := res.Matrix.DecodeRows(decoded, 0, s.N); err != nil {
		t.Fatal(err)
	}
	lost, size := make([]float64, s.N), make([]float64, s.N)
	for i, w := range weight {
		lost[i/s.K] += math.Pow(float64(w)-float64(decoded[i]), 2)
		size[i/s.K] += float64(w) * float64(w)
	}
	rows := g.activationNorms(t, s)
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: s, Matrix: res.Matrix}}, "test"); err != nil {
		t.Fatal(err)
	}
	for _, library := range libraries {
		got, err := g.run(t, m, library)
		if err != nil {
			t.Fatalf("library %q: %v", library, err)
		}
		if len(got) != len(want) || len(got) != len(rows)*s.N {
			t.Fatalf("library %q: %d outputs, want %d", library, len(got), len(want))
		}
		for i, v := range got {
			n := i % s.N
			bound := rows[i/s.N]*(math.Sqrt(lost[n])+slack*math.Sqrt(size[n])) + slack*math.Abs(float64(want[i]))
			if off := math.Abs(float64(v) - float64(want[i])); !(off <= bound) {
				t.Fatalf("library %q: output %d is %v, float %v: off by %.3g, the codec allows %.3g", library, i, v, want[i], off, bound)
			}
		}
	}
	return res.SQNR()
}

// activationNorms returns the norm of every row of A as the product sees it.
func (g grown) activationNorms(t *testing.T, s rewrite.Site) []float64 {
	t.Helper()
	a := g.inputs[s.Activation]
	v, err := tensor.View[float32](a)
	if err != nil {
		t.Fatal(err)
	}
	norms := make([]float64, len(v)/s.K)
	for i, x := range v {
		row := i / s.K
		if s.Axis == -2 { // [K, M]
			row = i % len(norms)
		}
		norms[row] += float64(x) * float64(x)
	}
	for i := range norms {
		norms[i] = math.Sqrt(norms[i])
	}
	return norms
}

// ONNX's own tests of MatMul and Gemm, with sizes that pay and the second input constant, at every opset and IR version,
// with and without the native library.
func TestBackendMatrices(t *testing.T) {
	testenv.Accurate(t)
	root, lib := testenv.Backend(t), testenv.Ops(t)
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	var cases []grown
	for _, name := range matrixModels(t, root) {
		g, ok := grow(t, root, name)
		if !ok {
			continue
		}
		sites, err := rewrite.FindSites(g.model, rewrite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s := sites[0]; s.Status == rewrite.Candidate {
			cases = append(cases, g)
		} else if s.Reason != rewrite.Rank {
			t.Errorf("%s: %s: %s", name, s.Reason, s.Detail)
		}
	}
	if len(cases) < 12 {
		t.Fatalf("%d tests have a matrix to code", len(cases))
	}
	worst := math.Inf(1)
	for _, g := range cases {
		t.Run(strings.ReplaceAll(g.name, "/", "_"), func(t *testing.T) {
			node := g.model.Graph.Nodes[0]
			for opset := int64(firstOpset); opset <= lastOpset; opset++ {
				if node.OpType == "Gemm" && len(node.Inputs) == 2 && opset < 11 {
					continue // C was not optional yet
				}
				m := onnx.Clone(g.model)
				m.SetOpset("", opset)
				// Each opset with another IR version.
				m.IRVersion = firstIR + (opset-firstOpset)%(lastIR-firstIR+1)
				if m.IRVersion < 4 {
					listInitializers(m)
				}
				worst = min(worst, g.check(t, m, codec, "", lib))
				if t.Failed() {
					t.Fatalf("at opset %d, IR version %d", opset, m.IRVersion)
				}
			}
		})
	}
	// Against what the codec loses on Gaussian numbers, which these are.
	t.Logf("%d tests, worst SQNR %.2f dB", len(cases), worst)
	if nominal := nominalSQNR(t, codec); worst < nominal-1.5 {
		t.Errorf("SQNR %.2f dB, nominal is %.2f", worst, nominal)
	}
}

// listInitializers names the initializers among the inputs, as IR version 3 asks for.
func listInitializers(m *onnx.Model) {
	for _, c := range m.Graph.Initializers {
		dims := make([]any, len(c.Dims))
		for i, d := range c.Dims {
			dims[i] = d
		}
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(c.Name, c.DataType, dims...))
	}
}

func nominalSQNR(t *testing.T, codec *lattice.Codec) float64 {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 6))
	sample := make([]float32, 1<<14)
	var energy float64
	for i := range sample {
		sample[i] = float32(rng.NormFloat64())
		energy += float64(sample[i]) * float64(sample[i])
	}
	d, err := codec.Distortion(sample, codec.NominalStep())
	if err != nil {
		t.Fatal(err)
	}
	return 10 * math.Log10(energy/float64(len(sample))/d)
}
