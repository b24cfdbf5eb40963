//go:build cgo && linux

package ort_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// aboutProvider is the provider, asked about itself, and the device that it runs on.
func aboutProvider(t testing.TB) (library string, about *ort.Provider, device string) {
	t.Helper()
	library = testenv.Provider(t)
	about, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	if device, err = about.Device(); err != nil {
		t.Fatal(err)
	}
	t.Logf("on %s", device)
	return library, about, device
}

// distance is the largest difference between two tensors, relative to the largest number of the first.
func distance(t *testing.T, want, got *tensor.Tensor) float64 {
	t.Helper()
	if want.Type != got.Type || !slices.Equal(want.Shape, got.Shape) {
		t.Fatalf("%s%s, want %s%s", got.Type, tensor.FormatShape(got.Shape), want.Type, tensor.FormatShape(want.Shape))
	}
	n := want.Count()
	a, b := make([]float64, n), make([]float64, n)
	if err := errors.Join(want.Floats(a, 0, n), got.Floats(b, 0, n)); err != nil {
		t.Fatal(err)
	}
	var worst, largest float64
	for i := range a {
		if a[i] == b[i] || math.IsNaN(a[i]) && math.IsNaN(b[i]) {
			continue
		}
		if d := math.Abs(a[i] - b[i]); !(d <= worst) {
			worst = d
		}
	}
	for _, x := range a {
		if !math.IsInf(x, 0) && !math.IsNaN(x) {
			largest = max(largest, math.Abs(x))
		}
	}
	if worst == 0 {
		return 0
	}
	return worst / max(largest, 1e-30)
}

// randomInputs makes inputs of the sizes given by name, or else 2.
func randomInputs(t *testing.T, specs []tensor.Spec, seed uint64, sizes map[string]int64) map[string]*tensor.Tensor {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	inputs := map[string]*tensor.Tensor{}
	for _, s := range specs {
		shape := make([]int64, len(s.Shape))
		for i, d := range s.Shape {
			if shape[i] = d.Size; !d.Fixed() {
				shape[i] = 2
				if i == 1 {
					shape[i] = sizes["1"]
				}
			}
		}
		x, err := tensor.New(s.Type, shape...)
		if err != nil {
			t.Fatal(err)
		}
		switch s.Type {
		case tensor.Float32:
			v, _ := tensor.View[float32](x)
			for i := range v {
				v[i] = float32(rng.NormFloat64())
			}
		case tensor.Int64:
			v, _ := tensor.View[int64](x)
			for i := range v {
				v[i] = rng.Int64N(100)
			}
		default:
			t.Fatalf("input of %s", s.Type)
		}
		inputs[s.Name] = x
	}
	return inputs
}

// Every node of real models runs on the device, with the results of the CPU, and once the shapes are known nothing is copied
// in the middle of the graph.
func TestProviderRunsWholeModels(t *testing.T) {
	library, about, _ := aboutProvider(t)
	paths := map[string]string{}
	for _, name := range []string{"cora24_mnist_point", "optimum_tests_tiny", "vnn21_mnist_net_256x2", "vnn21_eran_mnist_relu_9_200",
		"vnn21_oval21_cifar_base_kw", "vnn23_vit_pgd_2_3_16", "vnn23_ml4acopf_118", "vnn23_nn4sys_mscn_128d"} {
		paths[name] = testenv.Data(t, "models/"+name+".onnx")
	}
	if testenv.Slow() {
		paths["vit_tiny_patch16_224"] = testenv.Data(t, "models/vit_tiny_patch16_224.onnx")
		paths["novel_llama_24m"] = testenv.Llama(t)
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			want, got := session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})
			lengths := []int64{7, 7, 5, 7, 7, 5, 5, 7, 5}
			for round, length := range lengths {
				inputs := randomInputs(t, want.Inputs(), uint64(round), map[string]int64{"1": length})
				a, err := want.Run(context.Background(), inputs)
				if err != nil {
					t.Fatal(err)
				}
				before := about.Traffic()
				b, err := got.Run(context.Background(), inputs)
				if err != nil {
					t.Fatal(err)
				}
				after := about.Traffic()
				if after.Runs != before.Runs+1 {
					t.Errorf("%d parts ran on the device, want the whole graph as one", after.Runs-before.Runs)
				}
				if round == 1 && (after.Uploads != before.Uploads || after.Downloads != before.Downloads) {
					t.Errorf("copies in the middle: %+v, then %+v", before, after)
				}
				// What runs often becomes one piece of work.
				if round == len(lengths)-1 && after.Repeats == before.Repeats {
					t.Error("the last run of many with the same shapes repeated no recording")
				}
				for _, out := range want.Outputs() {
					if d := distance(t, a[out.Name], b[out.Name]); !(d < 1e-5) {
						t.Errorf("%s is off by %g", out.Name, d)
					}
				}
			}
			nodes, err := openORT(t).Placement(context.Background(), path, ort.SessionOptions{Provider: library},
				randomInputs(t, want.Inputs(), 0, map[string]int64{"1": 3}))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes {
				if n.Provider != ort.ProviderName && !strings.HasPrefix(n.Op, "Memcpy") {
					t.Errorf("%s %s ran on %s: %s", n.Op, n.Node, n.Provider, n.Reason)
				}
			}
		})
	}
}

