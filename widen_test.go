package cosetq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// twin is oneToken behind another layer and a function of ONNX Runtime's, each part computing in a type of its own. Its weights are
// numbers of float16, whatever the types.
func twin(t *testing.T, head, tail onnx.DataType) *onnx.Model {
	t.Helper()
	rng := rand.New(rand.NewPCG(4, 9))
	as := func(dt onnx.DataType, from *onnx.Tensor) *onnx.Tensor {
		v, err := from.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		half := onnx.NewFloat16Tensor(from.Name, from.Dims, v)
		if dt == onnx.Float16 {
			return half
		}
		if v, err = half.Float32s(); err != nil {
			t.Fatal(err)
		}
		return onnx.NewTensor(from.Name, from.Dims, v)
	}
	first := make([]float32, importanceWidth*importanceWidth*2)
	for i := range first {
		first[i] = float32(rng.NormFloat64() / 4)
	}
	m := oneToken()
	m.SetOpset("com.microsoft", 1)
	g := m.Graph
	for i, stored := range g.Initializers[:2] {
		g.Initializers[i] = as(tail, stored)
	}
	g.Initializers = append(g.Initializers, as(head, onnx.NewTensor("first", []int64{importanceWidth, 2 * importanceWidth}, first)),
		as(tail, onnx.NewTensor("second", []int64{2 * importanceWidth, importanceWidth}, first)))
	gelu := onnx.NewNode("FastGelu", []string{"wide"}, []string{"bent"})
	gelu.Domain = "com.microsoft"
	g.Nodes[0].Inputs[0] = "narrow"
	g.Nodes = append([]*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "first"}, []string{"wide"}), gelu,
		onnx.NewNode("Cast", []string{"bent"}, []string{"cast"}, onnx.IntAttr("to", int64(tail))),
		onnx.NewNode("MatMul", []string{"cast", "second"}, []string{"narrow"}),
	}, g.Nodes...)
	g.Inputs[0].Type.Tensor.ElemType, g.Outputs[0].Type.Tensor.ElemType = head, tail
	return m
}

// learn calibrates m over data, on a device.
func learn(t *testing.T, m *onnx.Model, data, device string) (*CalibrateReport, *calib.StatisticsFile) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := Calibrate(t.Context(), path, data, CalibrateOptions{Threads: 2, Device: device})
	if err != nil {
		t.Fatal(err)
	}
	file, err := OpenStatistics(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return r, file
}

// halfRows writes samples that float16 holds exactly.
func halfRows(t *testing.T) (data string) {
	t.Helper()
	dir := t.TempDir()
	x, data := tokenRows(t, dir, importanceSamples)
	for i, v := range x {
		x[i] = tensor.ToFloat16(v).Float32()
	}
	all := tensor.Of(x, importanceSamples, importanceTokens, importanceWidth)
	if err := tensor.SaveNPZ(filepath.Join(dir, "x.npz"), []tensor.Spec{{Name: "x"}}, map[string]*tensor.Tensor{"x": all}); err != nil {
		t.Fatal(err)
	}
	return data
}

