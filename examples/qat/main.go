// Command qat trains a quantized digits classifier from scratch, as one would with a quantized linear layer of a training
// framework: an MLP 784-128-64-10 whose weights are D4 codes with q = 4 and two levels (4 bits per weight) from the first step on.
// The last layer stays float: coding its 640 weights does not pay.
//
//	go run ./examples/qat train.yaml test.yaml mlp.onnx
//
// The recipes give images [-1, 784] with labels. mlp.onnx is the untrained model, mlp.q.onnx the trained one.
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/onnx"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: qat TRAIN_RECIPE TEST_RECIPE MODEL")
		os.Exit(2)
	}
	if _, err := train(context.Background(), os.Stdout, os.Args[1], os.Args[2], os.Args[3], 600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// train writes an untrained model, trains it with quantized weights, and returns the share of test images it gets right.
func train(ctx context.Context, log io.Writer, trainData, testData, path string, steps int) (float64, error) {
	if _, err := mlp().Save(path, onnx.SaveOptions{}); err != nil {
		return 0, err
	}
	report, err := cosetq.Finetune(ctx, path, "", cosetq.FinetuneOptions{
		Output:   strings.TrimSuffix(path, ".onnx") + ".q.onnx",
		Data:     trainData,
		Labels:   true,
		Quantize: cosetq.QuantizeOptions{Codec: "d4:4,4", Method: cosetq.RTN},
		// A rate far above the usual one: these weights have far to go.
		Train: finetune.Options{Steps: steps, Rate: 0.3, Report: func(e finetune.Event) {
			fmt.Fprintf(log, "step %4d   loss on held-out images %.4f, %.1f %% right\n", e.Step, e.HeldOut, 100*e.Agreement)
		}},
	})
	if err != nil {
		return 0, err
	}
	result, err := cosetq.Evaluate(ctx, eval.TaskClassification, testData, []string{report.Files[0].Path}, cosetq.EvaluateOptions{})
	if err != nil {
		return 0, err
	}
	right := result.Models[0].Metrics.(eval.Classification)
	fmt.Fprintf(log, "%s: %d of %d test images right\n", report.Files[0].Path, right.Correct, right.Count)
	return right.Top1, nil
}

// mlp is the model with random weights: Gemm, Relu, Gemm, Relu, Gemm.
func mlp() *onnx.Model {
	m := onnx.NewModel(8, 17, "mlp")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("image", onnx.Float, "batch", 784)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", 10)}
	sizes := []int{784, 128, 64, 10}
	rng := rand.New(rand.NewPCG(1, 2))
	x := "image"
	for i, n := range sizes[1:] {
		k := sizes[i]
		w := make([]float32, n*k)
		for j := range w {
			w[j] = float32(rng.NormFloat64() * math.Sqrt(2/float64(k)))
		}
		weight, bias, y := fmt.Sprintf("fc%d.weight", i+1), fmt.Sprintf("fc%d.bias", i+1), fmt.Sprintf("fc%d", i+1)
		if i == len(sizes)-2 {
			y = "logits"
		}
		m.Graph.Initializers = append(m.Graph.Initializers,
			onnx.NewTensor(weight, []int64{int64(n), int64(k)}, w), onnx.NewTensor(bias, []int64{int64(n)}, make([]float32, n)))
		gemm := onnx.NewNode("Gemm", []string{x, weight, bias}, []string{y}, onnx.IntAttr("transB", 1))
		gemm.Name = y
		m.Graph.Nodes = append(m.Graph.Nodes, gemm)
		if y != "logits" {
			x = y + ".relu"
			m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Relu", []string{y}, []string{x}))
		}
	}
	return m
}