// Inputs that a program binds elsewhere from run to run, some or all of them, are those that a recording sees.
func TestProviderRepeatsWhereInputsAre(t *testing.T) {
	library, about, _ := aboutProvider(t)
	path := modelOf(t, 20, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("a", onnx.Float, "rows", 16), value("b", onnx.Float, "rows", 16), value("c", onnx.Float, "rows", 16)}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "rows", 16), value("z", onnx.Float, "rows", 16)}
		g.Initializers = append(g.Initializers, onnx.NewTensor("w", []int64{16, 16}, slices.Repeat([]float32{0.5, -1, 2, 0.25}, 64)))
		g.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"a", "w"}, []string{"p"}), onnx.NewNode("Add", []string{"p", "b"}, []string{"y"}),
			onnx.NewNode("Mul", []string{"y", "c"}, []string{"z"})}
		for i, n := range g.Nodes {
			n.Name = fmt.Sprintf("node%d", i)
		}
	})
	rng := rand.New(rand.NewPCG(3, 3))
	fresh := func(rows int64) *tensor.Tensor {
		v := make([]float32, rows*16)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return tensor.Of(v, rows, 16)
	}
	o := ort.SessionOptions{Threads: 1}
	want := session(t, path, o)
	o.Provider = library
	for _, moving := range [][]string{{}, {"b"}, {"a", "c"}, {"a", "b", "c"}, {"first b", "c"}} {
		got := session(t, path, o)
		before := about.Traffic()
		inputs := map[string]*tensor.Tensor{"a": fresh(5), "b": fresh(5), "c": fresh(5)}
		for round := range 14 {
			for _, name := range moving {
				if first, ok := strings.CutPrefix(name, "first "); ok && round == 5 {
					inputs[first] = fresh(5)
				} else if !ok && round > 7 {
					inputs[name] = fresh(5)
				}
			}
			// What is bound stays where it is, and its numbers change.
			for _, x := range inputs {
				v, err := tensor.View[float32](x)
				if err != nil {
					t.Fatal(err)
				}
				v[rng.IntN(len(v))] = float32(round)
			}
			a, err := want.Run(context.Background(), inputs)
			if err != nil {
				t.Fatal(err)
			}
			b, err := got.Run(context.Background(), inputs)
			if err != nil {
				t.Fatal(err)
			}
			for name := range a {
				if d := distance(t, a[name], b[name]); !(d < 1e-5) {
					t.Errorf("moving %v, run %d: %s is off by %g", moving, round, name, d)
				}
			}
		}
		if about.Traffic().Repeats-before.Repeats < 6 {
			t.Errorf("moving %v: %d of 14 runs repeated a recording", moving, about.Traffic().Repeats-before.Repeats)
		}
	}
}

