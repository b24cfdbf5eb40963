package cosetq_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
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
		Train: finetune.Options{Steps: 60, Batch: 32, HeldOut: 64, Every: 20, Rate: 0.05, Seed: 5},
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
	if _, err := cosetq.Finetune(context.Background(), files.Model, quantized, bad); !errors.Is(err, finetune.ErrCheckpoint) {
		t.Errorf("resumed with another seed: %v", err)
	}
	resumed, err := cosetq.Finetune(context.Background(), files.Model, quantized, o)
	if err != nil {
		t.Fatal(err)
	}
	if resumed.Steps != 60 || resumed.Best != whole.Best {
		t.Errorf("resumed to step %d with loss %v, unbroken %d and %v", resumed.Steps, resumed.Best, whole.Steps, whole.Best)
	}
	if _, err := os.Stat(broken.Checkpoint); !os.IsNotExist(err) {
		t.Errorf("the checkpoint is still there: %v", err)
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
	if blocks != 3 || r.Weights != 3 || r.Best > 0.9*r.Start {
		t.Errorf("%d blocks, %d weights, mean loss %v -> %v", blocks, r.Weights, r.Start, r.Best)
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
	if _, err := cosetq.Finetune(context.Background(), files.Model, "", o); !errors.As(err, &full) {
		t.Errorf("a bound of one byte: %v", err)
	}
}
