package grad

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// exposed quantizes a model to 2 bits and makes the weights inputs.
func exposed(t *testing.T, path string) (m *onnx.Model, weights []string, values map[string]*tensor.Tensor) {
	t.Helper()
	m, err := onnx.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	codec, err := lattice.Preset(2)
	if err != nil {
		t.Fatal(err)
	}
	options := quant.Options{Codec: codec}
	if library, err := cudaops.FindLibrary(""); err == nil { // the same weights in a fourth of the time
		if options.Encoder, err = ort.OpenEncoder(library, codec); err != nil {
			t.Fatal(err)
		}
	}
	coded := map[*rewrite.Weight]*quant.Matrix{}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		if s.Status != rewrite.Candidate {
			continue
		}
		if coded[s.Weight] == nil {
			res, err := quant.Quantize(context.Background(), s.Weight, options)
			if err != nil {
				t.Fatal(err)
			}
			coded[s.Weight] = res.Matrix
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: coded[s.Weight]})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	list, err := rewrite.Expose(m)
	if err != nil {
		t.Fatal(err)
	}
	m.ReferToFile(4096)
	values = map[string]*tensor.Tensor{}
	for _, e := range list {
		w := make([]float32, e.Matrix.N*e.Matrix.K)
		if err := e.Matrix.DecodeRows(w, 0, e.Matrix.N); err != nil {
			t.Fatal(err)
		}
		values[e.Input] = tensor.Of(w, int64(e.Matrix.N), int64(e.Matrix.K))
		weights = append(weights, e.Input)
	}
	return m, weights, values
}

// TestTransformer does what TestModels does with a model that the project makes itself.
func TestTransformer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "transformer.onnx")
	if _, err := (models.Transformer{Layers: 2, Width: 32, Heads: 4, Context: 16, Seed: 1}).ONNX().Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	m, weights, fed := exposed(t, path)
	if len(weights) != 9 {
		t.Errorf("%d weights, want 4 of each layer and the head", len(weights))
	}
	ids := make([]int64, 2*12)
	for i := range ids {
		ids[i] = int64(i * 37 % models.Tokens)
	}
	fed["input_ids"] = tensor.Of(ids, 2, 12)
	checkModel(t, m, loader(t, dir), KL, weights, fed)
}

// TestModels compares the gradient of the distillation loss of real models with central differences, for every quantized
// weight in a random direction.
func TestModels(t *testing.T) {
	dir := t.TempDir()
	windows := filepath.Join(dir, "windows.yaml")
	for _, c := range []struct {
		name, path, recipe string
		samples            int
		windows            string // recipe to write instead
	}{
		{name: "vit_tiny", path: testenv.Data(t, "models/vit_tiny_patch16_224.onnx"), recipe: testenv.Data(t, "imagenet_vit.yaml"), samples: 1},
		{name: "novel_llama_24m", path: testenv.Llama(t), recipe: windows, samples: 2,
			windows: fmt.Sprintf("kind: bytes\nfile: %s\nseq: 64\n", testenv.Data(t, "text/novels_calib.txt"))},
		{name: "oval21_cifar", path: testenv.Data(t, "models/vnn21_oval21_cifar_base_kw.onnx"), recipe: testenv.Data(t, "cifar_oval.yaml"), samples: 1},
		{name: "marabou_cifar", path: testenv.Data(t, "models/vnn21_marabou_cifar10_small.onnx"), recipe: testenv.Data(t, "cifar_plain_nhwc.yaml"), samples: 1},
		{name: "vit_pgd", path: testenv.Data(t, "models/vnn23_vit_pgd_2_3_16.onnx"), recipe: testenv.Data(t, "cifar_vit.yaml"), samples: 1},
		{name: "mnist_256x2", path: testenv.Data(t, "models/vnn21_mnist_net_256x2.onnx"), recipe: testenv.Data(t, "mnist_784x1.yaml"), samples: 1},
		{name: "acasxu", path: testenv.Data(t, "models/vnn21_acasxu_1_7.onnx"), recipe: "random:1", samples: 1},
		{name: "mscn", path: testenv.Data(t, "models/vnn23_nn4sys_mscn_128d.onnx"), recipe: "random:1", samples: 1},
		{name: "pensieve", path: testenv.Data(t, "models/vnn23_nn4sys_pensieve_mid_simple.onnx"), recipe: "random:1", samples: 1},
		{name: "ml4acopf", path: testenv.Data(t, "models/vnn23_ml4acopf_118.onnx"), recipe: "random:1", samples: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.windows != "" {
				writeFile(t, c.recipe, c.windows)
			}
			m, weights, fed := exposed(t, c.path)
			var specs []tensor.Spec
			all, _, err := ort.Signature(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				if fed[s.Name] == nil {
					specs = append(specs, s)
				}
			}
			reader, err := calib.Open(c.recipe, specs, calib.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			var samples []*calib.Sample
			for i := range c.samples {
				s, err := reader.Sample(i)
				if err != nil {
					t.Fatal(err)
				}
				samples = append(samples, s)
			}
			inputs, err := calib.Join(samples)
			if err != nil {
				t.Fatal(err)
			}
			for name, x := range inputs {
				fed[name] = x
			}
			kind := KL
			if reader.Random() { // outputs that are no logits
				kind = MSE
			}
			checkModel(t, m, loader(t, filepath.Dir(c.path)), kind, weights, fed)
		})
	}
}

