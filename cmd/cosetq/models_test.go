package main

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cosetq/cosetq/onnx"
)

// modelKinds write the models that scripts ask for, good ones first.
var modelKinds = map[string]func(path string) error{
	"mlp": func(path string) error { return save(path, mlp(96, 64, 32), onnx.SaveOptions{}) },
	"external": func(path string) error {
		return save(path, mlp(256, 256, 64), onnx.SaveOptions{External: onnx.ExternalAlways})
	},
	// Its weights lie where the data of another model, q.onnx, would go.
	"squatter": func(path string) error {
		return save(path, mlp(256, 256, 64), onnx.SaveOptions{External: onnx.ExternalAlways, DataName: "q.onnx.data"})
	},
	"medium":   func(path string) error { return save(path, mlp(256, 256, 64), onnx.SaveOptions{}) },
	"large":    func(path string) error { return save(path, mlp(2048, 2048, 2048), onnx.SaveOptions{}) },
	"tied":     func(path string) error { return save(path, tied(), onnx.SaveOptions{}) },
	"wordy":    func(path string) error { return save(path, wordy(), onnx.SaveOptions{}) },
	"mixed":    func(path string) error { return save(path, mixed(), onnx.SaveOptions{}) },
	"conv":     func(path string) error { return save(path, conv(), onnx.SaveOptions{}) },
	"half":     func(path string) error { return save(path, half(), onnx.SaveOptions{}) },
	"states":   func(path string) error { return save(path, states(), onnx.SaveOptions{}) },
	"escapes":  func(path string) error { return save(path, escapes(), onnx.SaveOptions{}) },
	"bytes":    func(path string) error { return save(path, noText(), onnx.SaveOptions{}) },
	"nan":      func(path string) error { return save(path, withNaN(), onnx.SaveOptions{}) },
	"all-nan":  func(path string) error { return save(path, allNaN(), onnx.SaveOptions{}) },
	"small":    func(path string) error { return save(path, mlp(4, 3), onnx.SaveOptions{}) },
	"no-layer": func(path string) error { return save(path, relu(), onnx.SaveOptions{}) },

	// ONNX Runtime knows no such operator.
	"foreign": func(path string) error {
		m := mlp(96, 64, 32)
		first := m.Graph.Nodes[0]
		n := onnx.NewNode("Unheard", []string{first.Inputs[0]}, []string{"heard"})
		first.Inputs[0] = "heard"
		m.Graph.Nodes = append([]*onnx.Node{n}, m.Graph.Nodes...)
		return save(path, m, onnx.SaveOptions{})
	},

	// It is certain of each token, and wrong: its perplexity is beyond the largest number.
	"certain": func(path string) error {
		m := tied()
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor("factor", nil, []float32{1e6}))
		m.Graph.Nodes[len(m.Graph.Nodes)-1].Outputs[0] = "calm"
		m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Mul", []string{"calm", "factor"}, []string{"logits"}))
		return save(path, m, onnx.SaveOptions{})
	},

	// All that it reads is stored.
	"no-input": func(path string) error {
		m := mlp(96, 64, 32)
		m.Graph.Inputs = nil
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewTensor("x", []int64{1, 96}, make([]float32, 96)))
		return save(path, m, onnx.SaveOptions{})
	},

	// It takes one sample at a time, as exports without dynamic axes do.
	"single": func(path string) error {
		m := mlp(96, 64, 32)
		g := m.Graph
		g.Inputs[0], g.Outputs[0] = onnx.NewValueInfo("x", onnx.Float, 1, 96), onnx.NewValueInfo("out", onnx.Float, 1, 32)
		g.Initializers = append(g.Initializers, onnx.NewTensor("shape", []int64{2}, []int64{1, 32}))
		g.Nodes = append(g.Nodes, onnx.NewNode("Reshape", []string{"y1", "shape"}, []string{"out"}))
		return save(path, m, onnx.SaveOptions{})
	},

	"truncated": func(path string) error { return damaged(path, func(b []byte) []byte { return b[:len(b)/2] }) },
	"garbage":   func(path string) error { return os.WriteFile(path, garbage(5000), 0o644) },
	"empty":     func(path string) error { return os.WriteFile(path, nil, 0o644) },
	"cyclic":    func(path string) error { return marshal(path, cyclic()) },
	"lying":     func(path string) error { return marshal(path, resized(func(d []int64) { d[0]++ })) },
	"huge":      func(path string) error { return marshal(path, resized(func(d []int64) { d[0], d[1] = 1<<40, 1<<40 })) },
	"negative":  func(path string) error { return marshal(path, resized(func(d []int64) { d[0] = -d[0] })) },
	"outside":   func(path string) error { return marshal(path, elsewhere("../../secret.bin")) },
	"no-data":   func(path string) error { return marshal(path, elsewhere("missing.bin")) },
	"short-data": func(path string) error {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "short.bin"), make([]byte, 100), 0o644); err != nil {
			return err
		}
		return marshal(path, elsewhere("short.bin"))
	},
}

