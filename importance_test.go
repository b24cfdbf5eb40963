package cosetq

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// The sizes of the model of TestImportance: samples of tokens rows.
const (
	importanceSamples, importanceTokens = 6, 4
	importanceWidth, importanceClasses  = 32, 48
)

// oneToken multiplies the rows of a sample by a weight and adds up the first row alone: the others cost the output nothing.
func oneToken() *onnx.Model {
	rng := rand.New(rand.NewPCG(1, 9))
	w := make([]float32, importanceWidth*importanceClasses)
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	mask := make([]float32, importanceTokens)
	mask[0] = 1
	m := onnx.NewModel(10, 17, "one token")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", importanceTokens, importanceWidth)}
	g.Initializers = []*onnx.Tensor{
		onnx.NewTensor("w", []int64{importanceWidth, importanceClasses}, w),
		onnx.NewTensor("mask", []int64{1, importanceTokens, 1}, mask), onnx.NewTensor("axis", []int64{1}, []int64{1}),
	}
	g.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w"}, []string{"y"}), onnx.NewNode("Mul", []string{"y", "mask"}, []string{"masked"}),
		onnx.NewNode("ReduceSum", []string{"masked", "axis"}, []string{"logits"}, onnx.IntAttr("keepdims", 0)),
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", importanceClasses)}
	return m
}

// tokenRows writes samples for oneToken, rows of different lengths, and returns them and their recipe.
func tokenRows(t *testing.T, dir string, samples int) (x []float32, data string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(2, 9))
	x = make([]float32, samples*importanceTokens*importanceWidth)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * float64(1+i/importanceWidth%3))
	}
	all := tensor.Of(x, int64(samples), importanceTokens, importanceWidth)
	if err := tensor.SaveNPZ(filepath.Join(dir, "x.npz"), []tensor.Spec{{Name: "x"}}, map[string]*tensor.Tensor{"x": all}); err != nil {
		t.Fatal(err)
	}
	data = filepath.Join(dir, "x.yaml")
	if err := os.WriteFile(data, []byte("kind: npz\nfile: x.npz\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return x, data
}

// Where every row is classified there are draws to spare: every other sample has gradients then, and weighs as much as one without.
func TestImportanceOfSomeSamples(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	m := oneToken()
	m.Graph.Nodes = m.Graph.Nodes[:1]
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", importanceTokens, importanceClasses)}
	model := filepath.Join(dir, "m.onnx")
	if _, err := m.Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	const withGradients = drawsPerRow * importanceClasses / importanceTokens
	const samples = 2 * withGradients
	_, data := tokenRows(t, dir, samples)
	var first []float64
	for threads := 1; threads <= 3; threads++ {
		r, err := Calibrate(t.Context(), model, data, CalibrateOptions{Threads: threads, Overwrite: true})
		if err != nil {
			t.Fatal(err)
		}
		file, err := OpenStatistics(r.Output)
		if err != nil {
			t.Fatal(err)
		}
		activation, gradient := file.Observations[0], file.Gradient("gradient of w")
		if activation.Rows != samples*importanceTokens || gradient.Rows != withGradients*importanceTokens || file.Draws != gradient.Rows {
			t.Fatalf("%d rows, %d gradients, %d draws", activation.Rows, gradient.Rows, file.Draws)
		}
		moments, err := activation.Matrix()
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		var trace float64
		for i := range importanceWidth {
			trace += moments[i*importanceWidth+i]
		}
		if want := 1.0 / importanceTokens; math.Abs(trace-want) > 1e-6 {
			t.Errorf("the moments have the trace %v, want %v", trace, want)
		}
		if first == nil {
			first = moments
		}
		if !slices.Equal(first, moments) {
			t.Errorf("other moments on %d threads", threads)
		}
	}
}

// What a FusedGemm gives is not its product: the gradient of one says nothing of the other, and is not taken for it.
func TestImportanceBehindAFunction(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	m := oneToken()
	fused := onnx.NewNode("FusedGemm", []string{"rows", "w"}, []string{"logits"}, onnx.StringAttr("activation", "Relu"))
	fused.Domain = "com.microsoft"
	m.SetOpset("com.microsoft", 1)
	m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor("flat", []int64{2}, []int64{-1, importanceWidth}))
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("Reshape", []string{"x", "flat"}, []string{"rows"}), fused}
	model := filepath.Join(dir, "m.onnx")
	if _, err := m.Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, data := tokenRows(t, dir, importanceSamples)
	r, err := Calibrate(t.Context(), model, data, CalibrateOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Notes, func(note string) bool {
		return strings.Contains(note, "not known: no gradient is known for com.microsoft::FusedGemm")
	}) {
		t.Errorf("notes %q", r.Notes)
	}
}

