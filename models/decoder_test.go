package models_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

var smallDecoder = models.Decoder{Layers: 2, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: 16, Seed: 1}

// TestDecoder writes on token by token as it reads all of them at once, and the same in pieces as with the operator for attention.
func TestDecoder(t *testing.T) {
	writesOn(t, smallDecoder)
	apart, pieces := smallDecoder, smallDecoder
	apart.Apart, pieces.Pieces = true, true
	want, got := writesOn(t, apart), writesOn(t, pieces)
	for i := range want {
		if d := math.Abs(float64(want[i] - got[i])); d > 1e-4 {
			t.Errorf("logit %d: %g, in pieces %g", i, want[i], got[i])
		}
	}
}

// writesOn gives the logits after some tokens.
func writesOn(t *testing.T, decoder models.Decoder) []float32 {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	data, err := decoder.ONNX().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := decoder.ONNX().Marshal(); err != nil || !bytes.Equal(data, again) {
		t.Errorf("it comes out differently the second time, %v", err)
	}
	s, err := rt.NewSessionFromBytes(data, "", ort.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cache := map[string]*tensor.Tensor{}
	run := func(ids []int64) []float32 {
		seen := int64(len(ids))
		inputs := map[string]*tensor.Tensor{"input_ids": tensor.Of(ids, 1, int64(len(ids)))}
		for i := range decoder.Layers {
			for _, part := range []string{"key", "value"} {
				name := fmt.Sprintf("past_key_values.%d.%s", i, part)
				if inputs[name] = cache[name]; inputs[name] == nil {
					inputs[name] = tensor.Of([]float32{}, 1, 2, 0, 16)
				}
			}
		}
		seen += inputs["past_key_values.0.key"].Shape[2]
		if !decoder.Pieces {
			inputs["attention_mask"] = tensor.Of(slices.Repeat([]int64{1}, int(seen)), 1, seen)
		}
		out, err := s.Run(context.Background(), inputs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range decoder.Layers {
			for _, part := range []string{"key", "value"} {
				cache[fmt.Sprintf("past_key_values.%d.%s", i, part)] = out[fmt.Sprintf("present.%d.%s", i, part)]
			}
		}
		v, err := tensor.View[float32](out["logits"])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(v[len(v)-50:])
	}
	ids := []int64{3, 14, 15, 9, 26, 5, 35}
	want := run(ids)
	clear(cache)
	var got []float32
	for i := range ids {
		got = run(ids[i : i+1])
	}
	var largest float64
	for i := range want {
		largest = max(largest, math.Abs(float64(want[i])))
		if d := math.Abs(float64(want[i] - got[i])); d > 1e-4 {
			t.Errorf("logit %d: %g at once, %g token by token", i, want[i], got[i])
		}
	}
	if largest < 0.5 || largest > 50 {
		t.Errorf("the largest logit is %g: activations grow or vanish", largest)
	}
	return want
}

// TestDecoderCommand runs the command that documents show, with a smaller model.
func TestDecoderCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decoder.onnx")
	command := exec.Command("go", "run", "./models/decoder", "-half", "-layers", "1", "-width", "64", "-heads", "4", "-cache-heads", "2", "-network", "96", "-vocabulary", "50", "-tokens", "16", path)
	command.Dir = testenv.Root(t)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m, err := onnx.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if w := m.Graph.Initializer("layer0.qkv.weight"); w == nil || w.DataType != onnx.Float16 || !slices.Equal(w.Dims, []int64{64, 128}) {
		t.Errorf("the weight of queries, keys and values is %v", w)
	}
	command = exec.Command("go", "run", "./models/decoder")
	command.Dir = testenv.Root(t)
	if out, err := command.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("usage: decoder")) {
		t.Errorf("without a name for the file: %v, %s", err, out)
	}
}
