package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
)

// The bars of novel_llama_24m by bits: everything counted, and the bits per byte on 100 windows of novels_eval.
var llamaBars = map[int]struct{ bitsPerWeight, bitsPerByte float64 }{
	4: {4.27, 1.637}, 3: {3.27, 1.663}, 2: {2.27, 1.81},
}

// llamaLoss is how much 10 windows may lose at 4 bits; 100 windows lose less than 0.0081.
const llamaLoss = 0.015

func number(t *testing.T, report map[string]any, key string) float64 {
	t.Helper()
	v, ok := report[key].(float64)
	if !ok {
		t.Fatalf("%s is %v", key, report[key])
	}
	return v
}

// modelMetrics returns the metrics of model i of an eval report and the seconds it took.
func modelMetrics(t *testing.T, report map[string]any, i int) (metrics map[string]any, seconds float64) {
	t.Helper()
	m := report["models"].([]any)[i].(map[string]any)
	return m["metrics"].(map[string]any), number(t, m, "seconds")
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// sums are the checksums of the files of a report.
func checksums(report map[string]any) (list []string) {
	for _, f := range report["files"].([]any) {
		list = append(list, f.(map[string]any)["sha256"].(string))
	}
	return list
}

// The whole job on a real language model: size, memory, determinism, quality, both paths.
func TestLlama(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	model, data := testenv.Llama(t), testenv.Data(t, "novels_eval.yaml")
	size := fileSize(t, model)
	dir := t.TempDir()
	quantized := filepath.Join(dir, "q4.onnx")

	t.Run("quantize", func(t *testing.T) {
		r, _ := mustRun(t, "quantize", model, "-o", quantized, "--bits", "4", "--method", "rtn", "--threads", "2")
		if v := number(t, r, "bits_per_weight"); v > llamaBars[4].bitsPerWeight {
			t.Errorf("%.4f bits per weight, more than %.2f", v, llamaBars[4].bitsPerWeight)
		}
		if v := number(t, r, "coverage"); v < 0.99 {
			t.Errorf("coverage %.4f, less than 0.99", v)
		}
		if v := number(t, r, "bytes"); v > 14.5e6 {
			t.Errorf("%.0f bytes, more than 14.5 MB", v)
		}
		if v := number(t, r, "peak_rss_bytes"); v > 1.5*float64(size) {
			t.Errorf("peak memory %.0f, more than 1.5 × the %d bytes of the model", v, size)
		}
		t.Logf("%.4f bits per weight, %.0f bytes, peak memory %.0f, %.1f s", r["bits_per_weight"], r["bytes"], r["peak_rss_bytes"], r["seconds"])
		if again := filepath.Join(dir, "again.onnx"); testenv.Slow() {
			other, _ := mustRun(t, "quantize", model, "-o", again, "--bits", "4", "--threads", "1")
			for i, sum := range checksums(other)[1:] { // the model itself holds the name of its data file
				if sum != checksums(r)[i+1] {
					t.Errorf("1 and 2 threads gave different data files")
				}
			}
		}
	})
	if t.Failed() {
		return
	}

	// Quality of all presets needs all windows, and much time. The rates follow from the shapes alone.
	for bits, bar := range llamaBars {
		t.Run(strconv.Itoa(bits)+" bits", func(t *testing.T) {
			out, windows, limit := filepath.Join(dir, strconv.Itoa(bits)+".onnx"), "100", bar.bitsPerByte
			if !testenv.Slow() {
				r, _ := mustRun(t, "quantize", model, "--bits", strconv.Itoa(bits), "--dry-run")
				if v := number(t, r, "bits_per_weight"); v > bar.bitsPerWeight {
					t.Errorf("%.4f bits per weight, more than %.2f", v, bar.bitsPerWeight)
				}
				return
			}
			r, _ := mustRun(t, "quantize", model, "-o", out, "--bits", strconv.Itoa(bits))
			if v := number(t, r, "bits_per_weight"); v > bar.bitsPerWeight {
				t.Errorf("%.4f bits per weight, more than %.2f", v, bar.bitsPerWeight)
			}
			e, _ := mustRun(t, "eval", out, "--task", "perplexity", "--data", data, "--limit", windows)
			m, _ := modelMetrics(t, e, 0)
			if v := number(t, m, "bits_per_token"); v > limit {
				t.Errorf("%.4f bits per byte, more than %.4f", v, limit)
			} else {
				t.Logf("%.4f bits per byte", v)
			}
		})
	}

	t.Run("perplexity", func(t *testing.T) {
		e, _ := mustRun(t, "eval", model, quantized, "--task", "perplexity", "--data", data, "--limit", "10")
		float, _ := modelMetrics(t, e, 0)
		coded, _ := modelMetrics(t, e, 1)
		loss := number(t, coded, "bits_per_token") - number(t, float, "bits_per_token")
		if loss > llamaLoss || loss < -llamaLoss {
			t.Errorf("10 windows: %.4f bits per byte more than float, limit %.4f", loss, llamaLoss)
		}
		if n := number(t, coded, "tokens"); n != 10*256 {
			t.Errorf("%.0f bytes predicted, want 2560", n)
		}
	})
	t.Run("portable", func(t *testing.T) { llamaPortable(t, model, quantized, data) })
}

// llamaPortable compares the file with and without the library.
func llamaPortable(t *testing.T, model, quantized, data string) {
	testenv.Accurate(t)
	native, _ := mustRun(t, "eval", quantized, "--task", "perplexity", "--data", data, "--limit", "5")
	plain, _ := mustRun(t, "eval", quantized, model, "--task", "perplexity", "--data", data, "--limit", "5", "--ops", "none")
	a, _ := modelMetrics(t, native, 0)
	b, seconds := modelMetrics(t, plain, 0)
	_, floatSeconds := modelMetrics(t, plain, 1)
	if d := number(t, a, "bits_per_token") - number(t, b, "bits_per_token"); d > 0.0005 || d < -0.0005 {
		t.Errorf("library and portable path differ by %.5f bits per byte", d)
	}
	t.Logf("portable path: %.2f × the time of float (the bar is 1.1, where nothing else runs)", seconds/floatSeconds)

	reference := outputs(t, quantized, ort.SessionOptions{}, nil)
	for name, got := range outputs(t, quantized, ort.SessionOptions{OpsLibrary: testenv.Ops(t)}, nil) {
		if e := relativeError(t, reference[name], got); !(e <= 1e-3) {
			t.Errorf("output %q: library and portable path differ by %.2g", name, e)
		}
	}

	// Both processes load with the optimizations on; the peak of the float model counts its own copies.
	load := []string{"--data", "random:1", "--ops", "none", "--threads", "2"}
	coded, _ := mustRun(t, append([]string{"run", quantized}, load...)...)
	float, _ := mustRun(t, append([]string{"run", model}, load...)...)
	peak, floatPeak := number(t, coded, "peak_rss_bytes"), number(t, float, "peak_rss_bytes")
	if peak > 4*floatPeak {
		t.Errorf("loading without the library took %.0f bytes, more than 4 × the %.0f of the float model", peak, floatPeak)
	}
	t.Logf("loading without the library: peak memory %.2f × that of the float model, %.2f × its file",
		peak/floatPeak, peak/float64(fileSize(t, model)))
}

// The number of threads changes no byte, here on the layers of a real model that come first and last.
func TestThreadsDoNotMatter(t *testing.T) {
	model, dir := testenv.Data(t, "models/vit_tiny_patch16_224.onnx"), t.TempDir()
	var first []string
	for _, threads := range []string{"1", "2", "5"} {
		out := filepath.Join(dir, "q.onnx")
		r, _ := mustRun(t, "quantize", model, "-o", out, "--force", "--include", "index:0-8", "--threads", threads)
		if first == nil {
			first = checksums(r)
		}
		for i, sum := range checksums(r) {
			if sum != first[i] {
				t.Errorf("%s threads gave another file %d", threads, i)
			}
		}
	}
}

// ViT-Tiny at 4 bits on 500 photographs.
func TestViTAccuracy(t *testing.T) {
	if !testenv.Slow() {
		t.Skip("runs with COSETQ_REQUIRE=slow")
	}
	model, out := testenv.Data(t, "models/vit_tiny_patch16_224.onnx"), filepath.Join(t.TempDir(), "q.onnx")
	r, _ := mustRun(t, "quantize", model, "-o", out, "--bits", "4")
	if v := number(t, r, "bits_per_weight"); v > 4.27 {
		t.Errorf("%.4f bits per weight, more than 4.27", v)
	}
	e, _ := mustRun(t, "eval", out, "--task", "classification", "--data", testenv.Data(t, "imagenet_vit.yaml"))
	m, _ := modelMetrics(t, e, 0)
	if v := number(t, m, "correct"); v < 403 {
		t.Errorf("%.0f of 500 right, want at least 403", v)
	}
}
