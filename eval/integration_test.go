//go:build cgo && linux

package eval_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
)

// evaluate runs a model in ONNX Runtime on the data of a recipe.
func evaluate(t *testing.T, task, model, recipe string, limit int) *eval.Report {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(model, ort.SessionOptions{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data, err := calib.Open(testenv.Data(t, recipe), s.Inputs(), calib.Options{Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	m := eval.Model{Path: model, Runner: s, Inputs: s.Inputs(), Outputs: s.Outputs()}
	report, err := eval.Run(context.Background(), task, []eval.Model{m}, data, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// slack is how many images the last bits of another processor's kernels may move over a decision boundary.
const slack = 2

// The float accuracies of the test models, the base that every quantization is measured against. Python with Pillow 13.0
// and ONNX Runtime 1.30.0 counts the same (420 for ViT-Tiny, although an older measurement had 421).
func TestFloatAccuracy(t *testing.T) {
	for _, c := range []struct {
		model, recipe  string
		limit, correct int // with a limit
		all            int // correct of all the data
	}{
		{"vit_tiny_patch16_224", "imagenet_vit", 100, 89, 420},
		{"vnn21_mnist_net_256x2", "mnist_784x1", 1000, 978, 4868},
		{"vnn21_mnist_net_256x4", "mnist_784x1", 1000, 974, 4835},
		{"vnn21_eran_mnist_relu_9_200", "mnist_nchw", 1000, 950, 4670},
		{"cora24_mnist_point", "mnist_transposed", 1000, 980, 4872},
		{"vnn23_vit_pgd_2_3_16", "cifar_vit", 500, 355, 1491},
		{"vnn21_marabou_cifar10_small", "cifar_plain_nhwc", 500, 342, 1556},
		{"vnn21_marabou_cifar10_large", "cifar_plain_nhwc", 500, 390, 1808},
		{"vnn21_oval21_cifar_base_kw", "cifar_oval", 500, 346, 1461},
	} {
		t.Run(c.model, func(t *testing.T) {
			limit, want := c.limit, c.correct
			if testenv.Slow() {
				limit, want = 0, c.all
			} else if testing.Short() && c.recipe == "imagenet_vit" {
				limit, want = 20, 18 // whose photographs take long to decode under the race detector
			}
			r := evaluate(t, eval.TaskClassification, testenv.Data(t, "models/"+c.model+".onnx"), c.recipe+".yaml", limit)
			got := r.Models[0].Metrics.(eval.Classification)
			t.Logf("%d of %d, %.1f s", got.Correct, got.Count, r.Models[0].Seconds)
			if got.Correct < want-slack || got.Correct > want+slack {
				t.Errorf("%d of %d right, want %d", got.Correct, got.Count, want)
			}
		})
	}
}

// In bits per byte; the model's author measured 1.6289 over 100 windows.
func TestFloatPerplexity(t *testing.T) {
	limit, want := 10, 1.5776
	if testenv.Slow() {
		limit, want = 100, 1.6289
	}
	r := evaluate(t, eval.TaskPerplexity, testenv.Llama(t), "novels_eval.yaml", limit)
	got := r.Models[0].Metrics.(eval.Perplexity)
	t.Logf("%+v, %.1f s", got, r.Models[0].Seconds)
	if math.Abs(got.BitsPerToken-want) > 1e-3 {
		t.Errorf("%.4f bits per byte, want %.4f", got.BitsPerToken, want)
	}
}

// Every test model runs on random inputs, and ONNX Runtime's optimizations do not change its answers.
func TestEveryModelAgreesWithItself(t *testing.T) {
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(testenv.Data(t, "models"), "*.onnx"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			spelling := "random:2"
			if strings.Contains(path, "silero") {
				spelling = "random:2,sequence=576,sr=16000"
			}
			var models []eval.Model
			for _, level := range []ort.OptimizationLevel{ort.OptimizeDisabled, ort.OptimizeAll} {
				s, err := rt.NewSession(path, ort.SessionOptions{Threads: 1, Optimization: level})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				models = append(models, eval.Model{Path: level.String(), Runner: s, Inputs: s.Inputs(), Outputs: s.Outputs()})
			}
			data, err := calib.Open(spelling, models[0].Inputs, calib.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := eval.Run(context.Background(), eval.TaskAgreement, models, data, eval.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := r.Models[1].Metrics.(eval.Agreement)
			if !r.Random || got.SQNR < 80 || got.Top1 != 1 {
				t.Errorf("%+v", got)
			}
		})
	}
}
