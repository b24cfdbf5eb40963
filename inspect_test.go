package cosetq_test

import (
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
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

// What inspect predicts is what quantize writes, up to names and the like.
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
		q, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Bits: e.Bits, Output: filepath.Join(t.TempDir(), "q.onnx")})
		if err != nil {
			t.Fatal(err)
		}
		if extra := q.Bytes - e.Bytes; extra < 0 || extra > 24<<10 {
			t.Errorf("%d bits: %d bytes predicted, %d written", e.Bits, e.Bytes, q.Bytes)
		}
		if d := q.BitsPerWeight - e.BitsPerWeight; d < -0.05 || d > 0.05 {
			t.Errorf("%d bits: %.3f bits per weight predicted, %.3f written", e.Bits, e.BitsPerWeight, q.BitsPerWeight)
		}
	}
}
