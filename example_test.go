package cosetq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/rewrite"
)

// model writes the small digits classifier that comes with the module, and its data, to a temporary folder.
func model() (files models.QuickstartFiles, remove func()) {
	dir, err := os.MkdirTemp("", "cosetq-example-")
	if err != nil {
		log.Fatal(err)
	}
	if files, err = models.WriteQuickstart(dir); err != nil {
		log.Fatal(err)
	}
	return files, func() { _ = os.RemoveAll(dir) }
}

func ExampleInspect() {
	files, remove := model()
	defer remove()
	r, err := cosetq.Inspect(files.Model, rewrite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range r.Nodes {
		fmt.Printf("%s %s [%d × %d] %s\n", n.Node, n.Op, n.N, n.K, n.Status)
	}
	// Output:
	// fc1 Gemm [256 × 784] candidate
	// fc2 MatMul [128 × 256] candidate
	// fc3 Gemm [10 × 128] candidate
}

func ExamplePlan() {
	files, remove := model()
	defer remove()
	r, err := cosetq.Plan(context.Background(), files.Model, cosetq.QuantizeOptions{Bits: 3})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f bits per weight, %.0f %% of the weights\n", r.BitsPerWeight, 100*r.Coverage)
	// Output: 3.30 bits per weight, 100 % of the weights
}

func ExampleQuantize() {
	files, remove := model()
	defer remove()
	r, err := cosetq.Quantize(context.Background(), files.Model, cosetq.QuantizeOptions{
		Output: filepath.Join(filepath.Dir(files.Model), "digits.q.onnx"),
		Bits:   4,
		Sites:  rewrite.Options{Exclude: []string{"fc3"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range r.Layers {
		fmt.Printf("%s: %s\n", l.Node, l.Status)
	}
	// Output:
	// fc1: quantized
	// fc2: quantized
	// fc3: skipped
}

func ExampleExport() {
	files, remove := model()
	defer remove()
	dir := filepath.Dir(files.Model)
	quantized := filepath.Join(dir, "q.onnx")
	if _, err := cosetq.Quantize(context.Background(), files.Model, cosetq.QuantizeOptions{Output: quantized}); err != nil {
		log.Fatal(err)
	}
	r, err := cosetq.Export(context.Background(), quantized, cosetq.ExportOptions{Output: filepath.Join(dir, "plain.onnx")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Format, r.Nodes)
	// Output: fp32 3
}

// What a program tells its user when something goes wrong.
func ExampleClassify() {
	_, err := cosetq.Inspect("missing.onnx", rewrite.Options{})
	kind, hint := cosetq.Classify(err)
	fmt.Println(kind == cosetq.BadModel, hint)
	// Output: true check the path
}

// Calibrating needs ONNX Runtime and the native library.
func ExampleCalibrate() {
	files, remove := model()
	defer remove()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	statistics := filepath.Join(filepath.Dir(files.Model), "digits.cqs")
	_, err := cosetq.Calibrate(ctx, files.Model, files.Calib, cosetq.CalibrateOptions{
		Output: statistics, Samples: cosetq.DefaultSamples,
		Progress: func(stage string, done, total int64) { log.Printf("%s %d of %d", stage, done, total) },
	})
	var known *cosetq.Error
	if errors.As(err, &known) && known.Kind == cosetq.Unavailable {
		log.Fatalf("%v: %s", err, known.Hint)
	}
	// The same statistics serve every number of bits.
	for _, bits := range []int{3, 2} {
		if _, err := cosetq.Quantize(ctx, files.Model, cosetq.QuantizeOptions{
			Output: fmt.Sprintf("digits.q%d.onnx", bits), Bits: bits, Statistics: statistics,
		}); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleEvaluate() {
	r, err := cosetq.Evaluate(context.Background(), eval.TaskClassification, "eval.yaml", []string{"model.onnx", "model.q.onnx"}, cosetq.EvaluateOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range r.Models {
		fmt.Println(m.Path, m.Metrics.(eval.Classification).Top1)
	}
}

func ExampleCompare() {
	r, err := cosetq.Compare(context.Background(), "model.onnx", "model.q.onnx", cosetq.CompareOptions{Data: "eval.yaml", Samples: cosetq.CompareSamples, Top: 3})
	if err != nil {
		log.Fatal(err)
	}
	for _, x := range r.Trials {
		fmt.Printf("without %s: %+.1f dB for %s\n", x.Exclude, x.Gain, cosetq.Size(x.Bytes))
	}
	if _, err := r.WritePage(context.Background(), "report.html", cosetq.PageOptions{Data: "eval.yaml"}); err != nil {
		log.Fatal(err)
	}
}

func ExampleBench() {
	r, err := cosetq.Bench(context.Background(), []string{"model.onnx", "model.q.onnx"}, cosetq.BenchOptions{Data: "random:1,batch=1", Peers: []string{"fp16"}})
	if err != nil {
		log.Fatal(err)
	}
	for i, m := range r.Models {
		fmt.Println(m.Name, m.Median, r.Against(i))
	}
}

// Run makes up inputs where there is no data.
func ExampleRun() {
	r, err := cosetq.Run(context.Background(), "model.q.onnx", "random:1", cosetq.RunOptions{Output: "outputs.npz"})
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range r.Outputs {
		fmt.Println(o.Name, o.Shape)
	}
}

// Without a quantized model, the float one is quantized first.
func ExampleFinetune() {
	r, err := cosetq.Finetune(context.Background(), "model.onnx", "", cosetq.FinetuneOptions{
		Data: "train.yaml", Quantize: cosetq.QuantizeOptions{Bits: 2}, Train: finetune.Options{Steps: 1000, HeldOut: 32},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("loss on held-out data: %.4f, before %.4f\n", r.Best, r.Start)
}

func ExampleExportOps() {
	r, err := cosetq.ExportOps("ops", false)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range r.Files {
		fmt.Println(f.Path, cosetq.Size(f.Bytes))
	}
}
