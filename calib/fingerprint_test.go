package calib_test

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/onnx"
)

// network is a model with a weight large enough to be sampled only.
func network() *onnx.Model {
	rng := rand.New(rand.NewPCG(1, 1))
	w := make([]float32, 300*200)
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	m := onnx.NewModel(9, 17, "g")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "b", 300)}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "b", 200)}
	g.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{300, 200}, w), onnx.NewTensor("bias", []int64{200}, w[:200])}
	g.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"h"}),
		onnx.NewNode("Add", []string{"h", "bias"}, []string{"s"}),
		onnx.NewNode("LeakyRelu", []string{"s"}, []string{"y"}, onnx.FloatAttr("alpha", 0.1)),
	}
	return m
}

func fingerprint(t *testing.T, m *onnx.Model) string {
	t.Helper()
	f, err := calib.Fingerprint(m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFingerprintChangesWithTheModel(t *testing.T) {
	want := fingerprint(t, network())
	if !strings.HasPrefix(want, "cqs1:") {
		t.Errorf("got %s", want)
	}
	// setWeight changes one number, of a small tensor or at one of the sampled places of a large one.
	setWeight := func(tensor, at int) func(*onnx.Model) {
		return func(m *onnx.Model) {
			old := m.Graph.Initializers[tensor]
			v, err := old.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			v[at]++
			m.Graph.Initializers[tensor] = onnx.NewTensor(old.Name, old.Dims, v)
		}
	}
	for name, change := range map[string]func(*onnx.Model){
		"first weight":    setWeight(0, 0),
		"last weight":     setWeight(0, 300*200-1),
		"a bias":          setWeight(1, 77),
		"weight name":     func(m *onnx.Model) { m.Graph.Initializers[0].Name, m.Graph.Nodes[0].Inputs[1] = "v", "v" },
		"weight shape":    func(m *onnx.Model) { m.Graph.Initializers[0].Dims = []int64{200, 300} },
		"activation name": func(m *onnx.Model) { m.Graph.Nodes[0].Outputs[0], m.Graph.Nodes[1].Inputs[0] = "g", "g" },
		"operator":        func(m *onnx.Model) { m.Graph.Nodes[1].OpType = "Mul" },
		"attribute":       func(m *onnx.Model) { m.Graph.Nodes[2].Attributes[0].F = 0.2 },
		"opset":           func(m *onnx.Model) { m.SetOpset("", 18) },
		"input type":      func(m *onnx.Model) { m.Graph.Inputs[0].Type.Tensor.ElemType = onnx.Float16 },
		"a node more": func(m *onnx.Model) {
			m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Relu", []string{"y"}, []string{"z"}))
		},
	} {
		m := network()
		change(m)
		if fingerprint(t, m) == want {
			t.Errorf("%s: the fingerprint is the same", name)
		}
	}
}

func TestFingerprintDoesNotDependOnStorage(t *testing.T) {
	want := fingerprint(t, network())
	for _, mode := range []onnx.ExternalMode{onnx.ExternalNever, onnx.ExternalAlways} {
		path := filepath.Join(t.TempDir(), "m.onnx")
		m := network()
		m.ProducerName, m.DocString = "someone", "else"
		m.SetMetadata("key", "value")
		m.Graph.Nodes[0].Name = "node"
		if _, err := m.Save(path, onnx.SaveOptions{External: mode}); err != nil {
			t.Fatal(err)
		}
		m, err := onnx.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := fingerprint(t, m); got != want {
			t.Errorf("stored in mode %v: %s, want %s", mode, got, want)
		}
		if mode == onnx.ExternalNever {
			if n := m.ReferToFile(512); n != 2 {
				t.Errorf("%d tensors referred to", n)
			}
			if got := fingerprint(t, m); got != want {
				t.Errorf("referring to the file: %s, want %s", got, want)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