func cmdModel(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "model KIND FILE")
	write := modelKinds[args[0]]
	if write == nil {
		ts.Fatalf("no kind of model %q", args[0])
	}
	ts.Check(write(ts.MkAbs(args[1])))
}

func save(path string, m *onnx.Model, o onnx.SaveOptions) error {
	_, err := m.Save(path, o)
	return err
}

// marshal writes a model that Save would refuse.
func marshal(path string, m *onnx.Model) error {
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func damaged(path string, damage func([]byte) []byte) error {
	b, err := mlp(96, 64, 32).Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(path, damage(b), 0o644)
}

func garbage(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func weight(name string, rows, cols int) *onnx.Tensor {
	rng := rand.New(rand.NewPCG(uint64(rows), uint64(cols)))
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(rng.NormFloat64() / math.Sqrt(float64(rows)))
	}
	return onnx.NewTensor(name, []int64{int64(rows), int64(cols)}, v)
}

// mlp is a chain of MatMul nodes fc0, fc1, … with weights w0, w1, … and Relu between them.
func mlp(widths ...int) *onnx.Model {
	m := onnx.NewModel(10, 17, "mlp")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", widths[0])}
	value := "x"
	for i, width := range widths[1:] {
		name := string(rune('0' + i))
		g.Initializers = append(g.Initializers, weight("w"+name, widths[i], width))
		n := onnx.NewNode("MatMul", []string{value, "w" + name}, []string{"h" + name})
		n.Name = "fc" + name
		g.Nodes = append(g.Nodes, n, onnx.NewNode("Relu", []string{"h" + name}, []string{"y" + name}))
		value = "y" + name
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(value, onnx.Float, "batch", widths[len(widths)-1])}
	return m
}

// tied looks ids up in a table of 256 × 64, and multiplies what a layer makes of them by the table's transpose: a language model
// with tied weights.
func tied() *onnx.Model {
	m := onnx.NewModel(10, 17, "tied")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, "batch", "seq")}
	g.Initializers = []*onnx.Tensor{weight("table", 256, 64), weight("w", 64, 64)}
	for _, n := range []struct {
		op, name string
		in, out  string
		second   string
	}{
		{"Gather", "look", "table", "rows", "ids"},
		{"MatMul", "layer", "rows", "hidden", "w"},
		{"Relu", "relu", "hidden", "active", ""},
		{"Transpose", "turn", "table", "turned", ""},
		{"MatMul", "head", "active", "logits", "turned"},
	} {
		inputs := []string{n.in}
		if n.second != "" {
			inputs = append(inputs, n.second)
		}
		node := onnx.NewNode(n.op, inputs, []string{n.out})
		node.Name = n.name
		g.Nodes = append(g.Nodes, node)
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", "seq", 256)}
	return m
}

// conv classifies images of 4 × 4: an expansion and a projection around a convolution of each channel, another at every second
// place, and a layer on the means.
func conv() *onnx.Model {
	m := onnx.NewModel(10, 17, "conv")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", 32, 4, 4)}
	shaped := func(t *onnx.Tensor, dims ...int64) *onnx.Tensor {
		t.Dims = dims
		return t
	}
	g.Initializers = []*onnx.Tensor{
		shaped(weight("w.expand", 64, 32), 64, 32, 1, 1), shaped(weight("w.depth", 64, 9), 64, 1, 3, 3),
		shaped(weight("w.project", 32, 64), 32, 64, 1, 1), shaped(weight("w.strided", 48, 32), 48, 32, 1, 1), weight("w.head", 48, 24),
		shaped(weight("b.expand", 64, 1), 64),
	}
	for _, n := range []struct {
		op, name string
		inputs   []string
		out      string
		attrs    []*onnx.Attribute
	}{
		{"Conv", "expand", []string{"x", "w.expand", "b.expand"}, "e", nil},
		{"Relu", "", []string{"e"}, "er", nil},
		{"Conv", "depth", []string{"er", "w.depth"}, "d", []*onnx.Attribute{onnx.IntAttr("group", 64), onnx.IntsAttr("pads", 1, 1, 1, 1)}},
		{"Relu", "", []string{"d"}, "dr", nil},
		{"Conv", "project", []string{"dr", "w.project"}, "p", nil},
		{"Add", "", []string{"p", "x"}, "sum", nil},
		{"Conv", "strided", []string{"sum", "w.strided"}, "s", []*onnx.Attribute{onnx.IntsAttr("strides", 2, 2)}},
		{"Relu", "", []string{"s"}, "sr", nil},
		{"GlobalAveragePool", "", []string{"sr"}, "mean", nil},
		{"Flatten", "", []string{"mean"}, "flat", nil},
		{"MatMul", "head", []string{"flat", "w.head"}, "logits", nil},
	} {
		node := onnx.NewNode(n.op, n.inputs, []string{n.out}, n.attrs...)
		node.Name = n.name
		g.Nodes = append(g.Nodes, node)
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", 24)}
	return m
}

// mixed is an mlp with a layer that is too small and a MatMul of two activations.
func mixed() *onnx.Model {
	m := mlp(96, 64, 32, 4)
	g := m.Graph
	g.Nodes = append(g.Nodes,
		onnx.NewNode("Transpose", []string{"y2"}, []string{"t"}),
		onnx.NewNode("MatMul", []string{"y2", "t"}, []string{"gram"}))
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("gram", onnx.Float, "batch", "batch")}
	return m
}

