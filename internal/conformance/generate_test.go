package conformance

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// A decoder of bytes with one block, wired as the model builder of ONNX Runtime GenAI does it.
const (
	vocabulary, width, heads, cacheHeads, headWidth = 256, 64, 4, 2, 16
	endToken                                        = 255
)

// The shipped snippet for ONNX Runtime GenAI generates, with a cache of keys and values, what the same file gives in this process from
// all tokens at once.
func TestGenerateSnippet(t *testing.T) {
	testenv.Accurate(t)
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if err := exec.Command(python, "-c", "import onnxruntime_genai").Run(); err != nil {
		absent(t, "python", "no onnxruntime-genai in build/venv: %v; run `make setup-python`", err)
	}
	dir := t.TempDir()
	model, library := filepath.Join(dir, "model.q.onnx"), filepath.Join(dir, "libcosetq.so")
	quantize(t, decoder(), model)
	content, err := os.ReadFile(testenv.Ops(t))
	if err != nil {
		t.Fatal(err)
	}
	files := generatorFiles(t)
	files["libcosetq.so"] = content
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const prompt = "Call me"
	want := greedy(t, model, library, prompt, 64)
	got := pipe(t, nil, python, filepath.Join("testdata", "tokens.py"), snippet(t, "Python, ONNX Runtime GenAI", "generate.py"), model, library, prompt)
	if !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v", got, want)
	}
}

// decoder has random weights, with which what comes next depends on more than the last token, and no text ends.
func decoder() *onnx.Model {
	rng := rand.New(rand.NewPCG(1, 5))
	weights := func(name string, dims ...int64) *onnx.Tensor {
		values := make([]float32, dims[0]*dims[1])
		for i := range values {
			values[i] = float32(rng.NormFloat64() / 4)
		}
		return onnx.NewTensor(name, dims, values)
	}
	cache := []any{"batch_size", cacheHeads, "past_sequence_length", "kv_cache_dim"}
	m := onnx.NewModel(10, 21, "test")
	m.SetOpset("com.microsoft", 1)
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("input_ids", onnx.Int64, "batch_size", "sequence_length"),
		onnx.NewValueInfo("attention_mask", onnx.Int64, "batch_size", "total_sequence_length"),
		onnx.NewValueInfo("past_key_values.0.key", onnx.Float, cache...), onnx.NewValueInfo("past_key_values.0.value", onnx.Float, cache...)}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch_size", "sequence_length", vocabulary),
		onnx.NewValueInfo("present.0.key", onnx.Float, cache...), onnx.NewValueInfo("present.0.value", onnx.Float, cache...)}
	g.ValueInfo = []*onnx.ValueInfo{onnx.NewValueInfo("attended", onnx.Float, "batch_size", "sequence_length", width)}
	g.Initializers = []*onnx.Tensor{weights("embedding", vocabulary, width), weights("qkv", width, (heads+2*cacheHeads)*headWidth), weights("o", width, width), weights("step", width, width),
		weights("head", width, vocabulary), onnx.NewTensor("one", []int64{1}, []int64{1}), onnx.NewTensor("second", nil, []int64{1})}
	attention := onnx.NewNode("GroupQueryAttention", []string{"projected", "", "", "past_key_values.0.key", "past_key_values.0.value", "seen", "total"},
		[]string{"attended", "present.0.key", "present.0.value"}, onnx.IntAttr("num_heads", heads), onnx.IntAttr("kv_num_heads", cacheHeads))
	attention.Domain = "com.microsoft"
	g.Nodes = []*onnx.Node{
		onnx.NewNode("ReduceSum", []string{"attention_mask", "one"}, []string{"tokens"}, onnx.IntAttr("keepdims", 0)),
		onnx.NewNode("Sub", []string{"tokens", "one"}, []string{"before"}),
		onnx.NewNode("Cast", []string{"before"}, []string{"seen"}, onnx.IntAttr("to", int64(onnx.Int32))),
		onnx.NewNode("Shape", []string{"attention_mask"}, []string{"shape"}),
		onnx.NewNode("Gather", []string{"shape", "second"}, []string{"length"}),
		onnx.NewNode("Cast", []string{"length"}, []string{"total"}, onnx.IntAttr("to", int64(onnx.Int32))),
		onnx.NewNode("Gather", []string{"embedding", "input_ids"}, []string{"x"}),
		onnx.NewNode("MatMul", []string{"x", "qkv"}, []string{"projected"}),
		attention,
		onnx.NewNode("MatMul", []string{"attended", "o"}, []string{"mixed"}),
		onnx.NewNode("MatMul", []string{"x", "step"}, []string{"stepped"}),
		onnx.NewNode("Add", []string{"mixed", "stepped"}, []string{"state"}),
		onnx.NewNode("MatMul", []string{"state", "head"}, []string{"logits"}),
	}
	return m
}

// generatorFiles are the files that the builder puts beside a model: its description, and a tokenizer to which every byte is a token.
func generatorFiles(t *testing.T) map[string][]byte {
	type object = map[string]any
	vocab := object{}
	next := rune(256)
	for b := range rune(vocabulary) { // byte-level tokenizers write bytes that are no visible characters as those from 256 on
		c := b
		if b < '!' || b > '~' && b < '¡' || b == '\u00ad' {
			c, next = next, next+1
		}
		vocab[string(c)] = b
	}
	level := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	files := map[string][]byte{}
	for name, content := range map[string]object{
		"tokenizer.json":        {"version": "1.0", "added_tokens": []any{}, "pre_tokenizer": level, "decoder": level, "model": object{"type": "BPE", "vocab": vocab, "merges": []any{}}},
		"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
		"genai_config.json": {
			"model": object{
				"type": "llama", "vocab_size": vocabulary, "context_length": 128, "bos_token_id": endToken, "eos_token_id": endToken, "pad_token_id": endToken,
				"decoder": object{
					"session_options": object{"provider_options": []any{}}, "filename": "model.onnx", "head_size": headWidth, "hidden_size": width,
					"num_attention_heads": heads, "num_hidden_layers": 1, "num_key_value_heads": cacheHeads,
					"inputs":  object{"input_ids": "input_ids", "attention_mask": "attention_mask", "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
					"outputs": object{"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
				},
			},
			"search": object{"max_length": 128, "past_present_share_buffer": true},
		},
	} {
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
	}
	return files
}

// greedy appends the likeliest token to the prompt count times. The native library runs every product with a weight.
func greedy(t *testing.T, model, library, prompt string, count int) []float32 {
	t.Helper()
	s, err := openRuntime(t).NewSession(model, ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids []int64
	for _, b := range []byte(prompt) {
		ids = append(ids, int64(b))
	}
	none := tensor.Of([]float32{}, 1, cacheHeads, 0, headWidth)
	for range count {
		n := int64(len(ids))
		out, err := s.Run(t.Context(), map[string]*tensor.Tensor{"input_ids": tensor.Of(ids, 1, n), "attention_mask": tensor.Of(slices.Repeat([]int64{1}, len(ids)), 1, n),
			"past_key_values.0.key": none, "past_key_values.0.value": none})
		if err != nil {
			t.Fatal(err)
		}
		all, err := tensor.View[float32](out["logits"])
		if err != nil {
			t.Fatal(err)
		}
		logits := all[(n-1)*vocabulary:]
		ids = append(ids, int64(slices.Index(logits, slices.Max(logits))))
	}
	tokens := make([]float32, len(ids))
	for i, id := range ids {
		tokens[i] = float32(id)
	}
	return tokens
}
