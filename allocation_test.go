package cosetq_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/models"
)

// allocated quantizes the digits model for a target, rounding to nearest, which is quick.
func allocated(t *testing.T, o cosetq.QuantizeOptions) (files models.QuickstartFiles, r *cosetq.QuantizeReport, err error) {
	t.Helper()
	dir := t.TempDir()
	if files, err = models.WriteQuickstart(dir); err != nil {
		t.Fatal(err)
	}
	o.Data, o.Output = files.Calib, filepath.Join(dir, "q.onnx")
	if o.Method == "" {
		o.Method = cosetq.RTN
	}
	if o.Samples == 0 {
		o.Samples = 64
	}
	r, err = cosetq.Quantize(t.Context(), files.Model, o)
	return files, r, err
}

func codecs(r *cosetq.QuantizeReport) (list []string) {
	for _, l := range r.Layers {
		list = append(list, l.Codec)
	}
	return list
}

// What is written is what the dry run said, within the target, the same for any number of threads, and about as good as
// predicted.
func TestTargetBits(t *testing.T) {
	session := runtime(t)
	for _, method := range []string{cosetq.RTN, cosetq.LDLQ} {
		o := cosetq.QuantizeOptions{TargetBits: 3, Threads: 1, Method: method, Samples: 64}
		files, r, err := allocated(t, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.BitsPerWeight > 3 || r.BitsPerWeight < 2.4 {
			t.Errorf("%s: %.4f bits per weight, want 3 at most and not much less", method, r.BitsPerWeight)
		}
		a := r.Allocation
		if a.Measure != "kl" || a.Samples != 64 || len(a.Uniform) != 3 {
			t.Errorf("%s: allocation %+v", method, a)
		}
		if !(a.PredictedLoss < a.Uniform[0].PredictedLoss && a.PredictedLoss > a.Uniform[2].PredictedLoss) {
			t.Errorf("%s: predicted loss %g, with 2 bits %g and with 4 bits %g", method, a.PredictedLoss, a.Uniform[0].PredictedLoss, a.Uniform[2].PredictedLoss)
		}
		o.Data, o.Threads = files.Calib, 2
		plan, err := cosetq.Plan(t.Context(), files.Model, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := codecs(plan), codecs(r); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("%s: planned %v, written %v", method, got, want)
		}
		if plan.Bytes < r.Bytes || plan.Bytes > r.Bytes+r.Bytes/100 || plan.BitsPerWeight < r.BitsPerWeight || plan.Allocation.PredictedLoss != a.PredictedLoss {
			t.Errorf("%s: planned %d bytes, %.4f bits, loss %g; written %d, %.4f, %g", method,
				plan.Bytes, plan.BitsPerWeight, plan.Allocation.PredictedLoss, r.Bytes, r.BitsPerWeight, a.PredictedLoss)
		}
		for i, l := range plan.Layers {
			if len(l.Choices) != 3 || l.PredictedLoss == nil || l.Choices[0].PredictedLoss <= l.Choices[1].PredictedLoss || l.Choices[0].Bytes >= l.Choices[1].Bytes {
				t.Errorf("%s: layer %d: %+v", method, i, l)
			}
		}
		e, err := cosetq.Evaluate(t.Context(), eval.TaskAgreement, files.Calib, []string{files.Model, r.Files[0].Path}, cosetq.EvaluateOptions{Samples: 64, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		if kl := e.Models[1].Metrics.(eval.Agreement).KL; kl > 3*a.PredictedLoss || kl < a.PredictedLoss/3 {
			t.Errorf("%s: divergence %g, predicted %g", method, kl, a.PredictedLoss)
		}
	}
}

func TestTargetBytes(t *testing.T) {
	runtime(t)
	last := int64(0)
	for _, target := range []cosetq.ByteSize{87e3, 95e3, 110e3, 130e3} {
		_, r, err := allocated(t, cosetq.QuantizeOptions{TargetBytes: target})
		if err != nil {
			t.Fatal(err)
		}
		onDisk := int64(0)
		for _, f := range r.Files {
			if strings.HasSuffix(f.Path, cosetq.RecipeEnding) {
				continue // not part of the model
			}
			info, err := os.Stat(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			onDisk += info.Size()
		}
		if onDisk > int64(target) || onDisk != r.Bytes || onDisk < last {
			t.Errorf("target %d: %d bytes on disk, %d reported, %d before", target, onDisk, r.Bytes, last)
		}
		last = onDisk
	}
}

func TestMaxDrop(t *testing.T) {
	session := runtime(t)
	for _, samples := range []int{100, 500} { // of the larger part the models are tried on some
		files, r, err := allocated(t, cosetq.QuantizeOptions{MaxDrop: new(0.5), Samples: samples})
		if err != nil {
			t.Fatal(err)
		}
		e, err := cosetq.Evaluate(t.Context(), eval.TaskClassification, files.Calib, []string{files.Model, r.Files[0].Path}, cosetq.EvaluateOptions{Samples: samples, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		drop := 100 * (e.Models[0].Metrics.(eval.Classification).Top1 - e.Models[1].Metrics.(eval.Classification).Top1)
		a := r.Allocation
		if a.Metric != "top1_points" || a.Drop == nil || *a.Drop > 0.5 || drop < *a.Drop-1e-9 || drop > *a.Drop+1e-9 {
			t.Errorf("%d samples: it drops by %v points, the report says %+v", samples, drop, a)
		}
		if r.BitsPerWeight > 4 {
			t.Errorf("%d samples: %.3f bits per weight after %d trials: half a point needs fewer bits", samples, r.BitsPerWeight, len(a.Trials))
		}
		on := map[int]int{}
		for _, trial := range a.Trials {
			on[trial.Samples]++
		}
		if samples == 100 && (on[100] == 0 || on[100] > 6 || len(on) > 1) {
			t.Errorf("%v trials by samples, want up to 6 on all 100", on)
		}
		if samples == 500 && (on[128] == 0 || on[128] > 6 || on[500] == 0 || on[500] > 4 || len(on) > 2) {
			t.Errorf("%v trials by samples, want up to 6 on 128 and few on all 500", on)
		}
	}
}

func TestMaxDropOutOfReach(t *testing.T) {
	runtime(t)
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Without labels the error of the outputs counts.
	o := cosetq.QuantizeOptions{Output: filepath.Join(dir, "q.onnx"), MaxDrop: new(1e-5), Data: "random:16", Method: cosetq.RTN}
	_, err = cosetq.Quantize(t.Context(), files.Model, o)
	if kind, _ := cosetq.Classify(err); kind != cosetq.Quality {
		t.Errorf("error %v of kind %v, want a quality gate", err, kind)
	}
	for _, path := range []string{o.Output, o.Output + cosetq.JournalEnding} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind", path)
		}
	}
	o.MaxDrop = new(0.02)
	r, err := cosetq.Quantize(t.Context(), files.Model, o)
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Allocation; a.Measure != "output_error" || a.Metric != "output_error" || *a.Drop > 0.02 || *a.Drop < 0.005 {
		t.Errorf("allocation %+v", a)
	}
}

// A codec that is prescribed for a layer stays, and the others make room for it.
func TestTargetWithLayers(t *testing.T) {
	runtime(t)
	_, free, err := allocated(t, cosetq.QuantizeOptions{TargetBits: 3.5})
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := allocated(t, cosetq.QuantizeOptions{TargetBits: 3.5, Layers: []string{"fc2=d4:4:g3,4,5,7", "fc3=d4:2,4:g2,3,4"}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Layers[1].Codec != "d4:4:g3,4,5,7" || r.Layers[2].Codec != "d4:2,4:g2,3,4" || len(r.Layers[1].Choices) != 1 || r.BitsPerWeight > 3.5 {
		t.Errorf("codecs %v, %.3f bits per weight", codecs(r), r.BitsPerWeight)
	}
	if r.Allocation.PredictedLoss <= free.Allocation.PredictedLoss {
		t.Errorf("predicted loss %g, and %g with free choice", r.Allocation.PredictedLoss, free.Allocation.PredictedLoss)
	}
}

// Shares agree on one plan, and give the bytes of one run.
func TestTargetInShares(t *testing.T) {
	runtime(t)
	files, whole, err := allocated(t, cosetq.QuantizeOptions{TargetBits: 3.5})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(files.Model)
	statistics := filepath.Join(dir, "s.cqs")
	if _, err := cosetq.Calibrate(t.Context(), files.Model, files.Calib, cosetq.CalibrateOptions{Output: statistics, Samples: 8}); err != nil {
		t.Fatal(err)
	}
	o := cosetq.QuantizeOptions{Output: filepath.Join(dir, "shared.onnx"), TargetBits: 3.5, Method: cosetq.RTN, Data: files.Calib, Statistics: statistics, Samples: 64}
	for i := range 2 {
		o.Shard = cosetq.Shard{Index: i, Count: 2}
		if _, err := cosetq.Quantize(t.Context(), files.Model, o); err != nil {
			t.Fatal(err)
		}
	}
	merged, err := cosetq.Merge(t.Context(), files.Model, cosetq.MergeOptions{Output: o.Output})
	if err != nil {
		t.Fatal(err)
	}
	if merged.Files[1].SHA256 != whole.Files[1].SHA256 || merged.Allocation == nil || merged.Allocation.PredictedLoss != whole.Allocation.PredictedLoss {
		t.Errorf("merged %+v, whole %+v", merged, whole)
	}
}

// A run that was stopped goes on with the plan that it had.
func TestTargetResumes(t *testing.T) {
	runtime(t)
	files, whole, err := allocated(t, cosetq.QuantizeOptions{TargetBits: 3.5})
	if err != nil {
		t.Fatal(err)
	}
	o := cosetq.QuantizeOptions{Output: filepath.Join(filepath.Dir(files.Model), "again.onnx"), TargetBits: 3.5, Method: cosetq.RTN, Data: files.Calib, Samples: 64}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(stage string, done, _ int64) {
		if stage == "quantizing" && done > 0 {
			cancel()
		}
	}
	_, err = cosetq.Quantize(ctx, files.Model, o)
	if kind, _ := cosetq.Classify(err); kind != cosetq.Interrupted {
		t.Fatalf("error %v, want an interruption", err)
	}
	o.Resume = true
	o.Progress = func(stage string, _, _ int64) {
		if stage == "measuring layers" {
			t.Error("it measured again")
		}
	}
	r, err := cosetq.Quantize(t.Context(), files.Model, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Files[1].SHA256 != whole.Files[1].SHA256 || r.Allocation == nil {
		t.Errorf("resumed %+v, in one go %+v", r.Files, whole.Files)
	}
	o.TargetBits, o.Overwrite, o.Resume, o.Progress = 3, true, false, nil
	if _, err := cosetq.Quantize(t.Context(), files.Model, o); err != nil {
		t.Errorf("another target, from the start: %v", err)
	}
}

func TestTargetsThatMakeNoSense(t *testing.T) {
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []cosetq.QuantizeOptions{
		{TargetBits: 3},
		{TargetBits: 3, Data: files.Calib, Bits: 3},
		{TargetBits: 3, Data: files.Calib, Codec: "d4:4"},
		{TargetBits: 3, Data: files.Calib, MaxDrop: new(1.0)},
		{TargetBits: -3, Data: files.Calib},
		{TargetBits: 2, Data: files.Calib},
		{TargetBytes: 1000, Data: files.Calib},
		{TargetBytes: -1, Data: files.Calib},
		{MaxDrop: new(-1.0), Data: files.Calib},
		{TargetBits: 3, Data: files.Calib, Shard: cosetq.Shard{Index: 0, Count: 2}},
		{TargetBits: 3, Data: files.Calib, Layers: []string{"fc1"}},
	} {
		o.Output = filepath.Join(dir, "q.onnx")
		_, err := cosetq.Quantize(t.Context(), files.Model, o)
		if kind, hint := cosetq.Classify(err); err == nil || kind != cosetq.Usage || hint == "" {
			t.Errorf("%+v: error %v of kind %v, want one of usage", o, err, kind)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "q.onnx" || e.Name() == "q.onnx"+cosetq.JournalEnding {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"12": 12, "12MB": 12e6, "1.5GiB": 3 << 29, "7 kb": 7000, "2K": 2000, "3MiB": 3 << 20, "9B": 9} {
		if got, err := cosetq.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1MB", "0", "NaN", "1e30GB", "12 foo"} {
		if got, err := cosetq.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}
