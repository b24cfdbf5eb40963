package cosetq_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

// Every MatMul and Gemm of every real model is in the report, with a status and, where it is skipped, a reason in words.
func TestEveryNodeIsAccountedFor(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(testenv.Data(t, "models"), "*.onnx"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, path := range append(paths, testenv.Llama(t)) {
		m, err := onnx.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, s := range m.Scopes() {
			for _, n := range s.Nodes() {
				if n.Domain == "" && (n.OpType == "MatMul" || n.OpType == "Gemm") {
					want++
				}
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		r, err := cosetq.Inspect(path, rewrite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, n := range r.Nodes {
			if n.Op == "MatMul" || n.Op == "Gemm" {
				got++
			}
			explained := cosetq.ReasonText(n.Reason) != ""
			if skipped := n.Status == string(rewrite.Skipped); n.Status == "" || skipped != explained {
				t.Errorf("%s: %s has status %q and reason %q", filepath.Base(path), n.Node, n.Status, n.Reason)
			}
		}
		for _, o := range r.Others {
			if cosetq.ReasonText(o.Reason) == "" || (o.Reason == "conv") != (o.Op == "Conv") {
				t.Errorf("%s: weights of %s stay for the reason %q", filepath.Base(path), o.Op, o.Reason)
			}
		}
		if got != want {
			t.Errorf("%s: %d MatMul and Gemm in the report, %d in the model", filepath.Base(path), got, want)
		}
	}
}

// What inspect and a dry run predict is what quantize writes, to the byte.
func TestEstimates(t *testing.T) {
	files, _ := digits(t, "")
	r, err := cosetq.Inspect(files.Model, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Estimates) != 3 {
		t.Fatalf("%d estimates", len(r.Estimates))
	}
	for _, e := range r.Estimates {
		q, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Bits: e.Bits, Output: filepath.Join(t.TempDir(), "digits.q.onnx")})
		if err != nil {
			t.Fatal(err)
		}
		if e.Bytes != q.Bytes || e.BitsPerWeight != q.BitsPerWeight {
			t.Errorf("%d bits: %d bytes and %v bits per weight predicted, %d and %v written", e.Bits, e.Bytes, e.BitsPerWeight, q.Bytes, q.BitsPerWeight)
		}
		p, err := cosetq.Plan(t.Context(), files.Model, cosetq.QuantizeOptions{Bits: e.Bits, Layers: []string{"fc2=4"}})
		if err != nil {
			t.Fatal(err)
		}
		if p.Bytes < q.Bytes || p.Bytes > q.Bytes+256*128*3/8 {
			t.Errorf("%d bits: %d bytes, with 4 bits for fc2 %d", e.Bits, q.Bytes, p.Bytes)
		}
	}
}

// Weights of one shape count each.
func TestEstimatesOfEqualShapes(t *testing.T) {
	m := onnx.NewModel(8, 17, "equal")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, "batch", 256)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("x5", onnx.Float, "batch", 256)}
	for i := range 5 {
		values := make([]float32, 256*256)
		for j := range values {
			values[j] = float32(i+j%7) - 3
		}
		w := fmt.Sprintf("w%d", i)
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor(w, []int64{256, 256}, values))
		m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("MatMul", []string{fmt.Sprintf("x%d", i), w}, []string{fmt.Sprintf("x%d", i+1)}))
	}
	if written := estimateIsExact(t, m); written < 5*256*256/2 {
		t.Errorf("%d bytes for five weights of 4 bits", written)
	}
}

// estimateIsExact quantizes m as it would be by default and returns the bytes written, which inspect must have predicted.
func estimateIsExact(t *testing.T, m *onnx.Model) int64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Inspect(path, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Estimates[0].Bytes != q.Bytes {
		t.Errorf("%d bytes predicted, %d written", r.Estimates[0].Bytes, q.Bytes)
	}
	return q.Bytes
}

// Weights that are stored as integers have sizes that are right as well.
func TestEstimatesOfStoredIntegers(t *testing.T) {
	m := onnx.NewModel(8, 17, "integers")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("stored", []int64{64, 64}, make([]int8, 64*64)), onnx.NewTensor("scale", nil, []float32{0.01})}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("DequantizeLinear", []string{"stored", "scale"}, []string{"w"}),
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"y"}),
	}
	estimateIsExact(t, m)
}

// What makes quantizing impossible is said by inspect, and by quantize before it begins.
func TestProblemsAreToldFirst(t *testing.T) {
	for _, c := range []struct {
		opset int64
		input string
		want  error
	}{{6, "x", rewrite.ErrOpset}, {17, "missing", nil}} {
		m := onnx.NewModel(8, c.opset, "problem")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 64)}
		m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{64, 64}, make([]float32, 64*64))}
		m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{c.input, "w"}, []string{"y"})}
		path := filepath.Join(t.TempDir(), "problem.onnx")
		if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		r, err := cosetq.Inspect(path, rewrite.Options{})
		if err != nil || r.Problem == "" || len(r.Estimates) != 0 {
			t.Errorf("opset %d: inspect says %q, %v, with %d estimates", c.opset, r.Problem, err, len(r.Estimates))
		}
		stages := 0
		_, err = cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{Progress: func(string, int64, int64) { stages++ }})
		if kind, _ := cosetq.Classify(err); kind != cosetq.BadModel || !errors.Is(err, c.want) && c.want != nil || stages > 0 {
			t.Errorf("opset %d: %v after %d steps", c.opset, err, stages)
		}
	}
}

