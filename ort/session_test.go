//go:build cgo && linux

package ort_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

func openORT(t testing.TB) *ort.Runtime {
	t.Helper()
	r, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// value describes a graph input or output; strings are symbolic dimensions, and no dims at all a scalar.
func value(name string, dt onnx.DataType, dims ...any) *onnx.ValueInfo {
	shape := &onnx.Shape{}
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape.Dims = append(shape.Dims, &onnx.Dim{Value: int64(d), HasValue: true})
		case string:
			shape.Dims = append(shape.Dims, &onnx.Dim{Param: d})
		}
	}
	return &onnx.ValueInfo{Name: name, Type: &onnx.Type{Tensor: &onnx.TensorType{ElemType: dt, Shape: shape}}}
}

// model writes a model with one float input x [batch,3] and returns its path.
func model(t testing.TB, build func(g *onnx.Graph)) string {
	t.Helper()
	return modelOf(t, 17, build)
}

// modelOf is model with a version of ONNX's operators.
func modelOf(t testing.TB, opset int64, build func(g *onnx.Graph)) string {
	t.Helper()
	m := onnx.NewModel(8, opset, "test")
	m.Graph.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", 3)}
	build(m.Graph)
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func session(t testing.TB, path string, o ort.SessionOptions) *ort.Session {
	t.Helper()
	s, err := openORT(t).NewSession(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func run(t testing.TB, s *ort.Session, x *tensor.Tensor) map[string]*tensor.Tensor {
	t.Helper()
	out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryElementTypeComesOut(t *testing.T) {
	types := []onnx.DataType{onnx.Float, onnx.Double, onnx.Float16, onnx.BFloat16, onnx.Int8, onnx.Int16, onnx.Int32, onnx.Int64,
		onnx.Uint8, onnx.Uint16, onnx.Uint32, onnx.Uint64, onnx.Bool}
	path := model(t, func(g *onnx.Graph) {
		for _, dt := range types {
			g.Nodes = append(g.Nodes, onnx.NewNode("Cast", []string{"x"}, []string{dt.String()}, &onnx.Attribute{Name: "to", Type: onnx.AttrInt, I: int64(dt)}))
			g.Outputs = append(g.Outputs, value(dt.String(), dt, "batch", 3))
		}
	})
	s := session(t, path, ort.SessionOptions{Threads: 1})
	for _, batch := range []int64{2, 0, 1} {
		x := make([]float32, batch*3)
		for i := range x {
			x[i] = float32(i % 2)
		}
		out := run(t, s, tensor.Of(x, batch, 3))
		for _, spec := range s.Outputs() {
			y := out[spec.Name]
			if y == nil || y.Type != spec.Type || fmt.Sprint(y.Shape) != fmt.Sprint([]int64{batch, 3}) {
				t.Fatalf("%s: got %+v", spec, y)
			}
			got := make([]float64, len(x))
			if err := y.Floats(got, 0, int64(len(x))); err != nil {
				t.Fatal(err)
			}
			for i, v := range got {
				if v != float64(x[i]) {
					t.Errorf("%s element %d is %g, want %g", spec, i, v, x[i])
				}
			}
		}
	}
}

func TestScalarsAndFloat16GoInAndOut(t *testing.T) {
	path := model(t, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float16, "n"), value("s", onnx.Float16)}
		g.Nodes = []*onnx.Node{
			onnx.NewNode("Mul", []string{"x", "s"}, []string{"m"}),
			onnx.NewNode("ReduceSum", []string{"m"}, []string{"y"}, &onnx.Attribute{Name: "keepdims", Type: onnx.AttrInt, I: 0}),
		}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float16)}
	})
	half := func(v float32) tensor.Float16 { return tensor.ToFloat16(v) }
	out, err := session(t, path, ort.SessionOptions{}).Run(context.Background(), map[string]*tensor.Tensor{
		"x": tensor.Of([]tensor.Float16{half(1), half(2), half(3)}, 3), "s": tensor.Of([]tensor.Float16{half(0.5)})})
	if err != nil {
		t.Fatal(err)
	}
	y, err := tensor.View[tensor.Float16](out["y"])
	if err != nil || len(out["y"].Shape) != 0 || y[0].Float32() != 3 {
		t.Errorf("got %+v, %v", out["y"], err)
	}
}

