package cosetq_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/models"
)

// The steps work hand in hand from Go, and each reports its progress from nothing to all.
func TestPipeline(t *testing.T) {
	session := runtime(t)
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int64{}
	progress := func(stage string, done, total int64) {
		if done < seen[stage] || done > total {
			t.Errorf("%s: %d of %d after %d", stage, done, total, seen[stage])
		}
		seen[stage] = done
	}
	statistics, quantized := filepath.Join(dir, "digits.cqs"), filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Calibrate(t.Context(), files.Model, files.Calib, cosetq.CalibrateOptions{Output: statistics, Samples: 64, Progress: progress}); err != nil {
		t.Fatal(err)
	}
	if _, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: quantized, Bits: 3, Statistics: statistics, Progress: progress}); err != nil {
		t.Fatal(err)
	}
	r, err := cosetq.Evaluate(t.Context(), eval.TaskClassification, files.Data, []string{files.Model, quantized},
		cosetq.EvaluateOptions{Samples: 500, Session: session, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	float, coded := r.Models[0].Metrics.(eval.Classification), r.Models[1].Metrics.(eval.Classification)
	if coded.Top1 < float.Top1-0.02 {
		t.Errorf("top-1 %.3f, float %.3f", coded.Top1, float.Top1)
	}
	b, err := cosetq.Bench(t.Context(), []string{files.Model, quantized}, cosetq.BenchOptions{Data: files.Data, Peers: []string{"fp16", "matmulnbits"},
		Rounds: 5, Session: session, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Models) != 4 || b.Models[0].NativeLayers != 0 || b.Models[1].NativeLayers != 3 {
		t.Errorf("bench: %+v", b.Models)
	}
	for _, m := range b.Models {
		if m.P95 < m.Median || m.Bytes == 0 || m.PerSecond <= 0 || len(m.Providers) == 0 {
			t.Errorf("bench: %+v", m)
		}
	}
	for _, stage := range []string{"calibrating", "quantizing", "writing", eval.TaskClassification, "timing"} {
		if seen[stage] == 0 {
			t.Errorf("no progress of %s", stage)
		}
	}
}

// Threads change neither the statistics nor the codes: with more of them several weights are coded at once, and rows are added up
// beside the model.
func TestThreadsChangeNothing(t *testing.T) {
	runtime(t)
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	made := func(threads int) (all [][]byte) {
		dir := t.TempDir()
		statistics, quantized := filepath.Join(dir, "digits.cqs"), filepath.Join(dir, "q.onnx")
		if _, err := cosetq.Calibrate(t.Context(), files.Model, files.Calib, cosetq.CalibrateOptions{Output: statistics, Samples: 64, Threads: threads}); err != nil {
			t.Fatal(err)
		}
		o := cosetq.QuantizeOptions{Output: quantized, Bits: 3, Statistics: statistics, Threads: threads}
		if _, err := cosetq.Quantize(t.Context(), files.Model, o); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{statistics, quantized} {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		return all
	}
	want := made(1)
	for _, threads := range []int{2, 5} {
		if !slices.EqualFunc(made(threads), want, bytes.Equal) {
			t.Errorf("%d threads make other files than one", threads)
		}
	}
}

// A cancelled context ends a step, which leaves no model behind.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	output := filepath.Join(dir, "q.onnx")
	_, err = cosetq.Quantize(ctx, files.Model, cosetq.QuantizeOptions{Output: output, Progress: func(string, int64, int64) { cancel() }})
	if kind, hint := cosetq.Classify(err); kind != cosetq.Interrupted || hint == "" {
		t.Errorf("error %v of kind %d, hint %q", err, kind, hint)
	}
	if _, err := os.Stat(output); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the output is there: %v", err)
	}
}