// A language model as ONNX Runtime GenAI's builder writes it has gradients in front of its attention too. Its empty cache, which they do not depend on,
// is no input of them.
func TestImportanceOfDecoder(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	model := filepath.Join(t.TempDir(), "m.onnx")
	decoder := models.Decoder{Layers: 2, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: 16, Seed: 1}
	if _, err := decoder.ONNX().Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := Calibrate(t.Context(), model, "random:3,sequence_length=8,past_sequence_length=0,total_sequence_length=8", CalibrateOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range r.Notes {
		if strings.Contains(note, "gradient") {
			t.Error(note)
		}
	}
	file, err := OpenStatistics(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, weight := range []string{"layer0.qkv.weight", "layer0.o.weight", "layer1.qkv.weight", "layer1.down.weight"} {
		if g := file.Gradient("gradient of " + weight); g == nil || g.Rows != 3*8 {
			t.Errorf("the gradients of %s are %v, want those of 24 rows", weight, g)
		}
	}
}

// Pieces of one initializer, as PyTorch leaves those of an attention over two sequences, have gradients of their own, like weights
// that are stored apart.
func TestImportanceOfPieces(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	const n = 96
	_, data := tokenRows(t, t.TempDir(), importanceSamples)
	for _, size := range []int64{n / 3, n / 2} {
		rng := rand.New(rand.NewPCG(3, 9))
		w := make([]float32, n*importanceWidth)
		for i := range w {
			w[i] = float32(rng.NormFloat64())
		}
		cut := size * importanceWidth
		m := oneToken()
		g := m.Graph
		g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", n)}
		g.Nodes = append([]*onnx.Node{
			onnx.NewNode("Reshape", []string{"x", "row"}, []string{"rows"}),
			onnx.NewNode("Gemm", []string{"rows", "w1"}, []string{"y1"}, onnx.IntAttr("transB", 1)),
			onnx.NewNode("Gemm", []string{"rows", "w2"}, []string{"y2"}, onnx.IntAttr("transB", 1)),
			onnx.NewNode("Concat", []string{"y1", "y2"}, []string{"flat"}, onnx.IntAttr("axis", -1)),
			onnx.NewNode("Reshape", []string{"flat", "tokens"}, []string{"y"}),
		}, g.Nodes[1:]...)
		g.Initializers = append(g.Initializers[1:], onnx.NewTensor("row", []int64{2}, []int64{-1, importanceWidth}),
			onnx.NewTensor("tokens", []int64{3}, []int64{-1, importanceTokens, n}))
		pieces := onnx.Clone(m)
		g.Initializers = append(g.Initializers, onnx.NewTensor("w1", []int64{size, importanceWidth}, w[:cut]), onnx.NewTensor("w2", []int64{n - size, importanceWidth}, w[cut:]))
		pieces.Graph.Initializers = append(pieces.Graph.Initializers, onnx.NewTensor("w", []int64{n, importanceWidth}, w), onnx.NewTensor("sizes", []int64{2}, []int64{size, n - size}))
		pieces.Graph.Nodes = append([]*onnx.Node{onnx.NewNode("Split", []string{"w", "sizes"}, []string{"w1", "w2"})}, pieces.Graph.Nodes...)
		want, got := gradientsOf(t, data, m), gradientsOf(t, data, pieces)
		if len(want) != 2 || len(got) != 2 {
			t.Fatalf("%d and %d weights", len(want), len(got))
		}
		for i := range want {
			if !slices.Equal(got[i].Moments, want[i].Moments) {
				t.Errorf("split at %d: piece %d has other gradients than it has apart", size, i)
			}
		}
	}
}

// A model that is certain leaves gradients of next to nothing, by whose squares nothing may be divided.
func TestImportanceOfCertainty(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	_, data := tokenRows(t, t.TempDir(), importanceSamples)
	for _, certain := range []float32{50, 95, 100, 120} { // exp(−95) is a float32 without all of its digits, exp(−120) is 0
		m := oneToken()
		g := m.Graph
		w, err := g.Initializers[0].Float32s()
		if err != nil {
			t.Fatal(err)
		}
		for i := range w {
			w[i] /= 1000
		}
		bias := make([]float32, importanceClasses)
		bias[0] = certain
		g.Initializers[0] = onnx.NewTensor("w", g.Initializers[0].Dims, w)
		g.Initializers = append(g.Initializers, onnx.NewTensor("bias", []int64{importanceClasses}, bias))
		g.Nodes[2].Outputs[0] = "sums"
		g.Nodes = append(g.Nodes, onnx.NewNode("Add", []string{"sums", "bias"}, []string{"logits"}))
		gradients := gradientsOf(t, data, m)
		for i, v := range gradients[0].Moments {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("certain by %v: moment %d is %v", certain, i, v)
			}
		}
	}
}

// gradientsOf calibrates a model and returns what quantizing takes for the gradients of its weights.
func gradientsOf(t *testing.T, data string, m *onnx.Model) (list []*quant.Hessian) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := Calibrate(t.Context(), path, data, CalibrateOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Notes) > 0 {
		t.Fatal(r.Notes)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := hessians{tags: rewrite.GradientTags(sites)}
	if err := h.open(r.Output, m); err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for i := range sites {
		g, err := h.gradients(sites[i].Weight)
		if err != nil || g == nil {
			t.Fatalf("gradients of %s: %v, %v", sites[i].Name, g, err)
		}
		list = append(list, g)
	}
	return list
}

// A row weighs by its squared gradient, whatever class was drawn: a row without one has its even share only, and all rows
// of a sample together weigh as much as those of any other. The gradients themselves, which add up to nothing over the
// classes, weigh by what is multiplied with them.
func TestImportance(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	model := filepath.Join(dir, "m.onnx")
	if _, err := oneToken().Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	x, data := tokenRows(t, dir, importanceSamples)
	r, err := Calibrate(context.Background(), model, data, CalibrateOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Notes) > 0 {
		t.Fatalf("rows were not weighed: %v", r.Notes)
	}
	file, err := OpenStatistics(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got, err := file.Observations[0].Matrix()
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float64, importanceWidth*importanceWidth)
	const rows = importanceSamples * importanceTokens
	for row := range rows {
		v := x[row*importanceWidth:][:importanceWidth]
		var squares float64
		for _, a := range v {
			squares += float64(a) * float64(a)
		}
		weight := cudaops.EvenShare / importanceTokens / squares
		if row%importanceTokens == 0 {
			weight += (1 - cudaops.EvenShare) / squares
		}
		for i, a := range v {
			for j, b := range v {
				want[i*importanceWidth+j] += weight * float64(a) * float64(b) / rows
			}
		}
	}
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= 1e-6) {
			t.Fatalf("moment %d, %d is %v, want %v", i/importanceWidth, i%importanceWidth, got[i], want[i])
		}
	}
	gradient := file.Gradient("gradient of w")
	if gradient == nil || gradient.Columns != importanceClasses || gradient.Rows != rows || file.Draws != importanceSamples {
		t.Fatalf("gradients, of %d draws: %+v", file.Draws, gradient)
	}
	if got, err = gradient.Matrix(); err != nil {
		t.Fatal(err)
	}
	var trace float64
	for i := range importanceClasses {
		trace += got[i*importanceClasses+i]
		var sum float64
		for _, v := range got[i*importanceClasses : (i+1)*importanceClasses] {
			sum += v
		}
		if math.Abs(sum) > 1e-6 {
			t.Fatalf("row %d of the gradients' moments adds up to %v", i, sum)
		}
	}
	if want := (1 - cudaops.EvenShare + cudaops.EvenShare/importanceTokens) / importanceTokens; math.Abs(trace-want) > 1e-6 {
		t.Errorf("the gradients' moments have the trace %v, want %v", trace, want)
	}
}