// Reports name what ran: a version that is new enough, of the library that was asked for.
func TestRuntimeTellsWhatItIs(t *testing.T) {
	r := openORT(t)
	var have, least [2]int
	if _, err := fmt.Sscanf(r.Version(), "%d.%d", &have[0], &have[1]); err != nil {
		t.Fatalf("version %q: %v", r.Version(), err)
	}
	if _, err := fmt.Sscanf(ort.MinVersion, "%d.%d", &least[0], &least[1]); err != nil {
		t.Fatal(err)
	}
	if slices.Compare(have[:], least[:]) < 0 {
		t.Errorf("version %s was loaded, %s is the oldest that serves", r.Version(), ort.MinVersion)
	}
	if _, err := os.Stat(r.Library()); err != nil {
		t.Error(err)
	}
}

func TestSignatureKeepsSymbolicNames(t *testing.T) {
	path := model(t, func(g *onnx.Graph) {
		g.Inputs = append(g.Inputs, value("w", onnx.Float, 3))
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{3}, []float32{1, 2, 3})}
		g.Nodes = []*onnx.Node{onnx.NewNode("Add", []string{"x", "w"}, []string{"y"})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
	s := session(t, path, ort.SessionOptions{})
	if got := fmt.Sprint(s.Inputs(), s.Outputs()); got != "[x float32[batch,3]] [y float32[batch,3]]" {
		t.Errorf("an initializer that is listed as an input is none: %s", got)
	}
	y, err := tensor.View[float32](run(t, s, tensor.Of([]float32{1, 1, 1}, 1, 3))["y"])
	if err != nil || y[2] != 4 {
		t.Errorf("%v, %v", y, err)
	}
}

// The model builder of ONNX Runtime GenAI declares neither the width of a head nor how long a cache of a sliding window must be.
func TestCachesTakeTheirSizesFromAttention(t *testing.T) {
	cache := []any{"batch", 2, "past_length", "width"}
	path := model(t, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("qkv", onnx.Float, "batch", "tokens", 64), value("past_key", onnx.Float, cache...), value("past_value", onnx.Float, cache...),
			value("seen", onnx.Int32, "batch"), value("total", onnx.Int32)}
		attention := onnx.NewNode("GroupQueryAttention", []string{"qkv", "", "", "past_key", "past_value", "seen", "total"}, []string{"a", "key", "value"},
			&onnx.Attribute{Name: "num_heads", Type: onnx.AttrInt, I: 4}, &onnx.Attribute{Name: "kv_num_heads", Type: onnx.AttrInt, I: 2},
			&onnx.Attribute{Name: "local_window_size", Type: onnx.AttrInt, I: 6}, &onnx.Attribute{Name: "sliding_window_cache", Type: onnx.AttrInt, I: 1})
		attention.Domain = "com.microsoft"
		g.Nodes = []*onnx.Node{attention, onnx.NewNode("Identity", []string{"a"}, []string{"y"})}
		g.ValueInfo = []*onnx.ValueInfo{value("a", onnx.Float, "batch", "tokens", 32)}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", "tokens", 32), value("key", onnx.Float, cache...), value("value", onnx.Float, cache...)}
	})
	s := session(t, path, ort.SessionOptions{})
	data, err := calib.NewRandom(1, s.Inputs(), map[string]int64{"total": 16}, 0)
	if err != nil {
		t.Fatal(err)
	}
	sample, err := data.Sample(0)
	if err != nil {
		t.Fatal(err)
	}
	sample.Inputs["seen"] = tensor.Of([]int32{15}, 1)
	out, err := s.Run(context.Background(), sample.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(out["y"].Shape, out["key"].Shape); got != "[1 16 32] [1 2 6 8]" {
		t.Errorf("shapes %s", got)
	}
}