// Runs of one session at the same time, of two shapes, do not meet in each other's memory, be they recorded or not.
func TestProviderRunsAtTheSameTime(t *testing.T) {
	library := testenv.Provider(t)
	path := testenv.Data(t, "models/optimum_tests_tiny.onnx")
	want, got := session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})
	type job struct{ inputs, outputs map[string]*tensor.Tensor }
	var jobs []job
	for seed := range uint64(6) {
		inputs := randomInputs(t, want.Inputs(), seed, map[string]int64{"1": 4 + int64(seed%2)})
		outputs, err := want.Run(context.Background(), inputs)
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, job{inputs, outputs})
	}
	var group sync.WaitGroup
	for _, j := range jobs {
		group.Go(func() {
			for range 20 {
				b, err := got.Run(context.Background(), j.inputs)
				if err != nil {
					t.Error(err)
					return
				}
				for name, x := range j.outputs {
					if d := distance(t, x, b[name]); !(d < 1e-5) {
						t.Errorf("%s is off by %g", name, d)
						return
					}
				}
			}
		})
	}
	group.Wait()
}

// A node without a kernel goes to the CPU, alone, with the reason; those around it stay on the device. What it reads has been computed by
// then, however long that takes.
func TestProviderLeavesNodesToTheCPU(t *testing.T) {
	library := testenv.Provider(t)
	n := int64(64)
	if about, err := ort.OpenProvider(library); err != nil {
		t.Fatal(err)
	} else if device, err := about.Device(); err != nil {
		t.Fatal(err)
	} else if device != "host" {
		n = 2048
	}
	// Small integers, whose products are exact.
	integers := func(seed, count int64) []float32 {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		v := make([]float32, count)
		for i := range v {
			v[i] = float32(rng.IntN(5) - 2)
		}
		return v
	}
	path := model(t, func(g *onnx.Graph) {
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{n, n}, integers(1, n*n))}
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", int(n))}
		g.Nodes = []*onnx.Node{
			onnx.NewNode("MatMul", []string{"x", "w"}, []string{"a"}),
			onnx.NewNode("Hardmax", []string{"a"}, []string{"b"}),
			onnx.NewNode("MatMul", []string{"b", "w"}, []string{"c"}),
			onnx.NewNode("Add", []string{"c", "a"}, []string{"y"}),
		}
		for _, n := range g.Nodes {
			n.Name = n.OpType + n.Outputs[0]
		}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", int(n))}
	})
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled}
	want := session(t, path, o)
	o.Provider = library
	got := session(t, path, o)
	var x *tensor.Tensor
	for round := range int64(6) {
		x = tensor.Of(integers(2+round, n*n), n, n)
		if d := distance(t, run(t, want, x)["y"], run(t, got, x)["y"]); d != 0 {
			t.Errorf("round %d: off by %g", round, d)
		}
	}
	nodes, err := openORT(t).Placement(context.Background(), path, o, map[string]*tensor.Tensor{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]string{}
	for _, n := range nodes {
		on[n.Op] += n.Provider + n.Reason
	}
	if on["MatMul"] != ort.ProviderName+ort.ProviderName || on["Add"] != ort.ProviderName {
		t.Errorf("placement %v", on)
	}
	if on["Hardmax"] != "CPUExecutionProvider"+"no GPU kernel for this operator" {
		t.Errorf("Hardmax: %s", on["Hardmax"])
	}
}

// A batch of nothing gives outputs of nothing, also where an open dimension follows from those that are not zero, which ONNX Runtime's own
// Reshape refuses unless it has been folded away.
func TestProviderRunsEmptyBatches(t *testing.T) {
	library := testenv.Provider(t)
	path := model(t, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", 6)}
		g.Initializers = []*onnx.Tensor{
			onnx.NewTensor("w", []int64{3, 3}, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9}),
			onnx.NewTensor("halves", []int64{3}, []int64{0, -1, 3}), onnx.NewTensor("rows", []int64{2}, []int64{-1, 6}),
		}
		g.Nodes = []*onnx.Node{
			onnx.NewNode("Reshape", []string{"x", "halves"}, []string{"a"}),
			onnx.NewNode("MatMul", []string{"a", "w"}, []string{"b"}),
			onnx.NewNode("Softmax", []string{"b"}, []string{"c"}),
			onnx.NewNode("Reshape", []string{"c", "rows"}, []string{"y"}),
		}
		for _, n := range g.Nodes {
			n.Name = n.OpType + n.Outputs[0]
		}
		g.Outputs = []*onnx.ValueInfo{value("b", onnx.Float, "batch", 2, 3), value("y", onnx.Float, "batch", 6)}
	})
	want, got := session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})
	for range 4 {
		x := tensor.Of([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 2, 6)
		a, b := run(t, want, x), run(t, got, x)
		for name := range a {
			if d := distance(t, a[name], b[name]); !(d < 1e-6) {
				t.Errorf("%s is off by %g", name, d)
			}
		}
		none := run(t, got, tensor.Of([]float32{}, 0, 6))
		if !slices.Equal(none["b"].Shape, []int64{0, 2, 3}) || !slices.Equal(none["y"].Shape, []int64{0, 6}) {
			t.Errorf("of nothing: %v and %v", none["b"].Shape, none["y"].Shape)
		}
	}
}

