package grad

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// loader loads models into ONNX Runtime; external data lie in dir.
func loader(t testing.TB, dir string) Loader {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	return func(m *onnx.Model, literal bool) (Session, error) {
		data, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		o := ort.SessionOptions{Threads: 1}
		if literal {
			o.Optimization = ort.OptimizeDisabled
		}
		return rt.NewSessionFromBytes(data, dir, o)
	}
}

// ruleCase is an operator with its inputs. Shapes are random within what the operator takes.
type ruleCase struct {
	name   string
	op     string
	domain string
	opset  int64
	attrs  []*onnx.Attribute
	in     [][]int64      // shapes of the float inputs, in order; nil for one that comes from fixed
	fixed  []*onnx.Tensor // by input, nil for a float one
	low    float64        // values are in [low, high); both 0 for [-1, 1)
	high   float64
	kinks  []float64 // places that values keep away from
	frozen []int
	outs   int
}

func floats(r *rand.Rand, c *ruleCase, n int64) []float32 {
	low, high := c.low, c.high
	if low == 0 && high == 0 {
		low, high = -1, 1
	}
	v := make([]float32, n)
	for i := range v {
		for {
			x := low + (high-low)*r.Float64()
			if !slices.ContainsFunc(c.kinks, func(k float64) bool { return math.Abs(x-k) < 0.02 }) {
				v[i] = float32(x)
				break
			}
		}
	}
	return v
}

// checkRule compares the gradient of Σ y·c with central differences in a random direction, for every input by itself.
func checkRule(t *testing.T, c ruleCase) {
	r := rand.New(rand.NewPCG(7, uint64(len(c.name))))
	if c.outs == 0 {
		c.outs = 1
	}
	m := onnx.NewModel(8, c.opset, "rule")
	if c.domain != "" {
		m.SetOpset(c.domain, 1)
	}
	n := onnx.NewNode(c.op, nil, nil, c.attrs...)
	n.Domain, n.Name = c.domain, "node"
	inputs := map[string]*tensor.Tensor{}
	var wrt []string
	for i := range max(len(c.in), len(c.fixed)) {
		name := fmt.Sprint("x", i)
		switch {
		case i < len(c.fixed) && c.fixed[i] != nil:
			f := onnx.Clone(c.fixed[i])
			f.Name = name
			m.Graph.Initializers = append(m.Graph.Initializers, f)
		case c.in[i] == nil:
			name = ""
		default:
			dims := make([]any, len(c.in[i]))
			for j, d := range c.in[i] {
				dims[j] = d
			}
			m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(name, onnx.Float, dims...))
			inputs[name] = tensor.Of(floats(r, &c, product(c.in[i])), c.in[i]...)
			if !slices.Contains(c.frozen, i) {
				wrt = append(wrt, name)
			}
		}
		n.Inputs = append(n.Inputs, name)
	}
	for i := range c.outs {
		out := fmt.Sprint("y", i)
		n.Outputs = append(n.Outputs, out)
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(out, onnx.Float, onnx.UnknownRank))
	}
	m.Graph.Nodes = []*onnx.Node{n}
	checkGradients(t, r, m, inputs, wrt, 0)
}