// identity is a model that answers what it is given.
func identity(t testing.TB) string {
	return model(t, func(g *onnx.Graph) {
		g.Nodes = []*onnx.Node{onnx.NewNode("Identity", []string{"x"}, []string{"y"})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
}

func TestInputErrors(t *testing.T) {
	s := session(t, identity(t), ort.SessionOptions{})
	ok := tensor.Of([]float32{1, 2, 3}, 1, 3)
	for _, c := range []struct {
		in   map[string]*tensor.Tensor
		want string
	}{
		{nil, "x float32[batch,3] was not given"},
		{map[string]*tensor.Tensor{"x": ok, "z": ok}, `no input "z"`},
		{map[string]*tensor.Tensor{"x": tensor.Of([]int64{1, 2, 3}, 1, 3)}, "int64[1,3] was given"},
		{map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2}, 1, 2)}, "float32[1,2] was given"},
		{map[string]*tensor.Tensor{"x": {Type: tensor.Float32, Shape: []int64{1, 3}, Data: make([]byte, 8)}}, "8 bytes do not fill"},
	} {
		if _, err := s.Run(context.Background(), c.in); !errors.Is(err, ort.ErrInput) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestOutputsThatAreNoNumbers(t *testing.T) {
	for name, change := range map[string]func(g *onnx.Graph){
		"sequence": func(g *onnx.Graph) {
			g.Nodes = []*onnx.Node{onnx.NewNode("SequenceConstruct", []string{"x"}, []string{"y"})}
			g.Outputs = []*onnx.ValueInfo{{Name: "y", Type: &onnx.Type{Sequence: &onnx.SequenceType{ElemType: value("", onnx.Float).Type}}}}
		},
		"strings": func(g *onnx.Graph) {
			g.Nodes = []*onnx.Node{onnx.NewNode("Cast", []string{"x"}, []string{"y"}, onnx.IntAttr("to", int64(onnx.String)))}
			g.Outputs = []*onnx.ValueInfo{value("y", onnx.String, 1, 3)}
		},
	} {
		_, err := session(t, model(t, change), ort.SessionOptions{}).Run(context.Background(), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)})
		if !errors.Is(err, ort.ErrOutput) {
			t.Errorf("%s as an output gave %v", name, err)
		}
	}
}

