package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

// On a real language model the target is met, and the loss is of the order that was predicted from layers one by one: errors of
// layers that follow each other are not quite independent.
func TestLlamaTarget(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	model, data := testenv.Llama(t), testenv.Data(t, "novels_calib.yaml")
	out := filepath.Join(t.TempDir(), "q.onnx")
	options := []string{"--method", "rtn", "--include", "index:0-11", "--threads", "2"}
	if testenv.Slow() {
		options = []string{"--threads", "2"}
	}
	r, _ := mustRun(t, append([]string{"quantize", model, "-o", out, "--target-bpw", "3", "--data", data, "--samples", "2"}, options...)...)
	if v := number(t, r, "bits_per_weight"); v > 3 || v < 2.9 {
		t.Errorf("%.4f bits per weight, want 2.9 to 3", v)
	}
	allocation := r["allocation"].(map[string]any)
	predicted := number(t, allocation, "predicted_loss")
	e, _ := mustRun(t, "eval", model, out, "--task", "agreement", "--data", data, "--limit", "2")
	m, _ := modelMetrics(t, e, 1)
	if v := number(t, m, "kl"); v > 3*predicted || v < predicted/3 {
		t.Errorf("divergence %.3g nats, predicted %.3g", v, predicted)
	}
	coarse := number(t, allocation["uniform"].([]any)[0].(map[string]any), "predicted_loss")
	if predicted > 0.4*coarse {
		t.Errorf("predicted loss %.3g, and %.3g at 2 bits", predicted, coarse)
	}
}

// Three bits on average are better than the straight line between two and four.
func TestTargetBeatsTheLine(t *testing.T) {
	if !testenv.Slow() {
		t.Skip("runs with COSETQ_REQUIRE=slow")
	}
	for _, c := range []struct{ model, data, calib, task, metric string }{
		{testenv.Llama(t), "novels_eval.yaml", "novels_calib.yaml", "perplexity", "bits_per_token"},
		{testenv.Data(t, "models/vit_tiny_patch16_224.onnx"), "imagenet_vit.yaml", "imagenet_vit.yaml", "agreement", "kl"},
	} {
		dir := t.TempDir()
		statistics, calib := filepath.Join(dir, "s.cqs"), testenv.Data(t, c.calib)
		mustRun(t, "calibrate", c.model, "--data", calib, "--samples", "32", "-o", statistics)
		models, bits := []string{c.model}, []float64{32}
		for i, options := range [][]string{{"--bits", "2"}, {"--target-bpw", "3", "--data", calib, "--samples", "32"}, {"--bits", "4"}} {
			out := filepath.Join(dir, string(rune('a'+i))+".onnx")
			r, _ := mustRun(t, append([]string{"quantize", c.model, "-o", out, "--calib", statistics}, options...)...)
			models, bits = append(models, out), append(bits, number(t, r, "bits_per_weight"))
		}
		e, _ := mustRun(t, append(append([]string{"eval"}, models...), "--task", c.task, "--data", testenv.Data(t, c.data), "--limit", "100")...)
		var loss []float64
		for i := range models {
			m, _ := modelMetrics(t, e, i)
			loss = append(loss, number(t, m, c.metric))
		}
		line := loss[1] + (loss[3]-loss[1])*(bits[2]-bits[1])/(bits[3]-bits[1])
		t.Logf("%s: %s of float %.4f; at %.3f, %.3f and %.3f bits %.4f, %.4f, %.4f; the line at %.3f: %.4f",
			filepath.Base(c.model), c.metric, loss[0], bits[1], bits[2], bits[3], loss[1], loss[2], loss[3], bits[2], line)
		if loss[2] >= line || bits[2] > 3 {
			t.Errorf("%s: %.4f at %.3f bits, want less than %.4f", filepath.Base(c.model), loss[2], bits[2], line)
		}
	}
}

// A dry run foretells the size, to the byte unless weights turn out to need no rotation, and a target of bytes is never exceeded.
func TestTargetSizeIsKept(t *testing.T) {
	testenv.Ops(t)
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	statistics := filepath.Join(dir, "s.cqs")
	mustRun(t, "calibrate", files.Model, "--data", files.Calib, "--samples", "16", "-o", statistics)
	quantize := func(name string, options ...string) (planned, taken float64) {
		t.Helper()
		out := filepath.Join(dir, name+".onnx")
		args := append([]string{"quantize", files.Model, "-o", out, "--calib", statistics, "--data", files.Calib, "--samples", "16"}, options...)
		plan, _ := mustRun(t, append(args, "--dry-run")...)
		mustRun(t, args...)
		for _, file := range []string{out, out + ".data"} {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			taken += float64(info.Size())
		}
		return number(t, plan, "bytes"), taken
	}
	for _, rotate := range []string{"none", "hadamard"} {
		if planned, taken := quantize(rotate, "--target-bpw", "3", "--rotate", rotate); planned != taken {
			t.Errorf("--rotate %s: the plan says %.0f bytes, the files take %.0f", rotate, planned, taken)
		}
	}
	planned, _ := quantize("least", "--target-bpw", "2.4")
	for _, target := range []float64{planned, 100000} {
		name := strconv.Itoa(int(target))
		if planned, taken := quantize(name, "--target-size", name); taken > target || planned > target || taken > planned {
			t.Errorf("--target-size %s: the plan says %.0f bytes, the files take %.0f", name, planned, taken)
		}
	}
	report, code, _ := program(t, "quantize", files.Model, "-o", filepath.Join(dir, "less.onnx"), "--calib", statistics, "--data", files.Calib, "--target-size", "78300")
	if code != exitUsage {
		t.Errorf("a target below the least: exit code %d: %v", code, report)
	}
}
