package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// The models of the test data, the expected number of quantized nodes and what is left alone, and made-up inputs where
// free dimensions must fit each other. Missing here means a failure: every model has its line.
var realModels = map[string]struct {
	quantized int
	skipped   map[string]int
	given     map[string]int64
}{
	"cora24_mnist_point":               {quantized: 8},
	"optimum_tests_tiny":               {}, // every weight is 2 × 2
	"silero_vad_op18_ifless":           {quantized: 4, skipped: map[string]int{"too-small": 2}, given: map[string]int64{"sequence": 576, "sr": 16000}},
	"vit_tiny_patch16_224":             {quantized: 49, skipped: map[string]int{"dynamic-b": 24}},
	"vnn21_acasxu_1_7":                 {quantized: 5, skipped: map[string]int{"too-small": 2}},
	"vnn21_eran_mnist_relu_9_200":      {quantized: 9},
	"vnn21_marabou_cifar10_large":      {quantized: 2, skipped: map[string]int{"too-small": 1}},
	"vnn21_marabou_cifar10_small":      {quantized: 2, skipped: map[string]int{"too-small": 1}},
	"vnn21_mnist_net_256x2":            {quantized: 3},
	"vnn21_mnist_net_256x4":            {quantized: 5},
	"vnn21_oval21_cifar_base_kw":       {quantized: 1, skipped: map[string]int{"too-small": 1}},
	"vnn23_ml4acopf_118":               {quantized: 12},
	"vnn23_nn4sys_mscn_128d":           {quantized: 4, skipped: map[string]int{"too-small": 4}},
	"vnn23_nn4sys_pensieve_mid_simple": {quantized: 1, skipped: map[string]int{"too-small": 4}},
	"vnn23_vit_pgd_2_3_16":             {quantized: 12, skipped: map[string]int{"dynamic-b": 4, "too-small": 1}},
}

// program runs cosetq in a process of its own and returns its report, its exit code and the largest memory it took.
func program(t *testing.T, args ...string) (report map[string]any, code int, peak int64) {
	t.Helper()
	cmd := exec.Command("cosetq", append(args, "--json")...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), testenv.EnvORT+"="+testenv.ORT(t), testenv.EnvOps+"="+testenv.Ops(t))
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("cosetq %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), errOut.Bytes())
	}
	// The program's own word: the resource usage of a child counts what this process held when it started it.
	if own, ok := report["peak_rss_bytes"].(float64); ok {
		peak = int64(own)
	}
	return report, cmd.ProcessState.ExitCode(), peak
}

// mustRun is program for commands that must succeed.
func mustRun(t *testing.T, args ...string) (report map[string]any, peak int64) {
	t.Helper()
	report, code, peak := program(t, args...)
	if code != exitOK {
		t.Fatalf("cosetq %s: exit code %d: %v", strings.Join(args, " "), code, report)
	}
	return report, peak
}

// Every real model quantizes, or says why not, and runs the same on both paths and at both ends of the optimization levels.
func TestRealModels(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(testenv.Data(t, "models"), "*.onnx"))
	if err != nil || len(paths) < len(realModels) {
		t.Fatalf("%d models, want at least %d", len(paths), len(realModels))
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".onnx")
		t.Run(name, func(t *testing.T) {
			want, known := realModels[name]
			if !known {
				t.Fatal("no expectation for this model")
			}
			out := filepath.Join(t.TempDir(), "q.onnx")
			report, code, _ := program(t, "quantize", path, "-o", out, "--bits", "4")
			if want.quantized == 0 {
				if code != exitNothing || !strings.Contains(report["error"].(map[string]any)["message"].(string), "too-small") {
					t.Errorf("exit code %d, want %d with reasons: %v", code, exitNothing, report)
				}
				return
			}
			if code != exitOK {
				t.Fatalf("exit code %d: %v", code, report)
			}
			quantized, skipped := 0, map[string]int{}
			for _, l := range report["layers"].([]any) {
				layer := l.(map[string]any)
				if layer["status"] == "quantized" {
					quantized++
					continue
				}
				reason, _ := layer["reason"].(string)
				skipped[reason]++
			}
			if quantized != want.quantized || !sameCounts(skipped, want.skipped) {
				t.Errorf("%d nodes quantized, want %d; skipped %v, want %v", quantized, want.quantized, skipped, want.skipped)
			}
			t.Logf("%.3f bits per weight, coverage %.3f, %d -> %d bytes", report["bits_per_weight"], report["coverage"],
				int64(report["input_bytes"].(float64)), int64(report["bytes"].(float64)))
			samePaths(t, path, out, want.given)
			plain := filepath.Join(t.TempDir(), "plain.onnx")
			mustRun(t, "export", out, "-o", plain, "--format", "fp32")
			reference := outputs(t, out, ort.SessionOptions{}, want.given)
			for name, got := range outputs(t, plain, ort.SessionOptions{}, want.given) {
				if e := relativeError(t, reference[name], got); !(e <= 1e-3) {
					t.Errorf("exported: output %q differs by %.2g", name, e)
				}
			}
		})
	}
}

func sameCounts(a, b map[string]int) bool {
	for k := range a {
		if a[k] != b[k] {
			return false
		}
	}
	return len(a) == len(b)
}

// samePaths runs the quantized model with and without the library, optimized and not, on made-up inputs. Its outputs must
// agree with each other closely, and with the float model's as far as 4 bits allow.
func samePaths(t *testing.T, float, quantized string, given map[string]int64) {
	t.Helper()
	testenv.Accurate(t)
	lib := testenv.Ops(t)
	reference := outputs(t, quantized, ort.SessionOptions{Threads: 1}, given)
	for _, o := range []ort.SessionOptions{
		{Optimization: ort.OptimizeDisabled},
		{OpsLibrary: lib},
		{OpsLibrary: lib, Optimization: ort.OptimizeDisabled},
	} {
		o.Threads = 1
		got := outputs(t, quantized, o, given)
		for name, want := range reference {
			if e := relativeError(t, want, got[name]); !(e <= 1e-3) {
				t.Errorf("optimization %v, library %v: output %q differs by %.2g", o.Optimization, o.OpsLibrary != "", name, e)
			}
		}
	}
	for name, want := range outputs(t, float, ort.SessionOptions{Threads: 1}, given) {
		e := relativeError(t, want, reference[name])
		if !(e <= 0.7) { // an unrelated output would be off by 1.4
			t.Errorf("output %q differs by %.2g from the float model's", name, e)
		}
		t.Logf("output %q: error %.3f of float", name, e)
	}
}

func outputs(t *testing.T, model string, o ort.SessionOptions, given map[string]int64) map[string]*tensor.Tensor {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(model, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data, err := calib.NewRandom(1, s.Inputs(), given, 5)
	if err != nil {
		t.Fatal(err)
	}
	sample, err := data.Sample(0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), sample.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// relativeError is the norm of the difference over the norm of want.
func relativeError(t *testing.T, want, got *tensor.Tensor) float64 {
	t.Helper()
	if got == nil || got.Count() != want.Count() || got.Type != want.Type {
		t.Fatalf("outputs of different forms")
	}
	a, b := make([]float64, want.Count()), make([]float64, want.Count())
	if err := errors.Join(want.Floats(a, 0, want.Count()), got.Floats(b, 0, got.Count())); err != nil {
		t.Fatal(err)
	}
	var difference, norm float64
	for i := range a {
		difference += (a[i] - b[i]) * (a[i] - b[i])
		norm += a[i] * a[i]
	}
	if difference == 0 {
		return 0
	}
	return math.Sqrt(difference / norm)
}