// checkGradients compares the gradient of Σ y·c over the outputs of a model with central differences in a random
// direction, for every input by itself. Where its nodes are written out, the outputs have to be what the operators give.
// Derivatives below the floor may drown in rounding; without one, none may be zero. It returns the inputs with a gradient other than zero.
func checkGradients(t *testing.T, r *rand.Rand, m *onnx.Model, inputs map[string]*tensor.Tensor, wrt []string, floor float64) []string {
	t.Helper()
	if err := Check(m, wrt); err != nil {
		t.Fatal(err)
	}
	load := loader(t, "")
	g, err := Trace(context.Background(), m, load, inputs)
	if err != nil {
		t.Fatal(err)
	}
	// loss = Σ over outputs of Σ y·c
	var loss *Value
	weights := map[string][]float32{}
	var outputs []*Value
	for _, out := range m.Graph.Outputs {
		y := g.Value(out.Name)
		outputs = append(outputs, y)
		if !y.IsFloat() {
			continue
		}
		w := make([]float32, y.Count())
		for i := range w {
			w[i] = float32(2*r.Float64() - 1)
		}
		weights[y.Name] = w
		part := g.total(g.mul(y, g.constant(fmt.Sprint(w), onnx.NewTensor("", y.Shape, w))))
		if loss == nil {
			loss = part
		} else {
			loss = g.add(loss, part)
		}
	}
	grads, err := g.Backward(loss, wrt, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func(m *onnx.Model) map[string]*tensor.Tensor {
		t.Helper()
		s, err := load(m, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		used := map[string]*tensor.Tensor{}
		for _, in := range m.Graph.Inputs {
			used[in.Name] = inputs[in.Name]
		}
		out, err := s.Run(context.Background(), used)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	backward := run(g.Model(grads...))
	sameOutputs(t, run(m), run(g.Model(outputs...)))
	forward, err := load(m, false)
	if err != nil {
		t.Fatal(err)
	}
	defer forward.Close()
	value := func() float64 {
		out, err := forward.Run(context.Background(), inputs)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for name, w := range weights {
			y, err := tensor.View[float32](out[name])
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range y {
				sum += float64(v) * float64(w[i])
			}
		}
		return sum
	}
	var moved []string
	for i, name := range wrt {
		d, err := tensor.View[float32](backward[grads[i].Name])
		if err != nil {
			t.Fatal(err)
		}
		x, _ := tensor.View[float32](inputs[name])
		if len(d) != len(x) {
			t.Fatalf("the gradient of %s has %d numbers, want %d", name, len(d), len(x))
		}
		original := slices.Clone(x)
		direction := make([]float64, len(x))
		want, norm := 0.0, 0.0
		for j := range direction {
			direction[j] = 2*r.Float64() - 1
			want += direction[j] * float64(d[j])
			norm += float64(d[j]) * float64(d[j])
		}
		const h = 4e-3
		move := func(by float64) float64 {
			for j := range x {
				x[j] = float32(float64(original[j]) + by*direction[j])
			}
			return value()
		}
		got := (move(h) - move(-h)) / (2 * h)
		copy(x, original)
		if norm > 0 {
			moved = append(moved, name)
		} else if floor == 0 {
			t.Errorf("the gradient of %s is zero", name)
		}
		if math.Abs(got-want) > 1e-2*max(math.Abs(want), 0.3*math.Sqrt(norm), floor) {
			t.Errorf("gradient of %s along a direction: %v, differences say %v", name, want, got)
		}
	}
	return moved
}

// sameOutputs compares results that ought to differ in rounding only.
func sameOutputs(t *testing.T, want, got map[string]*tensor.Tensor) {
	t.Helper()
	for name, a := range want {
		b := got[name]
		if a.Type != b.Type || !slices.Equal(a.Shape, b.Shape) {
			t.Errorf("%s: written out it is %v %v, and %v %v by the operator", name, b.Type, b.Shape, a.Type, a.Shape)
			continue
		}
		if a.Type != tensor.Float32 {
			if !bytes.Equal(a.Data, b.Data) {
				t.Errorf("%s: written out it is %v, and %v by the operator", name, b.Data, a.Data)
			}
			continue
		}
		x, err := tensor.View[float32](a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := tensor.View[float32](b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x {
			if d := math.Abs(float64(x[i]) - float64(y[i])); !(d <= 1e-5*(1+math.Abs(float64(x[i])))) {
				t.Errorf("%s: number %d is %v written out, and %v by the operator", name, i, y[i], x[i])
				break
			}
		}
	}
}

func ints(v ...int64) *onnx.Tensor { return onnx.NewTensor("", []int64{int64(len(v))}, v) }

func shape(d ...int64) []int64 { return d }

func TestRules(t *testing.T) {
	unary := func(op string, opset int64, low, high float64, attrs ...*onnx.Attribute) ruleCase {
		return ruleCase{name: op, op: op, opset: opset, in: [][]int64{{3, 4}}, low: low, high: high, attrs: attrs, kinks: []float64{0}}
	}
	binary := func(op string, a, b []int64) ruleCase {
		return ruleCase{name: fmt.Sprint(op, a, b), op: op, opset: 13, in: [][]int64{a, b}, low: 0.5, high: 2}
	}
	i, is, f, str := onnx.IntAttr, onnx.IntsAttr, onnx.FloatAttr, onnx.StringAttr
	cases := []ruleCase{
		binary("Add", shape(3, 4), shape(4)), binary("Add", shape(1, 4), shape(2, 3, 1)), binary("Sub", shape(4), shape(3, 4)),
		binary("Mul", shape(2, 3, 4), shape(3, 1)), binary("Div", shape(3, 4), shape(1, 4)), binary("Div", shape(4), shape(3, 4)),
		binary("Pow", shape(3, 4), shape(4)), binary("Max", shape(3, 4), shape(4)), binary("Min", shape(3, 4), shape(3, 1)),
		{name: "Max of equals", op: "Max", opset: 13, in: [][]int64{{3, 4}, {3, 4}}, low: 0.5, high: 0.5},
		{name: "Min of equals", op: "Min", opset: 8, in: [][]int64{{3, 4}, {4}}, low: 0.5, high: 0.5},
		binary("Sum", shape(3, 4), shape(4)), binary("Mean", shape(3, 4), shape(4)),
		{name: "square", op: "Pow", opset: 13, in: [][]int64{{3, 4}, nil}, fixed: []*onnx.Tensor{nil, onnx.Scalar[float32]("", 2)}},
		{name: "cube", op: "Pow", opset: 13, in: [][]int64{{3, 4}, nil}, fixed: []*onnx.Tensor{nil, onnx.Scalar[float32]("", 3)}},
		{name: "Where", op: "Where", opset: 13, in: [][]int64{nil, {3, 4}, {4}}, fixed: []*onnx.Tensor{onnx.NewTensor("", []int64{3, 1}, []bool{true, false, true})}},
		{name: "PRelu", op: "PRelu", opset: 13, in: [][]int64{{3, 4}, {4}}, kinks: []float64{0}},
		unary("Neg", 13, -1, 1), unary("Abs", 13, 0, 0), unary("Exp", 13, -1, 1), unary("Log", 13, 0.5, 2), unary("Sqrt", 13, 0.5, 2),
		unary("Reciprocal", 13, 0.5, 2), unary("Erf", 13, -1, 1), unary("Sin", 13, -1, 1), unary("Cos", 13, -1, 1), unary("Tanh", 13, -1, 1),
		unary("Sigmoid", 13, -1, 1), unary("Relu", 13, 0, 0), unary("Relu", 7, 0, 0), unary("LeakyRelu", 13, 0, 0, f("alpha", 0.2)),
		unary("Elu", 13, 0, 0, f("alpha", 1.5)), unary("Elu", 13, 0, 0, f("alpha", 0)), unary("Elu", 13, 0, 0, f("alpha", -0.7)), unary("Softplus", 13, -1, 1), unary("HardSigmoid", 13, -1, 1), unary("Identity", 13, -1, 1),
		unary("Dropout", 13, -1, 1), unary("Cast", 13, -1, 1, i("to", 1)), unary("HardSwish", 14, -1, 1), unary("Gelu", 20, -1, 1),
		unary("Gelu", 20, -1, 1, str("approximate", "tanh")),
		{name: "CastLike", op: "CastLike", opset: 15, in: [][]int64{{3, 4}, nil}, fixed: []*onnx.Tensor{nil, onnx.Scalar[float32]("", 0)}},
		{name: "Clip", op: "Clip", opset: 13, in: [][]int64{{5, 5}, nil, nil}, fixed: []*onnx.Tensor{nil, onnx.Scalar[float32]("", -0.5), onnx.Scalar[float32]("", 0.6)}, kinks: []float64{-0.5, 0.6}},
		{name: "Clip attributes", op: "Clip", opset: 9, in: [][]int64{{5, 5}}, attrs: []*onnx.Attribute{f("min", -0.5), f("max", 0.5)}, kinks: []float64{-0.5, 0.5}},
		{name: "ms Gelu", op: "Gelu", domain: "com.microsoft", opset: 17, in: [][]int64{{3, 4}}},
		{name: "FastGelu", op: "FastGelu", domain: "com.microsoft", opset: 17, in: [][]int64{{3, 4}, {4}}},
		{name: "BiasGelu", op: "BiasGelu", domain: "com.microsoft", opset: 17, in: [][]int64{{3, 4}, {4}}},
		{name: "QuickGelu", op: "QuickGelu", domain: "com.microsoft", opset: 17, in: [][]int64{{3, 4}}},

		{name: "MatMul", op: "MatMul", opset: 13, in: [][]int64{{2, 3, 4}, {4, 5}}},
		{name: "MatMul matrices", op: "MatMul", opset: 7, in: [][]int64{{3, 4}, {4, 5}}},
		{name: "MatMul batched", op: "MatMul", opset: 13, in: [][]int64{{2, 1, 3, 4}, {3, 4, 5}}},
		{name: "MatMul vector", op: "MatMul", opset: 13, in: [][]int64{{2, 3, 4}, {4}}},
		{name: "MatMul vector left", op: "MatMul", opset: 13, in: [][]int64{{4}, {2, 4, 3}}},
		{name: "FusedMatMul", op: "FusedMatMul", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 4, 3}, {2, 5, 4}},
			attrs: []*onnx.Attribute{i("transA", 1), i("transB", 1), f("alpha", 0.5)}},
		{name: "FusedMatMul of a matrix", op: "FusedMatMul", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 3, 4}, {4, 5}}, attrs: []*onnx.Attribute{f("alpha", 2)}},
		{name: "Gemm", op: "Gemm", opset: 7, in: [][]int64{{3, 4}, {4, 5}, {5}}, attrs: []*onnx.Attribute{f("alpha", 0.5), f("beta", 2)}},
		{name: "Gemm TB", op: "Gemm", opset: 13, in: [][]int64{{3, 4}, {5, 4}, {3, 1}}, attrs: []*onnx.Attribute{i("transB", 1)}},
		{name: "Gemm TA", op: "Gemm", opset: 13, in: [][]int64{{4, 3}, {4, 5}}, attrs: []*onnx.Attribute{i("transA", 1)}},
		{name: "Gemm TATB", op: "Gemm", opset: 13, in: [][]int64{{4, 3}, {5, 4}}, attrs: []*onnx.Attribute{i("transA", 1), i("transB", 1)}},

		{name: "Conv", op: "Conv", opset: 11, in: [][]int64{{2, 4, 7, 6}, {6, 2, 3, 2}, {6}}, attrs: []*onnx.Attribute{i("group", 2), is("strides", 2, 1), is("pads", 1, 0, 2, 1), is("dilations", 1, 2)}},
		{name: "Conv1", op: "Conv", opset: 11, in: [][]int64{{2, 3, 9}, {4, 3, 4}}, attrs: []*onnx.Attribute{is("strides", 2)}},
		{name: "Conv same", op: "Conv", opset: 11, in: [][]int64{{1, 2, 7, 8}, {3, 2, 4, 4}}, attrs: []*onnx.Attribute{str("auto_pad", "SAME_UPPER"), is("strides", 2, 2)}},
		{name: "Conv depthwise", op: "Conv", opset: 11, in: [][]int64{{1, 3, 6, 6}, {3, 1, 3, 3}, {3}}, attrs: []*onnx.Attribute{i("group", 3), is("pads", 1, 1, 1, 1)}},

		{name: "Softmax", op: "Softmax", opset: 13, in: [][]int64{{2, 3, 4}}, attrs: []*onnx.Attribute{i("axis", 1)}},
		{name: "Softmax 11", op: "Softmax", opset: 11, in: [][]int64{{2, 3, 4}}, attrs: []*onnx.Attribute{i("axis", 1)}},
		{name: "LogSoftmax", op: "LogSoftmax", opset: 13, in: [][]int64{{2, 3, 4}}},
		{name: "LayerNormalization", op: "LayerNormalization", opset: 17, in: [][]int64{{2, 3, 8}, {8}, {8}}},
		{name: "LayerNormalization two", op: "LayerNormalization", opset: 17, in: [][]int64{{2, 3, 8}, {3, 8}}, attrs: []*onnx.Attribute{i("axis", 1)}},
		{name: "BatchNormalization", op: "BatchNormalization", opset: 15, in: [][]int64{{2, 3, 4}, {3}, {3}, {3}, {3}}, low: 0.5, high: 2, frozen: []int{3, 4}},
		{name: "InstanceNormalization", op: "InstanceNormalization", opset: 13, in: [][]int64{{2, 3, 4, 4}, {3}, {3}}},
		{name: "RMSNormalization", op: "SimplifiedLayerNormalization", opset: 17, in: [][]int64{{2, 3, 8}, {8}}},
		{name: "SkipLayerNormalization", op: "SkipLayerNormalization", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 3, 8}, {2, 3, 8}, {8}, {8}, {8}}},
		{name: "SkipLayerNormalization without bias", op: "SkipLayerNormalization", domain: "com.microsoft", opset: 11, in: [][]int64{{2, 3, 8}, {3, 8}, {8}}},
		{name: "SkipSimplified", op: "SkipSimplifiedLayerNormalization", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 3, 8}, {2, 3, 8}, {8}}},

		{name: "ReduceSum", op: "ReduceSum", opset: 13, in: [][]int64{{2, 3, 4}, nil}, fixed: []*onnx.Tensor{nil, ints(-1, 0)}, attrs: []*onnx.Attribute{i("keepdims", 0)}},
		{name: "ReduceSum all", op: "ReduceSum", opset: 13, in: [][]int64{{2, 3, 4}}},
		{name: "ReduceMean", op: "ReduceMean", opset: 11, in: [][]int64{{2, 3, 4}}, attrs: []*onnx.Attribute{is("axes", 1), i("keepdims", 0)}},
		{name: "ReduceMean 18", op: "ReduceMean", opset: 18, in: [][]int64{{2, 3, 4}, nil}, fixed: []*onnx.Tensor{nil, ints(-1)}},
		{name: "ReduceMax", op: "ReduceMax", opset: 13, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("axes", 1)}},
		{name: "ReduceMin", op: "ReduceMin", opset: 13, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("axes", 0)}},
		{name: "ReduceSumSquare", op: "ReduceSumSquare", opset: 13, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("axes", 1)}},
		{name: "ReduceL2", op: "ReduceL2", opset: 13, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("axes", 1)}},
		{name: "ReduceLogSumExp", op: "ReduceLogSumExp", opset: 13, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("axes", 1)}},

		{name: "AveragePool", op: "AveragePool", opset: 11, in: [][]int64{{1, 2, 7, 6}}, attrs: []*onnx.Attribute{is("kernel_shape", 3, 2), is("strides", 2, 2), is("pads", 1, 0, 1, 0)}},
		{name: "AveragePool with padding", op: "AveragePool", opset: 11, in: [][]int64{{1, 2, 6, 6}}, attrs: []*onnx.Attribute{is("kernel_shape", 3, 3), is("pads", 1, 1, 1, 1), i("count_include_pad", 1)}},
		{name: "AveragePool rounding up", op: "AveragePool", opset: 11, in: [][]int64{{1, 2, 6, 7}}, attrs: []*onnx.Attribute{is("kernel_shape", 3, 3), is("strides", 2, 2), is("pads", 0, 1, 0, 1), i("count_include_pad", 1), i("ceil_mode", 1)}},
		{name: "AveragePool rounding up padding", op: "AveragePool", opset: 19, in: [][]int64{{1, 2, 6}}, attrs: []*onnx.Attribute{is("kernel_shape", 3), is("strides", 2), is("pads", 1, 1), i("count_include_pad", 1), i("ceil_mode", 1)}},
		{name: "AveragePool same", op: "AveragePool", opset: 11, in: [][]int64{{1, 2, 7, 8}}, attrs: []*onnx.Attribute{is("kernel_shape", 2, 4), is("strides", 2, 1), str("auto_pad", "SAME_UPPER"), i("count_include_pad", 1)}},
		{name: "MaxPool", op: "MaxPool", opset: 11, in: [][]int64{{1, 2, 7, 6}}, attrs: []*onnx.Attribute{is("kernel_shape", 3, 2), is("strides", 2, 1), is("pads", 1, 0, 0, 1)}},
		{name: "MaxPool overlap", op: "MaxPool", opset: 9, in: [][]int64{{2, 3, 8}}, attrs: []*onnx.Attribute{is("kernel_shape", 3), is("strides", 1)}},
		{name: "GlobalAveragePool", op: "GlobalAveragePool", opset: 11, in: [][]int64{{2, 3, 4, 5}}},
		{name: "GlobalMaxPool", op: "GlobalMaxPool", opset: 11, in: [][]int64{{2, 3, 4, 5}}},

		{name: "Reshape", op: "Reshape", opset: 13, in: [][]int64{{3, 4}, nil}, fixed: []*onnx.Tensor{nil, ints(2, -1)}},
		{name: "Flatten", op: "Flatten", opset: 13, in: [][]int64{{2, 3, 4}}},
		{name: "Squeeze", op: "Squeeze", opset: 13, in: [][]int64{{2, 1, 4}}},
		{name: "Unsqueeze", op: "Unsqueeze", opset: 11, in: [][]int64{{2, 4}}, attrs: []*onnx.Attribute{is("axes", 1)}},
		{name: "Transpose", op: "Transpose", opset: 13, in: [][]int64{{2, 3, 4}}, attrs: []*onnx.Attribute{is("perm", 2, 0, 1)}},
		{name: "Expand", op: "Expand", opset: 13, in: [][]int64{{3, 1}, nil}, fixed: []*onnx.Tensor{nil, ints(2, 3, 4)}},
		{name: "Tile", op: "Tile", opset: 13, in: [][]int64{{3, 2}, nil}, fixed: []*onnx.Tensor{nil, ints(2, 3)}},
		{name: "Slice", op: "Slice", opset: 13, in: [][]int64{{5, 6}, nil, nil, nil, nil}, fixed: []*onnx.Tensor{nil, ints(1, -1), ints(4, -6), ints(0, 1), ints(1, -2)}},
		{name: "Slice to the end", op: "Slice", opset: 13, in: [][]int64{{5, 6}, nil, nil, nil}, fixed: []*onnx.Tensor{nil, ints(-4), ints(math.MaxInt64), ints(-1)}},
		{name: "Slice attributes", op: "Slice", opset: 9, in: [][]int64{{5, 6}}, attrs: []*onnx.Attribute{is("starts", 1, 2), is("ends", 4, 100)}},
		{name: "Concat", op: "Concat", opset: 13, in: [][]int64{{2, 3}, {2, 1}, {2, 2}}, attrs: []*onnx.Attribute{i("axis", -1)}},
		{name: "Split", op: "Split", opset: 13, in: [][]int64{{2, 6}, nil}, fixed: []*onnx.Tensor{nil, ints(2, 4)}, attrs: []*onnx.Attribute{i("axis", 1)}, outs: 2},
		{name: "Pad", op: "Pad", opset: 13, in: [][]int64{{3, 4}, nil}, fixed: []*onnx.Tensor{nil, ints(1, 0, 0, 2)}},
		{name: "Pad attributes", op: "Pad", opset: 9, in: [][]int64{{3, 4}}, attrs: []*onnx.Attribute{is("pads", 0, 1, 1, -1)}},
		{name: "Gather", op: "Gather", opset: 13, in: [][]int64{{4, 3}, nil}, fixed: []*onnx.Tensor{nil, onnx.NewTensor("", []int64{2, 2}, []int64{0, 3, 3, -2})}},
		{name: "Gather scalar", op: "Gather", opset: 13, in: [][]int64{{2, 4, 3}, nil}, fixed: []*onnx.Tensor{nil, onnx.Scalar[int64]("", -1)}, attrs: []*onnx.Attribute{i("axis", 1)}},
		{name: "GatherElements", op: "GatherElements", opset: 16, in: [][]int64{{3, 2}, nil}, fixed: []*onnx.Tensor{nil, onnx.NewTensor("", []int64{2, 2}, []int64{0, 2, 0, 1})}},
		{name: "GatherND", op: "GatherND", opset: 18, in: [][]int64{{3, 2}, nil}, fixed: []*onnx.Tensor{nil, onnx.NewTensor("", []int64{3, 1}, []int64{0, 2, 0})}},
		{name: "RotaryEmbedding", op: "RotaryEmbedding", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 3, 16}, nil, {5, 4}, {5, 4}}, frozen: []int{2, 3},
			fixed: []*onnx.Tensor{nil, onnx.NewTensor("", []int64{2, 3}, []int64{0, 1, 2, 2, 3, 4})}},
		{name: "RotaryEmbedding heads", op: "RotaryEmbedding", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 2, 3, 8}, nil, {5, 4}, {5, 4}}, frozen: []int{2, 3},
			fixed: []*onnx.Tensor{nil, ints(1)}, attrs: []*onnx.Attribute{i("interleaved", 1)}},
		{name: "RotaryEmbedding of a part", op: "RotaryEmbedding", domain: "com.microsoft", opset: 17, in: [][]int64{{2, 3, 24}, nil, {5, 4}, {5, 4}}, frozen: []int{2, 3},
			fixed: []*onnx.Tensor{nil, ints(1)}, attrs: []*onnx.Attribute{i("num_heads", 2), i("rotary_embedding_dim", 8)}},
		{name: "RotaryEmbedding 23", op: "RotaryEmbedding", opset: 23, in: [][]int64{{2, 2, 3, 8}, {2, 3, 4}, {2, 3, 4}}, frozen: []int{1, 2}},
		{name: "Attention", op: "Attention", opset: 23, in: [][]int64{{2, 2, 3, 4}, {2, 2, 5, 4}, {2, 2, 5, 6}}},
		{name: "Attention shared heads", op: "Attention", opset: 23, in: [][]int64{{2, 4, 3, 4}, {2, 2, 3, 4}, {2, 2, 3, 4}}, attrs: []*onnx.Attribute{i("is_causal", 1), f("scale", 0.3)}},
		{name: "Attention flat", op: "Attention", opset: 23, in: [][]int64{{2, 3, 8}, {2, 5, 4}, {2, 5, 4}, {3, 5}}, attrs: []*onnx.Attribute{i("q_num_heads", 4), i("kv_num_heads", 2)}},
		{name: "Attention masked", op: "Attention", opset: 24, in: [][]int64{{1, 2, 2, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, nil},
			fixed: []*onnx.Tensor{nil, nil, nil, onnx.NewTensor("", []int64{2, 3}, []bool{true, false, true, true, true, false})}},
		{name: "Attention behind a cache", op: "Attention", opset: 24, in: [][]int64{{2, 4, 3, 4}, {2, 2, 3, 4}, {2, 2, 3, 6}, {3, 5}, {2, 2, 2, 4}, {2, 2, 2, 6}}, outs: 3,
			attrs: []*onnx.Attribute{i("is_causal", 1), f("softcap", 0.4)}},
		{name: "Attention behind a flat cache", op: "Attention", opset: 23, in: [][]int64{{2, 3, 8}, {2, 3, 4}, {2, 3, 4}, {3, 5}, {2, 1, 2, 4}, {2, 1, 2, 4}}, outs: 3,
			attrs: []*onnx.Attribute{i("q_num_heads", 2), i("kv_num_heads", 1), f("softcap", 0.4)}},
		{name: "RMSNormalization 23", op: "RMSNormalization", opset: 23, in: [][]int64{{2, 3, 8}, {8}}},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.name, " opset ", c.opset), func(t *testing.T) { checkRule(t, c) })
	}
	covered := map[string]bool{}
	for _, c := range cases {
		name := c.op
		if c.domain != "" {
			name = c.domain + "::" + c.op
		}
		covered[name] = true
	}
	for _, o := range operatorsOfRuntime {
		covered[microsoft+o.op] = true
	}
	for op := range rules {
		if !covered[op] {
			t.Errorf("the rule of %s has no case", op)
		}
	}
	for op := range lowerings {
		if !covered[op] && op != microsoft+"SimplifiedLayerNormalization" { // the same code as without the domain
			t.Errorf("the lowering of %s has no case", op)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
