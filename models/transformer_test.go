package models_test

import (
	"context"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// TestTransformer runs the transformer: outputs depend on the tokens up to theirs, and on no later ones.
func TestTransformer(t *testing.T) {
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	m := models.Transformer{Layers: 2, Width: 32, Heads: 4, Context: 16, Seed: 1}.ONNX()
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSessionFromBytes(data, "", ort.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const batch, seq = 2, 12
	ids := make([]int64, batch*seq)
	for i := range ids {
		ids[i] = int64(i * 37 % models.Tokens)
	}
	logits := func() []float32 {
		out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"input_ids": tensor.Of(ids, batch, seq)})
		if err != nil {
			t.Fatal(err)
		}
		if want := []int64{batch, seq, models.Tokens}; !slices.Equal(out["logits"].Shape, want) {
			t.Fatalf("logits %v, want %v", out["logits"].Shape, want)
		}
		v, err := tensor.View[float32](out["logits"])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(v)
	}
	before := logits()
	const changed = 7 // of the first sample
	ids[changed]++
	after := logits()
	for token := range batch * seq {
		same := slices.Equal(before[token*models.Tokens:(token+1)*models.Tokens], after[token*models.Tokens:(token+1)*models.Tokens])
		if want := token < changed || token >= seq; same != want {
			t.Errorf("token %d: the same logits is %v, want %v", token, same, want)
		}
	}
}