// Classes are drawn from what the loss takes for the model's distribution: the softmax of an output whose own Softmax is over another
// axis, not of what that was taken of.
func TestClassesOfSoftmaxOverAnotherAxis(t *testing.T) {
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	load := func(m *onnx.Model, _ bool) (grad.Session, error) { return loadGraph(rt, m, dir, ort.SessionOptions{}) }
	for axis, want := range map[int64][]float32{1: {0, 1, 1, 0}, 2: {1, 0, 1, 0}} {
		m := onnx.NewModel(10, 17, "axis")
		m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 1, 2, 2)}
		m.Graph.Nodes = []*onnx.Node{onnx.NewNode("Softmax", []string{"x"}, []string{"y"}, onnx.IntAttr("axis", axis))}
		m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 1, 2, 2)}
		fed := map[string]*tensor.Tensor{"x": tensor.Of([]float32{5, 4, 5, -5}, 1, 2, 2)} // over axis 1: ½, 1 and ½, 0
		g, err := grad.Trace(t.Context(), m, load, fed)
		if err != nil {
			t.Fatal(err)
		}
		y := g.Value("y")
		loss, target, err := g.AddLoss(grad.CrossEntropy, "y")
		if err != nil {
			t.Fatal(err)
		}
		i := &importance{noise: g.AddInput("noise", y.Type, y.Shape...)}
		drawn := g.Model(loss)
		i.draw(drawn, g.Logits(y), target)
		drawn.Graph.Outputs = append(drawn.Graph.Outputs, onnx.NewValueInfo(target.Name, onnx.Float, 1, 2, 2))
		if err := drawn.Scopes()[0].Sort(); err != nil {
			t.Fatal(err)
		}
		s, err := load(drawn, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		fed[i.noise.Name] = tensor.Of(make([]float32, 4), 1, 2, 2)
		out, err := s.Run(t.Context(), fed)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tensor.View[float32](out[target.Name]); err != nil || !slices.Equal(got, want) {
			t.Errorf("Softmax over axis %d: without noise %v is drawn, %v; want %v", axis, got, err, want)
		}
	}
}

// Noise is that of one stream up to a block, and each block has its own: the same on any number of threads, and nothing comes twice.
func TestNoise(t *testing.T) {
	inputs := map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2}, 2)}
	short, long := gumbel(inputs, 100), gumbel(inputs, noiseBlock+100)
	if !slices.Equal(short, long[:100]) {
		t.Error("more noise begins otherwise")
	}
	if slices.Equal(short, long[noiseBlock:]) {
		t.Error("the second block is the first again")
	}
	if !slices.Equal(long, gumbel(inputs, noiseBlock+100)) {
		t.Error("twice the same sample, and other noise")
	}
	if slices.Equal(short, gumbel(map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 3}, 2)}, 100)) {
		t.Error("another sample, and the same noise")
	}
	var sum, squares float64
	for _, v := range long {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	n := float64(len(long))
	if mean, variance := sum/n, squares/n-sum*sum/n/n; math.Abs(mean-0.5772) > 0.005 || math.Abs(variance-math.Pi*math.Pi/6) > 0.01 {
		t.Errorf("mean %v and variance %v are not those of a Gumbel distribution", mean, variance)
	}
}
