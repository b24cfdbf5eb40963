package grad

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Session is a loaded model. An ort.Session is one.
type Session interface {
	Run(ctx context.Context, inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error)
	// RunInto is Run that writes some of the outputs where the caller wants them.
	RunInto(ctx context.Context, inputs, into map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error)
	Close() error
}

// Loader loads a model into a runtime; literal asks it to change nothing of the graph.
type Loader func(m *onnx.Model, literal bool) (Session, error)

// Trace fixes a model to the shapes of the given inputs, which are run once. m is not changed; its tensors are shared.
func Trace(ctx context.Context, m *onnx.Model, load Loader, inputs map[string]*tensor.Tensor) (*Graph, error) {
	opset, ok := m.Opset("")
	if !ok || m.Graph == nil {
		return nil, errors.New("grad: the model has no graph, or imports no standard operators")
	}
	t := &tracer{
		g: &Graph{
			source: m, opset: opset, values: map[string]*Value{}, stored: map[string]*onnx.Tensor{}, ints: map[string][]int64{},
			names: onnx.NewNames(m), cached: map[string]*Value{},
		},
		data: map[string]bool{},
	}
	if err := t.declare(m.Graph, inputs); err != nil {
		return nil, err
	}
	t.types(m.Graph)
	if err := t.run(ctx, load, inputs); err != nil {
		return nil, fmt.Errorf("grad: run the model once for its shapes: %w", err)
	}
	nodes := t.g.nodes
	t.g.nodes = nil
	return t.g, t.g.lower(nodes)
}

// tracer collects what a graph is made of.
type tracer struct {
	g    *Graph
	data map[string]bool // values that depend on more than shapes
}

// declare takes over inputs, initializers and constants.
func (t *tracer) declare(graph *onnx.Graph, inputs map[string]*tensor.Tensor) error {
	g := t.g
	for _, init := range graph.Initializers {
		g.stored[init.Name] = init
		g.values[init.Name] = &Value{init.Name, init.DataType, init.Dims}
	}
	for _, in := range graph.Inputs {
		if g.stored[in.Name] != nil {
			continue
		}
		x := inputs[in.Name]
		if x == nil {
			return fmt.Errorf("grad: the model's input %q was not given", in.Name)
		}
		g.inputs = append(g.inputs, in.Name)
		g.values[in.Name] = &Value{in.Name, onnx.DataType(x.Type), x.Shape}
		t.data[in.Name] = true
	}
	for _, out := range graph.Outputs {
		g.outputs = append(g.outputs, out.Name)
	}
	for _, n := range graph.Nodes {
		if c := constantOf(n); c != nil {
			c.Name = n.Outputs[0]
			g.stored[c.Name] = c
			g.values[c.Name] = &Value{c.Name, c.DataType, c.Dims}
			continue
		}
		g.nodes = append(g.nodes, n)
	}
	for name, s := range g.stored {
		if v := g.values[name]; v.Type == onnx.Int64 || v.Type == onnx.Int32 {
			if n, err := s.NumElements(); err == nil && n <= maxKnown {
				if x, err := s.Int64s(); err == nil {
					g.ints[name] = x
				}
			}
		}
	}
	return nil
}

// maxKnown bounds the integer tensors whose values are kept.
const maxKnown = 1 << 16

// constantOf returns the tensor of a Constant node, nil for other nodes and for strings.
func constantOf(n *onnx.Node) *onnx.Tensor {
	if n.OpType != "Constant" || !standard(n.Domain) || len(n.Outputs) != 1 || len(n.Attributes) != 1 {
		return nil
	}
	switch a := n.Attributes[0]; a.Name {
	case "value":
		if a.T != nil {
			return onnx.Clone(a.T)
		}
	case "value_float":
		return onnx.Scalar("", a.F)
	case "value_int":
		return onnx.Scalar("", a.I)
	case "value_floats":
		return onnx.NewTensor("", []int64{int64(len(a.Floats))}, a.Floats)
	case "value_ints":
		return onnx.NewTensor("", []int64{int64(len(a.Ints))}, a.Ints)
	}
	return nil
}

func standard(domain string) bool { return domain == "" || domain == "ai.onnx" }

