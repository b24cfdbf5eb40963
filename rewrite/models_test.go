package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// modelCounts says what is known of the sites of each test model.
var modelCounts = map[string]struct {
	sites, candidates int
	reasons           map[rewrite.Reason]int
}{
	"cora24_mnist_point":               {8, 8, nil},
	"optimum_tests_tiny":               {18, 0, map[rewrite.Reason]int{rewrite.DynamicB: 4, rewrite.TooSmall: 14}}, // 2 × 2 weights
	"silero_vad_op18_ifless":           {6, 4, map[rewrite.Reason]int{rewrite.TooSmall: 2}},                        // in the branches of an If
	"vit_tiny_patch16_224":             {73, 49, map[rewrite.Reason]int{rewrite.DynamicB: 24}},
	"vnn21_acasxu_1_7":                 {7, 5, map[rewrite.Reason]int{rewrite.TooSmall: 2}}, // IR 3
	"vnn21_eran_mnist_relu_9_200":      {9, 9, nil},
	"vnn21_marabou_cifar10_large":      {3, 2, map[rewrite.Reason]int{rewrite.TooSmall: 1}},
	"vnn21_marabou_cifar10_small":      {3, 2, map[rewrite.Reason]int{rewrite.TooSmall: 1}},
	"vnn21_mnist_net_256x2":            {3, 3, nil}, // unnamed nodes
	"vnn21_mnist_net_256x4":            {5, 5, nil},
	"vnn21_oval21_cifar_base_kw":       {2, 1, map[rewrite.Reason]int{rewrite.TooSmall: 1}},
	"vnn23_ml4acopf_118":               {12, 12, nil}, // Constant nodes on the left
	"vnn23_nn4sys_mscn_128d":           {8, 4, map[rewrite.Reason]int{rewrite.TooSmall: 4}},
	"vnn23_nn4sys_pensieve_mid_simple": {5, 1, map[rewrite.Reason]int{rewrite.TooSmall: 4}},
	"vnn23_vit_pgd_2_3_16":             {17, 12, map[rewrite.Reason]int{rewrite.DynamicB: 4, rewrite.TooSmall: 1}},
}

// TestModels rewrites real models and compares each with its own export to float32: what the body decodes in ONNX Runtime,
// at both ends of the optimization levels, against what ReadLinear decodes here.
func TestModels(t *testing.T) {
	for name, want := range modelCounts {
		t.Run(name, func(t *testing.T) {
			m, err := onnx.Open(testenv.Data(t, filepath.Join("models", name+".onnx")))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			reasons, candidates := map[rewrite.Reason]int{}, 0
			sites := find(t, m)
			for _, s := range sites {
				if s.Status == rewrite.Candidate {
					candidates++
				} else {
					reasons[s.Reason]++
				}
			}
			if len(sites) != want.sites || candidates != want.candidates || fmt.Sprint(reasons) != fmt.Sprint(orEmpty(want.reasons)) {
				t.Errorf("%d sites, %d candidates, %v; want %+v", len(sites), candidates, reasons, want)
			}
			if candidates == 0 {
				return
			}
			inputs := anyInputs(t, m)
			apply(t, m)
			exported := onnx.Clone(m)
			if _, err := rewrite.Export(exported, rewrite.ExportOptions{Format: rewrite.FP32}); err != nil {
				t.Fatal(err)
			}
			sameOutputs(t, exported, m, inputs, 1e-4)
		})
	}
}

func orEmpty(m map[rewrite.Reason]int) map[rewrite.Reason]int {
	if m == nil {
		return map[rewrite.Reason]int{}
	}
	return m
}

// anyInputs makes inputs for a model: random numbers, ones for integers, and 1 for sizes that are not fixed.
func anyInputs(t *testing.T, m *onnx.Model) map[string]*tensor.Tensor {
	t.Helper()
	specs, _, err := ort.Signature(m)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(70, 71))
	voice := map[string][]int64{"input": {1, 576}, "state": {2, 1, 128}} // the shapes of the voice detector, which also takes a rate
	inputs := map[string]*tensor.Tensor{}
	for _, s := range specs {
		var shape []int64
		for _, d := range s.Shape {
			shape = append(shape, max(d.Size, 1))
		}
		if fixed := voice[s.Name]; len(specs) == len(voice)+1 && fixed != nil {
			shape = fixed
		}
		v, err := tensor.New(s.Type, shape...)
		if err != nil {
			t.Fatal(err)
		}
		switch s.Type {
		case tensor.Float32:
			x, _ := tensor.View[float32](v)
			for i := range x {
				x[i] = rng.Float32()
			}
		case tensor.Int64:
			x, _ := tensor.View[int64](v)
			for i := range x {
				x[i] = 16000 // the voice detector's rate of sampling
			}
		}
		inputs[s.Name] = v
	}
	return inputs
}
