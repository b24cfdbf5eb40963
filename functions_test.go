package cosetq_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
)

// A model whose products are in functions, as exporters make them of modules, goes all the way: with data, beside the float model, and layer by layer.
func TestProductsInFunctions(t *testing.T) {
	session := runtime(t)
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Open(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	opset, _ := m.Opset("")
	layers := 0
	for i, n := range m.Graph.Nodes {
		if n.OpType != "Gemm" && n.OpType != "MatMul" {
			continue
		}
		layers++
		f := &onnx.Function{Domain: "modules", Name: fmt.Sprintf("Dense%d", i)}
		f.SetOpset("", opset)
		for k := range n.Inputs {
			f.Inputs = append(f.Inputs, fmt.Sprintf("in%d", k))
		}
		f.Outputs = []string{"out"}
		f.Nodes = []*onnx.Node{onnx.NewNode(n.OpType, f.Inputs, f.Outputs, n.Attributes...)}
		n.Domain, n.OpType, n.Attributes = f.Domain, f.Name, nil
		m.Functions = append(m.Functions, f)
	}
	m.SetOpset("modules", 1)
	m.IRVersion = max(m.IRVersion, 8)
	float, quantized := filepath.Join(dir, "functions.onnx"), filepath.Join(dir, "q.onnx")
	if _, err := m.Save(float, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Quantize(t.Context(), float, cosetq.QuantizeOptions{Output: quantized, Bits: 3, Data: files.Calib, Samples: 64})
	if err != nil {
		t.Fatal(err)
	}
	if layers == 0 || len(r.Layers) != layers {
		t.Errorf("%d layers quantized, want %d", len(r.Layers), layers)
	}
	e, err := cosetq.Evaluate(t.Context(), eval.TaskClassification, files.Data, []string{float, quantized}, cosetq.EvaluateOptions{Samples: 500, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if was, is := e.Models[0].Metrics.(eval.Classification).Top1, e.Models[1].Metrics.(eval.Classification).Top1; is < was-0.02 {
		t.Errorf("top-1 %.3f, float %.3f", is, was)
	}
	c, err := cosetq.Compare(t.Context(), float, quantized, cosetq.CompareOptions{Data: files.Calib, Samples: 16})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Layers) != layers || len(c.NotCompared) != 0 {
		t.Errorf("%d layers compared, want %d; %v not", len(c.Layers), layers, c.NotCompared)
	}
}