// Elementwise operators in any order, over shapes that are broadcast, of values that are used once, more often or put out, are what they
// are on the CPU, however the provider joins them.
func TestProviderJoinsElementwise(t *testing.T) {
	library, about, _ := aboutProvider(t)
	_, before := about.Joined()
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 11))
		width := []int64{6, 8, 1, 32}[seed%4]
		floats := func(count int64) []float32 {
			v := make([]float32, count)
			for i := range v {
				v[i] = float32(rng.NormFloat64())
			}
			return v
		}
		path := model(t, func(g *onnx.Graph) {
			g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", 4, int(width))}
			g.Initializers = []*onnx.Tensor{
				onnx.NewTensor("row", []int64{width}, floats(width)), onnx.NewTensor("column", []int64{4, 1}, floats(4)),
				onnx.NewTensor("one", []int64{}, floats(1)), onnx.NewTensor("all", []int64{1, 4, width}, floats(4*width)),
				onnx.NewTensor("truths", []int64{4, 1}, []bool{true, false, false, true}),
			}
			// Recent values come up more often, so that there are long chains.
			values := []string{"row", "column", "one", "all", "x"}
			pick := func() string { return values[max(rng.IntN(len(values)), rng.IntN(len(values)))] }
			for i := range 4 + rng.IntN(16) {
				out := fmt.Sprintf("v%d", i)
				var n *onnx.Node
				switch rng.IntN(5) {
				case 0:
					n = onnx.NewNode([]string{"Sigmoid", "Tanh", "Neg", "Abs", "Relu", "LeakyRelu", "Elu"}[rng.IntN(7)], []string{pick()}, []string{out})
				case 1:
					truth := "truths"
					if rng.IntN(2) == 0 {
						truth = out + "nan"
						g.Nodes = append(g.Nodes, onnx.NewNode("IsNaN", []string{pick()}, []string{truth}))
						g.Nodes[len(g.Nodes)-1].Name = truth
					}
					n = onnx.NewNode("Where", []string{truth, pick(), pick()}, []string{out})
				default:
					n = onnx.NewNode([]string{"Add", "Sub", "Mul", "Max", "Min"}[rng.IntN(5)], []string{pick(), pick()}, []string{out})
				}
				n.Name = out
				g.Nodes = append(g.Nodes, n)
				values = append(values, out)
			}
			g.Outputs = []*onnx.ValueInfo{{Name: values[len(values)-1]}, {Name: values[len(values)-3]}}
			for _, out := range g.Outputs {
				*out = *value(out.Name, onnx.Float)
			}
		})
		o := ort.SessionOptions{Optimization: ort.OptimizeDisabled}
		want := session(t, path, o)
		o.Provider, o.Config = library, map[string]string{"ai.coset.gpu_nodes": "all"}
		got := session(t, path, o)
		for range 4 {
			x := tensor.Of(floats(3*4*width), 3, 4, width)
			a, b := run(t, want, x), run(t, got, x)
			for name := range a {
				if d := distance(t, a[name], b[name]); !(d < 1e-5) {
					t.Errorf("seed %d: %s is off by %g", seed, name, d)
				}
			}
		}
	}
	const joined = 173
	if _, after := about.Joined(); after-before != joined {
		t.Errorf("%d nodes of these graphs became part of others, want %d", after-before, joined)
	}
}

