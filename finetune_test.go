package cosetq_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
)

// coarseDigits writes the digits classifier and a quantized copy of it, 2 bits per weight rounded to nearest.
func coarseDigits(t *testing.T) (files models.QuickstartFiles, quantized string) {
	t.Helper()
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	quantized = filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(context.Background(), files.Model, cosetq.QuantizeOptions{Output: quantized, Bits: 2}); err != nil {
		t.Fatal(err)
	}
	return files, quantized
}

func trainingOptions(files models.QuickstartFiles, output string) cosetq.FinetuneOptions {
	return cosetq.FinetuneOptions{
		Output: filepath.Join(filepath.Dir(files.Model), output), Data: files.Calib, Threads: 1,
		Train: finetune.Options{Steps: 60, Batch: 32, HeldOut: 70, Every: 20, Rate: 0.05, Seed: 5},
	}
}

func TestFinetune(t *testing.T) {
	files, quantized := coarseDigits(t)
	o := trainingOptions(files, "a.onnx")
	var planned finetune.Plan
	o.Train.Plan = func(p finetune.Plan) { planned = p }
	a, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if a.Best > 0.8*a.Start {
		t.Errorf("the loss went from %v to %v, want 0.8 of it at most", a.Start, a.Best)
	}
	if a.HeldOut != 64 {
		t.Errorf("%d samples held out, want a whole batch", a.HeldOut)
	}
	if planned.Weights != 3 || planned.Parameters != 3 || planned.Memory.Total() == 0 || planned.HeldOut != 64 {
		t.Errorf("planned %+v", planned)
	}
	// What was written is what was judged: a quantized model of the same size that runs, on the portable path too.
	paths := []string{files.Model, quantized, a.Files[0].Path}
	report, err := cosetq.Evaluate(context.Background(), eval.TaskAgreement, files.Data, paths, cosetq.EvaluateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, after := report.Models[1].Metrics.(eval.Agreement), report.Models[2].Metrics.(eval.Agreement)
	if after.KL > 0.9*before.KL {
		t.Errorf("on other data the divergence went from %v to %v", before.KL, after.KL)
	}
	// The same seed gives the same bytes.
	o = trainingOptions(files, "b.onnx")
	b, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	sameData(t, a, b)
}

func sameData(t *testing.T, a, b *cosetq.FinetuneReport) {
	t.Helper()
	if len(a.Files) != 2 || len(b.Files) != 2 {
		t.Fatalf("files %v and %v, want a model and its data", a.Files, b.Files)
	}
	if a.Files[1].SHA256 != b.Files[1].SHA256 {
		t.Error("the codes differ")
	}
}

// TestFinetuneTransformer trains a small transformer from LDLQ: it wins back a part of the loss, and twice the same, with one thread
// as with two.
func TestFinetuneTransformer(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	path, data := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "data.yaml")
	if _, err := (models.Transformer{Layers: 2, Width: 64, Heads: 4, Context: 32, Seed: 2}).ONNX().Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"text": text, "data.yaml": []byte("kind: bytes\nfile: text\nseq: 32\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	quantized := filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(context.Background(), path, cosetq.QuantizeOptions{Output: quantized, Bits: 2, Data: data}); err != nil {
		t.Fatal(err)
	}
	train := func(output string, threads int) *cosetq.FinetuneReport {
		r, err := cosetq.Finetune(context.Background(), path, quantized, cosetq.FinetuneOptions{
			Output: filepath.Join(dir, output), Data: data, Threads: threads, Train: finetune.Options{Steps: 40, Batch: 16},
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a := train("a.onnx", 1)
	if a.Weights != 9 || a.Best > 0.95*a.Start || math.Abs(a.Rate-finetune.DefaultRate*math.Sqrt(0.5)) > 1e-9 { // 16 × 32 tokens a step
		t.Errorf("%d weights, rate %v, loss %v -> %v, want 0.95 of it at most", a.Weights, a.Rate, a.Start, a.Best)
	}
	sameData(t, a, train("b.onnx", 2))
}

// A language model as ONNX Runtime GenAI's builder writes it is trained through its attention.
func TestFinetuneDecoder(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	path, quantized, data := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "q.onnx"), filepath.Join(dir, "data.yaml")
	decoder := models.Decoder{Layers: 1, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 256, Tokens: 32, Seed: 1}
	if _, err := decoder.ONNX().Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := filepath.Abs("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, fmt.Appendf(nil, "kind: bytes\nfile: %s\nseq: 32\n", text), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := cosetq.Quantize(context.Background(), path, cosetq.QuantizeOptions{Output: quantized, Bits: 2}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Finetune(context.Background(), path, quantized, cosetq.FinetuneOptions{
		Output: filepath.Join(dir, "ft.onnx"), Data: data, Threads: 1, Train: finetune.Options{Steps: 10, Batch: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Weights != 6 || r.BestStep == 0 || r.Best >= r.Start {
		t.Errorf("%d weights, loss %v -> %v at step %d", r.Weights, r.Start, r.Best, r.BestStep)
	}
}

// TestFinetuneLlama takes a few steps on the 24M Llama, twice, with another number of threads: the same codes.
func TestFinetuneLlama(t *testing.T) {
	if !testenv.Slow() {
		t.Skip("trains a Llama twice: set COSETQ_REQUIRE=slow")
	}
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	path, data := testenv.Llama(t), testenv.Data(t, "novels_calib.yaml")
	dir := t.TempDir()
	quantized := filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(context.Background(), path, cosetq.QuantizeOptions{Output: quantized, Bits: 2}); err != nil {
		t.Fatal(err)
	}
	var reports []*cosetq.FinetuneReport
	for threads := range 2 {
		r, err := cosetq.Finetune(context.Background(), path, quantized, cosetq.FinetuneOptions{
			Output: filepath.Join(dir, fmt.Sprintf("%d.onnx", threads)), Data: data, Threads: threads + 1,
			Train: finetune.Options{Steps: 4, Batch: 2, HeldOut: 4},
		})
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	if r := reports[0]; r.BestStep != 4 || r.Best >= r.Start {
		t.Errorf("loss %v -> %v at step %d", r.Start, r.Best, r.BestStep)
	}
	sameData(t, reports[0], reports[1])
}

// changedBias writes a copy of a model with other numbers in its smallest initializer of floats.
func changedBias(t *testing.T, model string) (path string) {
	t.Helper()
	m, err := cosetq.OpenModel(model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var bias *onnx.Tensor
	var values []float32
	for _, init := range m.Graph.Initializers {
		if v, err := init.Float32s(); err == nil && (bias == nil || len(v) < len(values)) {
			bias, values = init, slices.Clone(v)
		}
	}
	values[0]++
	*bias = *onnx.NewTensor(bias.Name, bias.Dims, values)
	path = filepath.Join(t.TempDir(), "changed.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFinetuneResumes stops a training in the middle. What it leaves can be used, and going on ends where an unbroken training
// ends.
func TestFinetuneResumes(t *testing.T) {
	files, quantized := coarseDigits(t)
	whole, err := cosetq.Finetune(context.Background(), files.Model, quantized, trainingOptions(files, "whole.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	o := trainingOptions(files, "broken.onnx")
	o.Train.Report = func(e finetune.Event) {
		if e.Step == 20 {
			stop()
		}
	}
	broken, err := cosetq.Finetune(ctx, files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if !broken.Interrupted || broken.Steps != 20 || broken.Checkpoint == "" {
		t.Fatalf("interrupted %v after %d steps, checkpoint %q", broken.Interrupted, broken.Steps, broken.Checkpoint)
	}
	if _, err := cosetq.OpenModel(broken.Files[0].Path); err != nil {
		t.Error(err)
	}
	o.Train.Report, o.Train.Resume = nil, true
	bad := o
	bad.Train.Seed++
	if _, err := cosetq.Finetune(context.Background(), files.Model, quantized, bad); !errors.Is(err, finetune.ErrCheckpoint) || !strings.Contains(err.Error(), "the seed is 5 in the checkpoint and 6 now") {
		t.Errorf("resumed with another seed: %v", err)
	}
	// Another model or data of the same sizes is not trained on from here either.
	dir := filepath.Dir(files.Model)
	other := filepath.Join(dir, "other.q.onnx")
	if _, err := cosetq.Quantize(context.Background(), files.Model, cosetq.QuantizeOptions{Output: other, Bits: 2, Data: files.Calib, Rotate: cosetq.RotateNone}); err != nil {
		t.Fatal(err)
	}
	if _, err := cosetq.Finetune(context.Background(), files.Model, other, o); !errors.Is(err, finetune.ErrCheckpoint) {
		t.Errorf("resumed with other codes: %v", err)
	}
	if _, err := cosetq.Finetune(context.Background(), changedBias(t, files.Model), quantized, o); !errors.Is(err, finetune.ErrCheckpoint) {
		t.Errorf("resumed with another float model: %v", err)
	}
	bad = o
	bad.Data = files.Data
	if _, err := cosetq.Finetune(context.Background(), files.Model, quantized, bad); !errors.Is(err, finetune.ErrCheckpoint) {
		t.Errorf("resumed with other data: %v", err)
	}
	good, err := os.ReadFile(broken.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 40, len(good) / 2, len(good) - 1} {
		damaged := slices.Clone(good)
		damaged[at] ^= 4
		if err := os.WriteFile(broken.Checkpoint, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := cosetq.Finetune(context.Background(), files.Model, quantized, o); !errors.Is(err, finetune.ErrCheckpoint) {
			t.Errorf("resumed with byte %d damaged: %v", at, err)
		}
	}
	if err := os.WriteFile(broken.Checkpoint, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken.Checkpoint+".new", good[:len(good)/2], 0o644); err != nil { // of one that was killed meanwhile
		t.Fatal(err)
	}
	resumed, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if resumed.Steps != 60 || resumed.Best != whole.Best {
		t.Errorf("resumed to step %d with loss %v, unbroken %d and %v", resumed.Steps, resumed.Best, whole.Steps, whole.Best)
	}
	sameData(t, whole, resumed)
	if left, err := filepath.Glob(broken.Checkpoint + "*"); err != nil || len(left) > 0 {
		t.Errorf("the checkpoint is still there: %v, %v", left, err)
	}
}

// TestFinetuneBlocksInterrupted stops a training by blocks: the result names no state to go on from, for there is none.
func TestFinetuneBlocksInterrupted(t *testing.T) {
	files, quantized := coarseDigits(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o := trainingOptions(files, "broken.onnx")
	o.Blocks, o.Train.Every = true, 5
	o.Train.Report = func(e finetune.Event) {
		if e.Step == 5 {
			stop()
		}
	}
	r, err := cosetq.Finetune(ctx, files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Interrupted || r.Checkpoint != "" {
		t.Errorf("interrupted %v, checkpoint %q", r.Interrupted, r.Checkpoint)
	}
	if _, err := os.Stat(r.Files[0].Path + ".training"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a state was kept: %v", err)
	}
}

// TestFinetuneDiverges trains at rates far too high: the training goes back, and says so. Stopped and resumed, it goes back to
// the same state.
// A result that cannot be saved is kept: --resume writes it, the same as if nothing had happened.
func TestFinetuneKeepsWhatItCannotSave(t *testing.T) {
	files, quantized := coarseDigits(t)
	straight, err := cosetq.Finetune(context.Background(), files.Model, quantized, trainingOptions(files, "straight.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	o := trainingOptions(files, "o.onnx")
	o.Train.Report = func(e finetune.Event) {
		if e.Step == 60 { // somebody takes the place of the output
			if err := os.WriteFile(o.Output, nil, 0o666); err != nil {
				t.Error(err)
			}
		}
	}
	_, err = cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if _, hint := cosetq.Classify(err); !errors.Is(err, fs.ErrExist) || !strings.Contains(hint, "o.onnx.training: run the same command with --resume") {
		t.Fatalf("%v, hint %s", err, hint)
	}
	if err := os.Remove(o.Output); err != nil {
		t.Fatal(err)
	}
	o.Train.Report, o.Train.Resume = nil, true
	resumed, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	sameData(t, straight, resumed)
	if _, err := os.Stat(o.Output + ".training"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the checkpoint is still there")
	}
}

func TestFinetuneDiverges(t *testing.T) {
	files, quantized := coarseDigits(t)
	o := trainingOptions(files, "high.onnx")
	o.Train.Rate, o.Train.Every = 100, 5
	var events []finetune.Event
	o.Train.Report = func(e finetune.Event) { events = append(events, e) }
	whole, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if whole.Retreats == 0 || whole.Rate != 100/math.Pow(2, float64(whole.Retreats)) || whole.Best > whole.Start || len(whole.Notes) != 1 ||
		!slices.ContainsFunc(events, func(e finetune.Event) bool { return e.Diverged }) {
		t.Errorf("%d retreats to a rate of %v, loss %v -> %v, notes %q, events %+v", whole.Retreats, whole.Rate, whole.Start, whole.Best, whole.Notes, events)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	o.Output = filepath.Join(filepath.Dir(files.Model), "high-broken.onnx")
	o.Train.Report = func(e finetune.Event) {
		if e.Step == 20 {
			stop()
		}
	}
	broken, err := cosetq.Finetune(ctx, files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Train.Report, o.Train.Resume = nil, true
	resumed, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if !broken.Interrupted || broken.Retreats == 0 || resumed.Retreats != whole.Retreats {
		t.Errorf("%d retreats before the interruption, %d in all, %d unbroken", broken.Retreats, resumed.Retreats, whole.Retreats)
	}
	sameData(t, whole, resumed)
}

// TestFinetuneNotFinite trains towards a model that has no finite outputs.
func TestFinetuneNotFinite(t *testing.T) {
	files, quantized := coarseDigits(t)
	m, err := cosetq.OpenModel(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i, init := range m.Graph.Initializers {
		if len(init.Dims) == 1 && init.DataType == onnx.Float {
			v, err := init.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			v[0] = float32(math.NaN())
			m.Graph.Initializers[i] = onnx.NewTensor(init.Name, init.Dims, v)
		}
	}
	bad := filepath.Join(filepath.Dir(files.Model), "bad.onnx")
	if _, err := m.Save(bad, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = cosetq.Finetune(context.Background(), bad, quantized, trainingOptions(files, "c.onnx"))
	if kind, _ := cosetq.Classify(err); kind != cosetq.BadModel || !errors.Is(err, finetune.ErrNotFinite) {
		t.Errorf("a model of NaN: %v", err)
	}
}

// TestFinetuneOneNumber trains towards a model that makes one number of all samples, which is no bug of this program.
func TestFinetuneOneNumber(t *testing.T) {
	files, _ := coarseDigits(t)
	m, err := cosetq.OpenModel(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("ReduceSum", []string{m.Graph.Outputs[0].Name}, []string{"sum"}, onnx.IntAttr("keepdims", 0)))
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("sum", onnx.Float)}
	one := filepath.Join(filepath.Dir(files.Model), "one.onnx")
	if _, err := m.Save(one, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	o := trainingOptions(files, "one.ft.onnx")
	o.Quantize = cosetq.QuantizeOptions{Bits: 2, Method: cosetq.RTN}
	_, err = cosetq.Finetune(context.Background(), one, "", o)
	if kind, _ := cosetq.Classify(err); kind != cosetq.Usage {
		t.Errorf("got %v", err)
	}
}

// TestFinetuneBlocks trains layer by layer.
func TestFinetuneBlocks(t *testing.T) {
	files, quantized := coarseDigits(t)
	o := trainingOptions(files, "blocks.onnx")
	o.Blocks, o.Train.Steps = true, 120
	blocks := 0
	o.Train.Report = func(e finetune.Event) { blocks = max(blocks, e.Blocks) }
	r, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Notes) != 1 {
		t.Errorf("notes %q, want that blocks do not see the model's output", r.Notes)
	}
	if blocks != 3 || r.Weights != 3 || r.Loss != "mse" || r.Best > 0.9*r.Start {
		t.Errorf("%d blocks, %d weights, mean loss %s %v -> %v", blocks, r.Weights, r.Loss, r.Start, r.Best)
	}
}

// Gradients in float16 train as well, those of several passes added up in float32.
func TestFinetuneFloat16(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	path, quantized := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "q.onnx")
	d := models.Decoder{Layers: 1, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: 32, Half: true, Pieces: true, Seed: 3}
	if _, err := d.ONNX().Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{Output: quantized, Bits: 2}); err != nil {
		t.Fatal(err)
	}
	for _, passes := range []int{1, 3} {
		r, err := cosetq.Finetune(t.Context(), path, quantized, cosetq.FinetuneOptions{
			Output: filepath.Join(dir, fmt.Sprint(passes, ".onnx")), Data: "random:60,sequence_length=16,past_sequence_length=0", Threads: 1,
			Train: finetune.Options{Steps: 40, Batch: 12 / passes, Accumulate: passes, HeldOut: 12},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.Best > 0.95*r.Start {
			t.Errorf("%d passes: the loss went from %v to %v", passes, r.Start, r.Best)
		}
	}
}

// On the device of the provider a training goes as on the processor, and twice the same; every graph of it runs there.
func TestFinetuneOnDevice(t *testing.T) {
	files, quantized := coarseDigits(t)
	library := testenv.Provider(t)
	t.Setenv(cudaops.EnvCUDALibrary, library)
	provider, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	train := func(output, device string) *cosetq.FinetuneReport {
		o := trainingOptions(files, output)
		o.Device, o.Train.Steps, o.Train.Every = device, 20, 10
		r, err := cosetq.Finetune(t.Context(), files.Model, quantized, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := train("cpu.onnx", "cpu")
	before := provider.Traffic()
	a := train("a.onnx", cosetq.CUDA)
	passes := int64(a.Steps)*2 + int64(a.HeldOut/32) // the student's, the teacher's, and one at least of those that judge
	if runs := provider.Traffic().Runs - before.Runs; runs < passes {
		t.Errorf("%d runs of the provider, want %d at least", runs, passes)
	}
	if math.Abs(a.Start/want.Start-1) > 1e-3 || a.Best > 1.1*want.Best {
		t.Errorf("the loss went from %v to %v, on the processor from %v to %v", a.Start, a.Best, want.Start, want.Best)
	}
	sameData(t, a, train("b.onnx", cosetq.CUDA))

	// What was begun there goes on on the processor.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o := trainingOptions(files, "moved.onnx")
	o.Device, o.Train.Steps, o.Train.Every = cosetq.CUDA, 20, 10
	o.Train.Report = func(e finetune.Event) {
		if e.Step == 10 {
			stop()
		}
	}
	if r, err := cosetq.Finetune(ctx, files.Model, quantized, o); err != nil || !r.Interrupted {
		t.Fatalf("not interrupted, %v", err)
	}
	o.Device, o.Train.Report, o.Train.Resume = "cpu", nil, true
	if r, err := cosetq.Finetune(t.Context(), files.Model, quantized, o); err != nil || r.Steps != 20 || r.Best > 1.1*want.Best {
		t.Errorf("on the processor: %+v, %v", r, err)
	}
}

// TestFinetuneFromFloat quantizes and learns labels.
func TestFinetuneFromFloat(t *testing.T) {
	files, _ := coarseDigits(t)
	o := trainingOptions(files, "labels.onnx")
	o.Labels, o.Quantize.Bits, o.Quantize.Method = true, 2, cosetq.RTN
	r, err := cosetq.Finetune(context.Background(), files.Model, "", o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Loss != "ce" || r.Best >= r.Start {
		t.Errorf("loss %s went from %v to %v", r.Loss, r.Start, r.Best)
	}
	o.Overwrite, o.Train.MaxMemory = true, 1
	var full *finetune.MemoryError
	if _, err := cosetq.Finetune(context.Background(), files.Model, "", o); !errors.As(err, &full) || !strings.HasSuffix(err.Error(), "may take 1e-06") {
		t.Errorf("a bound of one byte: %v", err)
	}
	o.Quantize.Device = "tpu" // which the weights are coded on, whatever trains them
	if _, err := cosetq.Finetune(context.Background(), files.Model, "", o); err == nil || !strings.Contains(err.Error(), `device "tpu" is unknown`) {
		t.Errorf("another device to quantize on: %v", err)
	}
}

// What is stopped while it quantizes first has kept nothing, and says so.
func TestFinetuneFromFloatInterrupted(t *testing.T) {
	testenv.Ops(t)
	files, _ := coarseDigits(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := trainingOptions(files, "f.onnx")
	o.Quantize.Bits = 2
	o.Quantize.Progress = func(stage string, _, _ int64) {
		if stage == "writing" { // all weights are in the journal
			cancel()
		}
	}
	_, err := cosetq.Finetune(ctx, files.Model, "", o)
	if kind, hint := cosetq.Classify(err); kind != cosetq.Interrupted || hint != "nothing was written" {
		t.Errorf("kind %v, %v; hint: %s", kind, err, hint)
	}
}