func checkModel(t *testing.T, m *onnx.Model, load Loader, kind Loss, weights []string, fed map[string]*tensor.Tensor) {
	if err := Check(m, weights); err != nil {
		t.Fatal(err)
	}
	g, err := Trace(context.Background(), m, load, fed)
	if err != nil {
		t.Fatal(err)
	}
	out := g.Value(g.Outputs()[0])
	loss, target, err := g.AddLoss(kind, out.Name)
	if err != nil {
		t.Fatal(err)
	}
	grads, err := g.Backward(loss, weights, nil)
	if err != nil {
		t.Fatal(err)
	}
	open := func(outputs ...*Value) func() map[string]*tensor.Tensor {
		model := g.Model(outputs...)
		s, err := load(model, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return func() map[string]*tensor.Tensor {
			in := map[string]*tensor.Tensor{}
			for _, v := range model.Graph.Inputs {
				in[v.Name] = fed[v.Name]
			}
			out, err := s.Run(context.Background(), in)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	// The target is the output with noise about as large.
	r := rand.New(rand.NewPCG(3, 1))
	y, err := tensor.View[float32](open(out)()[out.Name])
	if err != nil {
		t.Fatal(err)
	}
	aim := make([]float32, len(y))
	for i := range aim {
		aim[i] = y[i] * float32(1+r.NormFloat64())
	}
	fed[target.Name] = tensor.Of(aim, out.Shape...)
	gradients := open(grads...)()
	forward := open(loss)
	value := func() float64 {
		l, err := tensor.View[float32](forward()[loss.Name])
		if err != nil {
			t.Fatal(err)
		}
		return float64(l[0])
	}
	worst := 0.0
	stride := 1
	if !testenv.Slow() {
		stride = max(len(weights)/6, 1)
	}
	for i := 0; i < len(weights); i += stride {
		w, err := tensor.View[float32](fed[weights[i]])
		if err != nil {
			t.Fatal(err)
		}
		d, err := tensor.View[float32](gradients[grads[i].Name])
		if err != nil {
			t.Fatal(err)
		}
		// The direction leans towards the gradient, as one at random is almost orthogonal to it and shows rounding alone.
		var norm, size float64
		for j := range w {
			norm += float64(d[j]) * float64(d[j])
			size += float64(w[j]) * float64(w[j])
		}
		norm, size = math.Sqrt(norm), math.Sqrt(size)
		if norm*size < 1e-3*value() {
			continue // it hardly matters: a move of a hundredth changes the loss by less than a hundred of its roundings
		}
		direction := make([]float64, len(w))
		want := 0.0
		for j := range w {
			direction[j] = r.NormFloat64()/math.Sqrt(float64(len(w))) + float64(d[j])/norm
			want += direction[j] * float64(d[j])
		}
		original := append([]float32(nil), w...)
		at := func(by float64) float64 {
			for j := range w {
				w[j] = float32(float64(original[j]) + by*direction[j])
			}
			return value()
		}
		// A move that changes the loss by a thousandth of itself or so is far above its rounding and mostly far below its
		// curvature; where a kink lies in between, a shorter one will do.
		var got float64
		relative := math.Inf(1)
		for h := min(2e-3*value()/norm, 1e-2*size); relative > 1e-3 && h > 1e-7*size; h /= 4 {
			difference := (at(h) - at(-h)) / (2 * h)
			copy(w, original)
			if r := math.Abs(difference-want) / math.Abs(want); r < relative {
				got, relative = difference, r
			} else if relative <= 1e-2 {
				break // shorter moves drown in rounding
			}
		}
		worst = max(worst, relative)
		if relative > 1e-2 {
			t.Errorf("%s: derivative %.6g, differences say %.6g: %.4f off", weights[i], want, got, relative)
		}
	}
	t.Logf("largest relative error %.2g", worst)
}

// A decoder with GroupQueryAttention has the gradients of the same decoder whose attention is in pieces: of queries, keys and values of both layers,
// and of the cache.
func TestGroupQueryInPieces(t *testing.T) {
	const batch, tokens, past, width, size = 1, 5, 3, 64, 16
	var wrt []string
	for layer := range 2 {
		for _, part := range []string{"q", "k", "v"} {
			wrt = append(wrt, fmt.Sprintf("layer%d.%s.out", layer, part))
		}
	}
	for _, part := range []string{"key", "value"} {
		wrt = append(wrt, "past_key_values.0."+part, "past_key_values.1."+part)
	}
	decoder := models.Decoder{Layers: 2, Width: width, Heads: width / size, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: 16, Apart: true, Seed: 4}
	r := rand.New(rand.NewPCG(5, 1))
	fed := map[string]*tensor.Tensor{
		"input_ids":      tensor.Of([]int64{3, 14, 15, 9, 26}, batch, tokens),
		"attention_mask": tensor.Of([]int64{1, 1, 1, 1, 1, 1, 1, 1}, batch, past+tokens),
	}
	for _, name := range wrt[6:] {
		fed[name] = tensor.Of(floats(r, &ruleCase{}, batch*2*past*size), batch, 2, past, size)
	}
	fed["target"] = tensor.Of(floats(r, &ruleCase{}, batch*tokens*50), batch, tokens, 50)
	var results []map[string]*tensor.Tensor
	for _, pieces := range []bool{true, false} {
		decoder.Pieces = pieces
		load := loader(t, "")
		g, err := Trace(context.Background(), decoder.ONNX(), load, fed)
		if err != nil {
			t.Fatal(err)
		}
		loss, _, err := g.AddLoss(KL, "logits")
		if err != nil {
			t.Fatal(err)
		}
		gradients, err := g.Backward(loss, wrt, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := g.Model(gradients...)
		s, err := load(m, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		used := map[string]*tensor.Tensor{}
		for _, in := range m.Graph.Inputs {
			used[in.Name] = fed[in.Name]
		}
		out, err := s.Run(context.Background(), used)
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]*tensor.Tensor{}
		for i, name := range wrt {
			named[name] = out[gradients[i].Name]
		}
		results = append(results, named)
	}
	sameOutputs(t, results[0], results[1])
}