// types finds the element type of every value, and whether it depends on data.
func (t *tracer) types(graph *onnx.Graph) {
	declared := map[string]onnx.DataType{}
	for _, v := range slices.Concat(graph.ValueInfo, graph.Outputs) {
		if dt, _, ok := v.TensorType(); ok {
			declared[v.Name] = dt
		}
	}
	for _, n := range t.g.nodes {
		depends := len(n.Inputs) == 0 || len(n.Captures()) > 0
		for _, in := range n.Inputs {
			depends = depends || t.data[in]
		}
		if n.OpType == "Shape" || n.OpType == "Size" {
			depends = false
		}
		for i, out := range n.Outputs {
			if out == "" {
				continue
			}
			dt := declared[out]
			if dt == onnx.Undefined {
				dt = t.outputType(n, i)
			}
			t.g.values[out] = &Value{Name: out, Type: dt}
			t.data[out] = depends
		}
	}
}

// outputType is the element type of output i, which for most operators is that of the first input.
func (t *tracer) outputType(n *onnx.Node, i int) onnx.DataType {
	input := func(i int) onnx.DataType {
		if i < len(n.Inputs) && t.g.values[n.Inputs[i]] != nil {
			return t.g.values[n.Inputs[i]].Type
		}
		return onnx.Undefined
	}
	switch n.OpType {
	case "Cast":
		return onnx.DataType(n.Int("to", 0))
	case "Shape", "Size", "NonZero", "ArgMax", "ArgMin":
		return onnx.Int64
	case "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf":
		return onnx.Bool
	case "Where", "CastLike":
		return input(1)
	case "OneHot":
		return input(2)
	case "ConstantOfShape":
		if a := n.Attr("value"); a != nil && a.T != nil {
			return a.T.DataType
		}
		return onnx.Float
	case "MaxPool", "TopK", "Unique":
		if i > 0 {
			return onnx.Int64
		}
	case "Dropout":
		if i > 0 {
			return onnx.Bool
		}
	case "DequantizeLinear":
		return input(1)
	}
	return input(0)
}

// run asks the runtime for the shapes of all values, and for the integers that follow from shapes.
func (t *tracer) run(ctx context.Context, load Loader, inputs map[string]*tensor.Tensor) error {
	g := t.g
	probe := onnx.NewModel(g.source.IRVersion, g.opset, "shapes")
	probe.OpsetImports, probe.Functions = g.source.OpsetImports, g.source.Functions
	for _, in := range g.inputs {
		probe.Graph.Inputs = append(probe.Graph.Inputs, g.values[in].info())
	}
	probe.Graph.Initializers = g.initializers()
	shapes := map[string]string{} // of the output that holds the shape, the value it is of
	for _, n := range g.nodes {
		probe.Graph.Nodes = append(probe.Graph.Nodes, n)
		for _, out := range n.Outputs {
			if out == "" {
				continue
			}
			name := g.names.Unique("shape of " + out)
			shapes[name] = out
			probe.Graph.Nodes = append(probe.Graph.Nodes, onnx.NewNode("Shape", []string{out}, []string{name}))
			probe.Graph.Outputs = append(probe.Graph.Outputs, onnx.NewValueInfo(name, onnx.Int64, nil))
			if v := g.values[out]; !t.data[out] && (v.Type == onnx.Int64 || v.Type == onnx.Int32) {
				probe.Graph.Outputs = append(probe.Graph.Outputs, onnx.NewValueInfo(out, v.Type, onnx.UnknownRank))
			}
		}
	}
	s, err := load(probe, true)
	if err != nil {
		return err
	}
	defer s.Close()
	fed := map[string]*tensor.Tensor{}
	for _, in := range g.inputs {
		fed[in] = inputs[in]
	}
	results, err := s.Run(ctx, fed)
	if err != nil {
		return err
	}
	for name, r := range results {
		values, err := integersOf(r)
		if err != nil {
			return err
		}
		if of := shapes[name]; of != "" {
			g.values[of].Shape = values
		} else if len(values) <= maxKnown {
			g.ints[name] = values
		}
	}
	return nil
}

func integersOf(t *tensor.Tensor) ([]int64, error) {
	if t.Type == tensor.Int32 {
		narrow, err := tensor.View[int32](t)
		if err != nil {
			return nil, err
		}
		wide := make([]int64, len(narrow))
		for i, v := range narrow {
			wide[i] = int64(v)
		}
		return wide, nil
	}
	v, err := tensor.View[int64](t)
	return slices.Clone(v), err
}