// wordy is an mlp with long names.
func wordy() *onnx.Model {
	m := mlp(96, 64, 32)
	g := m.Graph
	name := strings.Repeat("module.", 30)
	g.Nodes[0].Name, g.Nodes[0].Inputs[1], g.Initializers[0].Name = name+"first", name+"weight", name+"weight"
	return m
}

// half is an mlp that computes in float16.
func half() *onnx.Model {
	m := mlp(96, 64, 32)
	for i, t := range m.Graph.Initializers {
		v, err := t.Float32s()
		if err != nil {
			panic(err) // mlp has just made it
		}
		m.Graph.Initializers[i] = onnx.NewFloat16Tensor(t.Name, t.Dims, v)
	}
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float16, "batch", 96)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y1", onnx.Float16, "batch", 32)}
	return m
}

// states adds states, whose second dimension is the first one of the input, to what a layer makes of that.
func states() *onnx.Model {
	m := mlp(256, 128)
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "N", 256), onnx.NewValueInfo("h", onnx.Float, 2, "N", 128)}
	m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("Add", []string{"y0", "h"}, []string{"sum"}))
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("sum", onnx.Float, 2, "N", 128)}
	return m
}

// escapes has names that would tell a terminal what to do, and break a table.
func escapes() *onnx.Model {
	m := mlp(96, 64, 32)
	m.Graph.Nodes[0].Name = "\x1b]0;pwned\x07esc"
	m.Graph.Nodes[2].Name = "two\nlines\u009b"
	return m
}

// noText has a weight whose name is no UTF-8.
func noText() *onnx.Model {
	m := mlp(96, 64, 32)
	m.Graph.Initializer("w0").Name = "\xff"
	m.Graph.Nodes[0].Inputs[1] = "\xff"
	return m
}

func withNaN() *onnx.Model {
	m := mlp(96, 64, 32)
	poison(m.Graph, "w1")
	return m
}

func allNaN() *onnx.Model {
	m := withNaN()
	poison(m.Graph, "w0")
	return m
}

func poison(g *onnx.Graph, name string) {
	t := g.Initializer(name)
	for i, b := range onnx.RawFloat32([]float32{float32(math.NaN())}) {
		t.RawData[4*7+i] = b
	}
}

func relu() *onnx.Model {
	m := onnx.NewModel(10, 17, "relu")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 4)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 4)}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("Relu", []string{"x"}, []string{"y"})}
	return m
}

// cyclic feeds the second layer's output to the first.
func cyclic() *onnx.Model {
	m := mlp(64, 64, 64)
	m.Graph.Nodes[0].Inputs[0] = "y1"
	return m
}

func resized(change func(dims []int64)) *onnx.Model {
	m := mlp(96, 64, 32)
	change(m.Graph.Initializer("w0").Dims)
	return m
}

// elsewhere has its first weight in an external file.
func elsewhere(location string) *onnx.Model {
	m := mlp(96, 64, 32)
	w := m.Graph.Initializer("w0")
	w.RawData, w.DataLocation = nil, onnx.LocationExternal
	w.ExternalData = []*onnx.Property{{Key: "location", Value: location}, {Key: "offset", Value: "0"}, {Key: "length", Value: "24576"}}
	return m
}
