package finetune_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

const side = 32

// square is a weight [side × side] as the nodes hold it, Y = A·W.
func square(rng *rand.Rand) []float32 {
	w := make([]float32, side*side)
	for i := range w {
		w[i] = float32(rng.NormFloat64() / math.Sqrt(side))
	}
	return w
}

// times returns a·w of rows.
func times(a, w []float32) []float32 {
	y := make([]float32, len(a))
	for r := 0; r < len(a); r += side {
		for k, x := range a[r : r+side] {
			for n := range side {
				y[r+n] += x * w[k*side+n]
			}
		}
	}
	return y
}

// twoLayers returns y = relu(h)·w2, where h is x·w1, with weights of 2 bits that are inputs of the graph, and a teacher that needs
// no runtime.
func twoLayers(t *testing.T) (*finetune.Model, *finetune.Teacher) {
	t.Helper()
	rng := rand.New(rand.NewPCG(80, 81))
	w1, w2 := square(rng), square(rng)
	m := onnx.NewModel(8, 17, "two")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", side)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", side)}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w1", []int64{side, side}, w1), onnx.NewTensor("w2", []int64{side, side}, w2)}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x", "w1"}, []string{"h"}),
		onnx.NewNode("Relu", []string{"h"}, []string{"r"}),
		onnx.NewNode("MatMul", []string{"r", "w2"}, []string{"y"}),
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	codec, err := lattice.Preset(2)
	if err != nil {
		t.Fatal(err)
	}
	var coded []rewrite.Replacement
	for _, s := range sites {
		r, err := quant.Quantize(t.Context(), s.Weight, quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		coded = append(coded, rewrite.Replacement{Site: s, Matrix: r.Matrix})
	}
	if _, err := rewrite.Apply(m, coded, "test"); err != nil {
		t.Fatal(err)
	}
	exposed, err := rewrite.Expose(m)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	model := &finetune.Model{Graph: m, Load: func(m *onnx.Model, _ bool) (grad.Session, error) {
		b, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		return rt.NewSessionFromBytes(b, "", ort.SessionOptions{Threads: 1})
	}}
	for _, e := range exposed {
		model.Weights = append(model.Weights, finetune.Weight{Input: e.Input, Matrix: e.Matrix, Coder: e.Matrix.Codec})
	}
	return model, &finetune.Teacher{
		Output: "y",
		Has:    func(name string) bool { return name == "h" || name == "y" },
		Value: func(_ context.Context, inputs map[string]*tensor.Tensor, cut, name string) (*tensor.Tensor, error) {
			from := inputs[map[string]string{"": "x", "h": "h"}[cut]]
			v, err := tensor.View[float32](from)
			if err != nil {
				return nil, err
			}
			if cut == "" {
				v = times(v, w1)
			}
			if name == "y" {
				r := make([]float32, len(v))
				for i, x := range v {
					r[i] = max(x, 0)
				}
				v = times(r, w2)
			}
			return tensor.Of(v, from.Shape...), nil
		},
	}
}

// A program trains block by block with a teacher of its own making, and knows which block is at work.
func TestTrainBlocks(t *testing.T) {
	m, teacher := twoLayers(t)
	data, err := calib.Open("random:200", []tensor.Spec{{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1}, {Size: side}}}}, calib.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	before, after := map[int]float64{}, map[int]float64{}
	o := finetune.Options{Steps: 120, Batch: 8, Rate: 0.05, Every: 15, Threads: 1, Report: func(e finetune.Event) {
		if e.Blocks != 2 {
			t.Errorf("%d blocks, want 2", e.Blocks)
		}
		if _, ok := before[e.Block]; !ok {
			before[e.Block] = e.HeldOut
		}
		if e.Best {
			after[e.Block] = e.HeldOut
		}
	}}
	r, err := finetune.TrainBlocks(t.Context(), m, data, teacher, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Matrices) != 2 || r.Steps != 120 || r.Best >= 0.95*r.Start || r.HeldOut == 0 {
		t.Errorf("%d weights in %d steps, loss %v -> %v on %d samples", len(r.Matrices), r.Steps, r.Start, r.Best, r.HeldOut)
	}
	for block := 1; block <= 2; block++ {
		if !(after[block] < before[block]) {
			t.Errorf("block %d: loss %v -> %v", block, before[block], after[block])
		}
	}

	if _, err := finetune.TrainBlocks(t.Context(), m, data, nil, o); err == nil {
		t.Error("blocks that learn from labels: no error")
	}
	var option *finetune.OptionError
	if _, err := finetune.TrainBlocks(t.Context(), m, data, teacher, finetune.Options{Batch: 8}); !errors.As(err, &option) {
		t.Errorf("neither steps nor a time: %v", err)
	}
}

// What a training may leave goes, whichever of it is there; what else stands in its place stays.
func TestRemoveCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.ckpt")
	files := finetune.CheckpointFiles(path)
	for n := range 1 << len(files) {
		for i, f := range files {
			if n>>i&1 == 1 {
				if err := os.WriteFile(f, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := finetune.RemoveCheckpoint(path); err != nil {
			t.Errorf("files %b: %v", n, err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
			t.Errorf("files %b: %v left, %v", n, left, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(path, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := finetune.RemoveCheckpoint(path); err == nil {
		t.Error("a folder with something in it: no error")
	}
}