// What is no tensor does not keep a model from being inspected, and is shown by its type.
func TestInspectShowsSequences(t *testing.T) {
	sequence := &onnx.Type{Sequence: &onnx.SequenceType{ElemType: onnx.NewValueInfo("", onnx.Float, 2, 64).Type}}
	m := onnx.NewModel(8, 17, "sequences")
	m.Graph.Inputs = []*onnx.ValueInfo{{Name: "s", Type: sequence}}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 2, 64), {Name: "ys", Type: sequence}, {Name: "x"}}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{64, 64}, make([]float32, 64*64)), onnx.NewTensor("first", nil, []int64{0})}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("SequenceAt", []string{"s", "first"}, []string{"x"}), onnx.NewNode("MatMul", []string{"x", "w"}, []string{"y"}),
		onnx.NewNode("SequenceConstruct", []string{"y", "x"}, []string{"ys"}),
	}
	path := filepath.Join(t.TempDir(), "sequences.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Inspect(path, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// What cannot be fed is no damage.
	_, err = cosetq.Load(path, ort.SessionOptions{})
	if kind, hint := cosetq.Classify(err); kind != cosetq.BadModel || strings.Contains(hint, "damaged") {
		t.Errorf("load: %v, with the hint %q", err, hint)
	}
	if got := strings.Join(slices.Concat(r.Inputs, r.Outputs), ", "); got != "s seq(tensor(float)[2,64]), y float32[2,64], ys seq(tensor(float)[2,64]), x ?" {
		t.Errorf("inspect shows %s", got)
	}
}

// Weights of other operators are told under the operator that computes with them, also where nothing can be quantized.
func TestOtherWeightsAreNamed(t *testing.T) {
	m := onnx.NewModel(8, 17, "others")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 4, 16)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{4, 16, 64}, make([]float32, 4*16*64))}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Transpose", []string{"w"}, []string{"t"}, onnx.IntsAttr("perm", 2, 0, 1)),
		onnx.NewNode("Einsum", []string{"x", "t"}, []string{"y"}, onnx.StringAttr("equation", "bk,khn->bhn")),
	}
	path := filepath.Join(t.TempDir(), "others.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Inspect(path, rewrite.Options{})
	if err != nil || len(r.Others) != 1 || r.Others[0].Op != "Einsum" || r.Others[0].Bytes != 4*4*16*64 {
		t.Errorf("inspect: %+v, %v", r.Others, err)
	}
	_, err = cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{})
	if kind, _ := cosetq.Classify(err); kind != cosetq.Nothing || !strings.Contains(err.Error(), "Einsum 16.4 kB") {
		t.Errorf("quantize: %v", err)
	}
}

// Of a weight that is not followed, the largest part counts as the weight, and what else it is made of stays for the reason that its
// product is skipped for.
func TestOtherWeightsOfSkippedProducts(t *testing.T) {
	m := onnx.NewModel(8, 17, "unfolded")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 48)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w1", []int64{64, 20}, make([]float32, 64*20)), onnx.NewTensor("w2", []int64{64, 28}, make([]float32, 64*28))}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Concat", []string{"w1", "w2"}, []string{"w"}, onnx.IntAttr("axis", 1)), onnx.NewNode("MatMul", []string{"x", "w"}, []string{"y"}),
	}
	path := filepath.Join(t.TempDir(), "unfolded.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Inspect(path, rewrite.Options{})
	if want := (cosetq.OtherWeights{Op: "MatMul", Nodes: 1, Bytes: 4 * 64 * 20, Reason: string(rewrite.Unfolded)}); err != nil || r.Weights != 64*28 || !slices.Equal(r.Others, []cosetq.OtherWeights{want}) {
		t.Errorf("inspect: %+v, %v, want %+v", r.Others, err, want)
	}
}

// A model that another tool has quantized is no model without products, and its scales are no weights that stay.
func TestWhatIsQuantizedAlreadyIsTold(t *testing.T) {
	m := onnx.NewModel(8, 17, "coded")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 64)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", 1024)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("codes", []int64{1024, 2, 16}, make([]uint8, 1024*32)), onnx.NewTensor("scales", []int64{2048}, make([]float32, 2048))}
	node := onnx.NewNode("MatMulNBits", []string{"x", "codes", "scales"}, []string{"y"},
		onnx.IntAttr("K", 64), onnx.IntAttr("N", 1024), onnx.IntAttr("bits", 4), onnx.IntAttr("block_size", 32))
	node.Domain = "com.microsoft"
	m.SetOpset(node.Domain, 1)
	m.Graph.Nodes = []*onnx.Node{node}
	path := filepath.Join(t.TempDir(), "coded.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if r, err := cosetq.Inspect(path, rewrite.Options{}); err != nil || len(r.Nodes) != 1 || len(r.Others) != 0 {
		t.Errorf("inspect: %+v, %v", r, err)
	}
	_, err := cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{})
	if kind, _ := cosetq.Classify(err); kind != cosetq.Nothing || !strings.Contains(err.Error(), "already-quantized (quantized by another tool; start from the float model)") {
		t.Errorf("quantize: %v", err)
	}
}