// A model that computes in float16, all of it or a part, learns what its twin in float32 learns, under the tags and the fingerprint that
// quantizing it asks for.
func TestCalibrateFloat16(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	data := halfRows(t)
	_, want := learn(t, twin(t, onnx.Float, onnx.Float), data, "cpu")
	if len(want.Observations) != 3 || len(want.Gradients) != 3 {
		t.Fatalf("%d activations, %d gradients", len(want.Observations), len(want.Gradients))
	}
	t.Setenv(cudaops.EnvCUDALibrary, testenv.Provider(t))
	for _, c := range []struct {
		head, tail onnx.DataType
		device     string
	}{{onnx.Float16, onnx.Float16, "cpu"}, {onnx.Float16, onnx.Float, "cpu"}, {onnx.Float, onnx.Float16, "cpu"}, {onnx.Float16, onnx.Float16, CUDA}} {
		kinds := fmt.Sprint(c)
		m := twin(t, c.head, c.tail)
		r, got := learn(t, m, data, c.device)
		if len(r.Notes) > 0 {
			t.Errorf("%s: notes %q", kinds, r.Notes)
		}
		for i, o := range slices.Concat(want.Observations, want.Gradients) {
			a, err := o.Matrix()
			if err != nil {
				t.Fatal(err)
			}
			found := got.Find(o.Tag)
			if i >= len(want.Observations) {
				found = got.Gradient(o.Tag)
			}
			if found == nil {
				t.Fatalf("%s: nothing under %q", kinds, o.Tag)
			}
			b, err := found.Matrix()
			if err != nil {
				t.Fatal(err)
			}
			var off, all float64
			for i := range a {
				off, all = off+(a[i]-b[i])*(a[i]-b[i]), all+a[i]*a[i]
			}
			if !(math.Sqrt(off/all) < 1e-5) {
				t.Errorf("%s: the moments of %q are %.1e off", kinds, o.Tag, math.Sqrt(off/all))
			}
		}
		sites, err := rewrite.FindSites(m, rewrite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := hessians{tags: rewrite.GradientTags(sites)}
		if err := h.open(r.Output, m); err != nil {
			t.Fatal(err)
		}
		for i := range sites {
			if g, err := h.gradients(sites[i].Weight); g == nil || err != nil {
				t.Errorf("%s: quantizing finds no gradients of %s: %v", kinds, sites[i].Name, err)
			}
		}
		if err := h.close(); err != nil {
			t.Error(err)
		}
	}
}

// What cannot be widened is calibrated as it is, and a note says why: here the type is an argument of a function.
func TestCalibrateFloat16AsItIs(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	m := twin(t, onnx.Float16, onnx.Float16)
	to := onnx.IntAttr("to", 0)
	to.I, to.RefAttrName = 0, "type"
	convert := &onnx.Function{Domain: "local", Name: "Convert", Inputs: []string{"a"}, Outputs: []string{"b"}, Attributes: []string{"type"},
		Nodes: []*onnx.Node{onnx.NewNode("Cast", []string{"a"}, []string{"b"}, to)}}
	convert.SetOpset("", 17)
	m.Functions = []*onnx.Function{convert}
	m.SetOpset("local", 1)
	call := m.Graph.Nodes[2]
	call.OpType, call.Domain, call.Attributes = "Convert", "local", []*onnx.Attribute{onnx.IntAttr("type", int64(onnx.Float16))}
	r, got := learn(t, m, halfRows(t), "cpu")
	if len(r.Notes) != 2 || !strings.Contains(r.Notes[0], "does not load it in float32") || !strings.Contains(r.Notes[1], "weigh alike") {
		t.Errorf("notes %q", r.Notes)
	}
	for _, o := range got.Observations {
		if o.Rows != importanceSamples*importanceTokens {
			t.Errorf("%q: %d rows", o.Tag, o.Rows)
		}
	}
	if len(got.Observations) != 3 {
		t.Errorf("%d activations", len(got.Observations))
	}
}

// Where memory has room for a model of float16 but not for what it becomes in float32, it is calibrated as it is.
func TestCalibrateFloat16InLittleMemory(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	if _, err := twin(t, onnx.Float16, onnx.Float16).Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := newCalibration(t.Context(), path, calibrationOptions{threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	defer c.close()
	c.free = func() int64 { return 1 << 10 }
	s, err := c.gather(t.Context(), halfRows(t), calib.Options{}, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if notes := c.notes(); c.wide || len(notes) != 2 || !strings.Contains(notes[0], "in the 16 bits that the model computes in, because in float32 it would take") {
		t.Errorf("%q", notes)
	}
	for _, o := range s.Observations {
		if o.Rows != importanceSamples*importanceTokens {
			t.Errorf("%q: %d rows", o.Tag, o.Rows)
		}
	}
}

// A table of which rows are looked up stays in its file, unless something else reads it or a GPU does.
func TestFloatBytes(t *testing.T) {
	m := onnx.NewModel(8, 17, "m")
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewFloat16Tensor("table", []int64{4, 2}, make([]float32, 8)), onnx.NewTensor("w", []int64{2, 3}, make([]float32, 6)),
		onnx.NewTensor("ids", []int64{1}, []int64{0})}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("Gather", []string{"table", "ids"}, []string{"row"}), onnx.NewNode("MatMul", []string{"row", "w"}, []string{"y"})}
	if mapped, whole := floatBytes(m, true), floatBytes(m, false); mapped != 24 || whole != 56 {
		t.Errorf("%d and %d bytes", mapped, whole)
	}
	m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Transpose", []string{"table"}, []string{"z"}))
	if mapped := floatBytes(m, true); mapped != 56 {
		t.Errorf("shared: %d bytes", mapped)
	}
}
