package cosetq_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Where a step writes: never over what it reads, and over nothing else unasked.
func ExampleOutputPath() {
	dir, err := os.MkdirTemp("", "cosetq-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	model := filepath.Join(dir, "m.onnx")
	if err := os.WriteFile(model, nil, 0o600); err != nil {
		log.Fatal(err)
	}
	reads := cosetq.Reads{Models: []string{model}}
	path, err := cosetq.OutputPath("", reads, ".small.onnx", false)
	fmt.Println(filepath.Base(path), err)
	_, err = cosetq.OutputPath(model, cosetq.Reads{}, "", false)
	fmt.Println(errors.Is(err, fs.ErrExist))
	_, err = cosetq.OutputPath(model, reads, "", true)
	kind, hint := cosetq.Classify(err)
	fmt.Println(kind == cosetq.Usage, hint)
	// Output:
	// m.small.onnx <nil>
	// true
	// true what a run reads it never replaces: choose another name
}

// A size in a recipe or a file of settings is written as people do, and back as a number.
func ExampleByteSize() {
	var b cosetq.ByteSize
	for _, text := range []string{"12MB", "1.5 KiB", "700"} {
		if err := b.UnmarshalText([]byte(text)); err != nil {
			log.Fatal(err)
		}
		back, err := b.MarshalText()
		fmt.Printf("%s = %s, %v: %s\n", text, back, err, cosetq.Size(int64(b)))
	}
	fmt.Println(b.UnmarshalText([]byte("much")), int64(b))
	// Output:
	// 12MB = 12000000, <nil>: 12.00 MB
	// 1.5 KiB = 1536, <nil>: 1.5 kB
	// 700 = 700, <nil>: 700 B
	// "much" is no size: write 12000000, 12MB or 11.5MiB 700
}

// The reason codes, and what they mean to people.
func ExampleReasons() {
	for _, code := range cosetq.Reasons() {
		if cosetq.ReasonText(code) == "" {
			fmt.Println(code, "means nothing")
		}
		if code == "embedding" {
			fmt.Println(code+":", cosetq.ReasonText(code))
		}
	}
	fmt.Println(cosetq.OthersText([]cosetq.OtherWeights{{Op: "Gather", Bytes: 2_500_000, Reason: "embedding"}, {Op: "Conv", Bytes: 9000, Reason: "conv"}}))
	// Output:
	// embedding: a table of rows; --embedding takes it
	// Gather 2.50 MB (embedding), Conv 9.0 kB (conv)
}

// Losses and drops are in the units of what was measured.
func ExampleAllocation_LossUnit() {
	drop := 0.5
	a := cosetq.Allocation{Measure: "kl", PredictedLoss: 0.01, Metric: "top1_points", Drop: &drop}
	fmt.Println(a.PredictedLoss, a.LossUnit())
	fmt.Println(*a.Drop, a.DropUnit())
	// Output:
	// 0.01 nats of divergence
	// 0.5 points of top-1 accuracy
}