func TestModelsThatDoNotLoad(t *testing.T) {
	r := openORT(t)
	unknown := model(t, func(g *onnx.Graph) {
		g.Nodes = []*onnx.Node{onnx.NewNode("NoSuchOp", []string{"x"}, []string{"y"})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
	if _, err := r.NewSession(unknown, ort.SessionOptions{}); !errors.Is(err, ort.ErrModel) || !strings.Contains(err.Error(), "NoSuchOp") {
		t.Errorf("unknown operator: %v", err)
	}
	if _, err := r.NewSession(filepath.Join(t.TempDir(), "none.onnx"), ort.SessionOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := r.NewSession(identity(t), ort.SessionOptions{OpsLibrary: "none.so"}); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("missing ops library: %v", err)
	}
	if _, err := r.NewSession(identity(t), ort.SessionOptions{OpsLibrary: r.Library()}); !errors.Is(err, ort.ErrUnavailable) {
		t.Errorf("a library that is no ops library: %v", err)
	}
}

func TestRunsStopWithTheirContext(t *testing.T) {
	s := session(t, identity(t), ort.SessionOptions{})
	in := map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := s.Run(ctx, in); err != nil {
		t.Errorf("a live context: %v", err)
	}
	cancel()
	if _, err := s.Run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("a dead context: %v", err)
	}
}

func TestALongRunIsCancelled(t *testing.T) {
	// A loop that would run for hours.
	path := model(t, func(g *onnx.Graph) {
		body := &onnx.Graph{Name: "body", Inputs: []*onnx.ValueInfo{value("i", onnx.Int64), value("c", onnx.Bool), value("v", onnx.Float, "batch", 3)},
			Nodes: []*onnx.Node{
				onnx.NewNode("Identity", []string{"c"}, []string{"c2"}),
				onnx.NewNode("Cos", []string{"v"}, []string{"v2"}),
			},
			Outputs: []*onnx.ValueInfo{value("c2", onnx.Bool), value("v2", onnx.Float, "batch", 3)}}
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("n", []int64{}, []int64{1 << 40})}
		g.Nodes = []*onnx.Node{onnx.NewNode("Loop", []string{"n", "", "x"}, []string{"y"}, &onnx.Attribute{Name: "body", Type: onnx.AttrGraph, G: body})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
	s := session(t, path, ort.SessionOptions{Threads: 1})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := s.Run(ctx, map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)})
		done <- err
	}()
	time.Sleep(100 * time.Millisecond) // well inside the loop
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

func TestConcurrentRunsAndClose(t *testing.T) {
	s := session(t, identity(t), ort.SessionOptions{Threads: 1})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			y, err := tensor.View[float32](run(t, s, tensor.Of([]float32{float32(i), 0, 0}, 1, 3))["y"])
			if err != nil || y[0] != float32(i) {
				t.Errorf("run %d answered %v, %v", i, y, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Run(context.Background(), nil); err == nil {
		t.Error("a closed session ran")
	}
}

// Names of nodes may hold anything; ONNX Runtime's profile has them as they are.
func TestPlacement(t *testing.T) {
	const second = "a line,\nanother\r\n\tof \"quotes\", C:\\new and \x01"
	path := model(t, func(g *onnx.Graph) {
		a, b := onnx.NewNode("Cos", []string{"x"}, []string{"m"}), onnx.NewNode("Sin", []string{"m"}, []string{"y"})
		a.Name, b.Name = "first", second
		g.Nodes = []*onnx.Node{a, b}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3)}
	})
	got, err := openORT(t).Placement(context.Background(), path, ort.SessionOptions{}, map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)})
	if err != nil || len(got) != 2 || got[0].Node != "first" || got[0].Op != "Cos" || got[1].Node != second || got[1].Op != "Sin" || got[1].Provider != "CPUExecutionProvider" || got[1].Calls != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func ExampleOpen() {
	r, err := ort.Open(ort.Options{})
	if err != nil {
		fmt.Println(err) // says what was looked for, where, and the command that mends it
		return
	}
	s, err := r.NewSession("model.onnx", ort.SessionOptions{Threads: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": tensor.Of([]float32{1, 2, 3}, 1, 3)})
	fmt.Println(out, err)
}

// Outputs go where the caller wants them, or the run fails and says why.
func TestRunInto(t *testing.T) {
	path := model(t, func(g *onnx.Graph) {
		g.Nodes = []*onnx.Node{onnx.NewNode("Neg", []string{"x"}, []string{"y"}), onnx.NewNode("Abs", []string{"y"}, []string{"z"})}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", 3), value("z", onnx.Float, "batch", 3)}
	})
	for name, o := range map[string]ort.SessionOptions{"cpu": {}, "provider": {Provider: testenv.Provider(t), Config: map[string]string{"ai.coset.gpu_nodes": "all"}}} {
		s, err := openORT(t).NewSession(path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		y := tensor.Of(make([]float32, 6), 2, 3)
		for _, x := range [][]float32{{1, -2, 3, 4, -5, 6}, {6, 5, 4, 3, 2, -1}} {
			got, err := s.RunInto(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of(x, 2, 3)}, map[string]*tensor.Tensor{"y": y})
			if err != nil {
				t.Fatal(err)
			}
			if got["y"] != y || got["z"] == nil {
				t.Fatalf("%s: outputs %v", name, got)
			}
			there, err := tensor.View[float32](y)
			z, err2 := tensor.View[float32](got["z"])
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			for i, v := range x {
				if there[i] != -v || z[i] != max(v, -v) {
					t.Errorf("%s: of %v came %v and %v", name, x, there, z)
				}
			}
		}
		for what, into := range map[string]map[string]*tensor.Tensor{
			"another name":  {"w": y},
			"another shape": {"y": tensor.Of(make([]float32, 9), 3, 3)},
			"another type":  {"y": tensor.Of(make([]int64, 6), 2, 3)},
		} {
			if _, err := s.RunInto(t.Context(), map[string]*tensor.Tensor{"x": tensor.Of(make([]float32, 6), 2, 3)}, into); err == nil {
				t.Errorf("%s, %s: no error", name, what)
			}
		}
	}
}