// What the provider takes of ONNX's own tests of single operators, it computes as the CPU does.
func TestProviderOperators(t *testing.T) {
	library := testenv.Provider(t)
	dirs, err := filepath.Glob(filepath.Join(testenv.Backend(t), "node", "*"))
	if err != nil || len(dirs) < 500 {
		t.Fatalf("%d tests of operators, %v", len(dirs), err)
	}
	taken := 0
	for i, dir := range dirs {
		if !testenv.Slow() && i%6 != 0 || strings.Contains(dir, "bernoulli") { // made of random numbers
			continue
		}
		if compareOperator(t, dir, library) {
			taken++
		}
	}
	t.Logf("%d tests ran on the device", taken)
	if taken < 50 {
		t.Errorf("only %d of the tests ran on the device", taken)
	}
}

// compareOperator tells whether the provider took anything of the model in a folder.
func compareOperator(t *testing.T, dir, library string) bool {
	t.Helper()
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
	want, err := openORT(t).NewSession(filepath.Join(dir, "model.onnx"), o)
	if err != nil {
		return false // not for this ONNX Runtime
	}
	defer want.Close()
	inputs := map[string]*tensor.Tensor{}
	for i, s := range want.Inputs() {
		if inputs[s.Name], err = recorded(filepath.Join(dir, "test_data_set_0", fmt.Sprintf("input_%d.pb", i))); err != nil {
			return false // not a tensor
		}
	}
	a, err := want.Run(context.Background(), inputs)
	if err != nil {
		return false
	}
	about, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	o.Provider, o.Config = library, map[string]string{"ai.coset.gpu_nodes": "all"}
	got, err := openORT(t).NewSession(filepath.Join(dir, "model.onnx"), o)
	if err != nil {
		t.Errorf("%s: %v", dir, err)
		return false
	}
	defer got.Close()
	before := about.Traffic().Runs
	b, err := got.Run(context.Background(), inputs)
	if err != nil {
		t.Errorf("%s: %v", dir, err)
		return false
	}
	for name, x := range a {
		limit := 5e-5
		if x.Type == tensor.Float16Type {
			limit = 2e-3
		}
		if x.Floats(make([]float64, x.Count()), 0, x.Count()) != nil { // of a type without numbers, such as float8
			if !bytes.Equal(x.Data, b[name].Data) {
				t.Errorf("%s: %s differs", dir, name)
			}
			continue
		}
		if d := distance(t, x, b[name]); !(d < limit) {
			t.Errorf("%s: %s is off by %g", dir, name, d)
		}
	}
	return about.Traffic().Runs > before
}

// recorded reads a file with a TensorProto: it becomes the initializer of a model of nothing else.
func recorded(path string) (*tensor.Tensor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const graphField, initializerField = 7, 5
	graph := protowire.AppendBytes(protowire.AppendTag(nil, initializerField, protowire.BytesType), b)
	m, err := onnx.Parse(protowire.AppendBytes(protowire.AppendTag(nil, graphField, protowire.BytesType), graph))
	if err != nil {
		return nil, err
	}
	c := m.Graph.Initializers[0]
	data, err := c.Bytes()
	if err != nil {
		return nil, err
	}
	x, err := tensor.New(tensor.Type(c.DataType), c.Dims...)
	if err != nil {
		return nil, err
	}
	copy(x.Data, data)
	return x, nil
}

func TestOpenProviderNeedsOne(t *testing.T) {
	if _, err := ort.OpenProvider(filepath.Join(t.TempDir(), "none.so")); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ort.OpenProvider(testenv.Ops(t)); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("another library: %v", err)
	}
}

// Where there is no driver the GPU library says so, and which one it needs: CUDA's own words are of versions that do not fit.
func TestGPULibraryWithoutADriver(t *testing.T) {
	library, err := cudaops.FindCUDALibrary("")
	if err != nil {
		t.Skip(err)
	}
	p, err := ort.OpenProvider(library)
	if err != nil {
		t.Fatal(err)
	}
	if testenv.HasGPU() {
		t.Skip("there is a driver")
	}
	want := "no NVIDIA driver (libcuda.so.1), or one older than 580"
	if _, err := p.Device(); !errors.Is(err, ort.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ort.OpenCUDAEncoder(library, codec); !errors.Is(err, ort.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
