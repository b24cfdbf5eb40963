//go:build cgo && linux

package ort_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// nodeCase is a graph of a few nodes whose inputs are x0, x1 and so on, and whose output is y.
type nodeCase struct {
	name      string
	opset     int64 // 21 unless given
	nodes     []*onnx.Node
	inputs    []*tensor.Tensor
	result    *tensor.Tensor // unless it is that of the CPU
	exact     bool           // the opset is older than 21
	known     bool           // the graph says what shapes the inputs have, and not only how many dimensions
	open      bool           // nor even that
	constants bool           // all inputs but the first are constants
	left      string         // why a node is left to the CPU
	want      string         // what the error says
}

// node is one that has y of x0 and so on; an input that is nil is left out.
func node(op string, inputs []*tensor.Tensor, attrs ...*onnx.Attribute) *onnx.Node {
	names := make([]string, len(inputs))
	for i, x := range inputs {
		if x != nil {
			names[i] = fmt.Sprint("x", i)
		}
	}
	domain, op, fused := strings.Cut(op, "::")
	if !fused {
		domain, op = "", domain
	}
	n := onnx.NewNode(op, names, []string{"y"}, attrs...)
	n.Domain = domain
	return n
}

func single(name, op string, inputs []*tensor.Tensor, attrs ...*onnx.Attribute) nodeCase {
	return nodeCase{name: name, nodes: []*onnx.Node{node(op, inputs, attrs...)}, inputs: inputs}
}

// splits adds a second output.
func (c nodeCase) splits() nodeCase {
	c.nodes[0].Outputs = append(c.nodes[0].Outputs, "z")
	return c
}
func (c nodeCase) of(opset int64) nodeCase          { c.opset = opset; return c }
func (c nodeCase) shaped() nodeCase                 { c.known = true; return c }
func (c nodeCase) unknown(reason string) nodeCase   { c.left = reason; return c }
func (c nodeCase) leaves(reason string) nodeCase    { c.known, c.left = true, reason; return c }
func (c nodeCase) device(y *tensor.Tensor) nodeCase { c.result = y; return c }
func (c nodeCase) fails(want string) nodeCase       { c.want = want; return c }

// build writes the model, and gives what it is fed.
func (c nodeCase) build(t *testing.T) (path string, inputs map[string]*tensor.Tensor) {
	t.Helper()
	inputs = map[string]*tensor.Tensor{}
	opset := c.opset
	if !c.exact {
		opset = max(opset, 21)
	}
	return modelOf(t, opset, func(g *onnx.Graph) {
		g.Inputs, g.Nodes = nil, c.nodes
		for i, x := range c.inputs {
			if x == nil {
				continue
			}
			name := fmt.Sprint("x", i)
			if c.constants && i > 0 {
				g.Initializers = append(g.Initializers, &onnx.Tensor{Name: name, DataType: onnx.DataType(x.Type), Dims: x.Shape, RawData: x.Data})
				continue
			}
			inputs[name] = x
			dims := make([]any, len(x.Shape))
			for d := range dims {
				dims[d] = fmt.Sprintf("%s_%d", name, d)
				if c.known {
					dims[d] = int(x.Shape[d])
				}
			}
			input := value(name, onnx.DataType(x.Type), dims...)
			if c.open {
				input.Type.Tensor.Shape = nil
			}
			g.Inputs = append(g.Inputs, input)
		}
		for i, n := range g.Nodes {
			n.Name = fmt.Sprint(n.OpType, i)
		}
		g.Outputs = []*onnx.ValueInfo{{Name: "y"}}
	}), inputs
}

// options are those of a session on a provider, or on the CPU for "", which runs any node that it can.
func options(library string) ort.SessionOptions {
	return ort.SessionOptions{Provider: library, Optimization: ort.OptimizeDisabled, Threads: 1, Config: map[string]string{"ai.coset.gpu_nodes": "all"}}
}

func runNodes(t *testing.T, path, library string, inputs map[string]*tensor.Tensor) (*tensor.Tensor, error) {
	t.Helper()
	s, err := openORT(t).NewSession(path, options(library))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	y, err := s.Run(context.Background(), inputs)
	return y["y"], err
}

// numbers are n floats of both signs.
func numbers(dims ...int64) *tensor.Tensor {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32((i*7+3)%11-5) / 4
	}
	return tensor.Of(v, dims...)
}

func half(n int64) *tensor.Tensor {
	v := make([]tensor.Float16, n)
	for i := range v {
		v[i] = tensor.ToFloat16(float32(i+2) / 2)
	}
	return tensor.Of(v, n)
}

func scalar(v int64) *tensor.Tensor { return tensor.Of([]int64{v}) }

func ints(v ...int64) *tensor.Tensor { return tensor.Of(v, int64(len(v))) }

// What a node says it computes the provider computes, or leaves to the CPU: these it once had wrong.
func TestProviderNodes(t *testing.T) {
	library, about, _ := aboutProvider(t)
	type inputs = []*tensor.Tensor
	nan, infinity := float32(math.NaN()), float32(math.Inf(1))
	number := tensor.Of([]float32{-2.5})
	one := func(op string, x *tensor.Tensor, attrs ...*onnx.Attribute) nodeCase {
		c := single("a number", op, inputs{x}, attrs...)
		c.open = true // or ONNX Runtime refuses the model
		return c
	}
	infinities := tensor.Of([]float32{infinity, -infinity, nan, 2}, 4)
	truths := single("IsNaN of a sum", "Add", inputs{numbers(4), tensor.Of([]float32{1, nan, 0, nan}, 4)})
	truths.nodes[0].Outputs = []string{"sum"}
	truths.nodes = append(truths.nodes, onnx.NewNode("IsNaN", []string{"sum"}, []string{"y"}))
	// What looks like a norm, but for a number that is a tensor of more dimensions.
	rank := nodeCase{name: "a wide epsilon", inputs: inputs{numbers(2, 4), tensor.Of([]float32{1e-3}, 1, 1, 1), ints(-1)}, constants: true, nodes: []*onnx.Node{
		onnx.NewNode("Mul", []string{"x0", "x0"}, []string{"square"}), onnx.NewNode("ReduceMean", []string{"square", "x2"}, []string{"mean"}),
		onnx.NewNode("Add", []string{"mean", "x1"}, []string{"sum"}), onnx.NewNode("Sqrt", []string{"sum"}, []string{"root"}), onnx.NewNode("Div", []string{"x0", "root"}, []string{"y"})}}
	// ONNX Runtime's own Split ends the process.
	leftOut := nodeCase{name: "a part left out", inputs: inputs{tensor.Of([]float32{1, 2, 3, 4}, 4)}, nodes: []*onnx.Node{onnx.NewNode("Neg", []string{"x0"}, []string{"negative"}),
		onnx.NewNode("Split", []string{"negative"}, []string{"", "y"}, onnx.IntAttr("num_outputs", 2))}}.device(tensor.Of([]float32{-3, -4}, 2))
	nothing := nodeCase{name: "attention over nothing", inputs: inputs{numbers(1, 2, 3, 4), numbers(1, 2, 4, 0), numbers(1, 2, 0, 5)}, nodes: []*onnx.Node{
		onnx.NewNode("MatMul", []string{"x0", "x1"}, []string{"scores"}), onnx.NewNode("Softmax", []string{"scores"}, []string{"weights"}),
		onnx.NewNode("MatMul", []string{"weights", "x2"}, []string{"y"})}}
	// The second half of two would end at 2, and what ends at 0 is nothing: the first half is times both sines.
	noHalf := nodeCase{name: "no second half", known: true, constants: true, inputs: inputs{numbers(3, 2), ints(0), ints(1), ints(-1), numbers(2)}, nodes: []*onnx.Node{
		onnx.NewNode("Slice", []string{"x0", "x1", "x2", "x3"}, []string{"low"}), onnx.NewNode("Slice", []string{"x0", "x2", "x1", "x3"}, []string{"high"}),
		onnx.NewNode("Neg", []string{"high"}, []string{"negative"}), onnx.NewNode("Concat", []string{"negative", "low"}, []string{"turned"}, onnx.IntAttr("axis", -1)),
		onnx.NewNode("Mul", []string{"x0", "x4"}, []string{"plain"}), onnx.NewNode("Mul", []string{"turned", "x4"}, []string{"product"}),
		onnx.NewNode("Add", []string{"plain", "product"}, []string{"y"})}}
	constant := nodeCase{name: "of a constant that nothing else uses", inputs: inputs{numbers(1, 5), numbers(3, 5)}, constants: true, nodes: []*onnx.Node{
		onnx.NewNode("Shape", []string{"x1"}, []string{"shape"}), onnx.NewNode("Expand", []string{"x0", "shape"}, []string{"rows"}),
		onnx.NewNode("Size", []string{"x1"}, []string{"size"}), onnx.NewNode("Cast", []string{"size"}, []string{"count"}, onnx.IntAttr("to", int64(onnx.Float))),
		onnx.NewNode("Add", []string{"rows", "count"}, []string{"y"})}}
	query, cache := numbers(2, 2, 5, 4), numbers(2, 2, 4, 4)
	for _, c := range []nodeCase{
		single("a bias", "com.microsoft::FastGelu", inputs{numbers(2, 3), numbers(3)}),
		single("no bias", "com.microsoft::FastGelu", inputs{numbers(2, 3)}),
		truths,
		nothing,
		noHalf,
		constant,
		single("lengths, causal", "Attention", inputs{query, cache, cache, nil, nil, nil, ints(2, 4)}, onnx.IntAttr("is_causal", 1)).of(24),
		single("lengths, causal, fewer queries", "Attention", inputs{numbers(2, 2, 2, 4), cache, cache, nil, nil, nil, ints(2, 4)}, onnx.IntAttr("is_causal", 1)).of(24),
		single("a single query, causal", "Attention", inputs{numbers(2, 2, 1, 4), cache, cache}, onnx.IntAttr("is_causal", 1)).of(24),
		single("windows", "Attention", inputs{query, cache, cache}, onnx.IntAttr("left_window_size", 1), onnx.IntAttr("is_causal", 1)).of(25),
		single("a padding mask below 0", "com.microsoft::MultiHeadAttention", inputs{numbers(2, 3, 8), numbers(2, 4, 8), numbers(2, 4, 8), nil,
			tensor.Of([]int32{1, -1, 2, 0, 1, 1, -7, 1}, 2, 4)}, onnx.IntAttr("num_heads", 2)),
		single("a scale of one", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(1)}),
		single("a column of scales", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(3, 1), numbers(8)}, onnx.IntAttr("axis", 1)),
		single("scales of unknown rows", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(3, 8)}).unknown("unknown shape"),
		single("a single scale of rows that may be more", "RMSNormalization", inputs{numbers(2, 3, 8), numbers(1, 1, 8)}).of(23).unknown("unknown shape"),
		one("ArgMax", number), one("ArgMin", number, onnx.IntAttr("keepdims", 0)),
		single("a number", "ReduceSum", inputs{number, ints(0)}), single("a number", "ReduceL2", inputs{number, ints(-1)}, onnx.IntAttr("keepdims", 0)),
		single("eight dimensions", "Tile", inputs{numbers(2, 3, 2, 2, 3, 2, 2, 2), ints(2, 1, 3, 2, 2, 1, 2, 3)}),
		single("every one of eight dimensions", "Tile", inputs{numbers(2, 2, 2, 2, 2, 2, 2, 2), ints(2, 2, 2, 2, 2, 2, 2, 2)}),
		single("a number", "Tile", inputs{number, ints()}),
		single("five dimensions", "Tile", inputs{numbers(2, 3, 2, 3, 2), ints(3, 2, 3, 2, 3)}),
		single("a scale of more", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(3, 8)}).leaves("another shape"),
		single("a scale with a one ahead", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(1, 8), numbers(8)}).shaped(),
		single("two axes", "LayerNormalization", inputs{numbers(2, 3, 8), numbers(3, 8), numbers(3, 8)}, onnx.IntAttr("axis", 1)),
		single("a scale of batches", "RMSNormalization", inputs{numbers(2, 3, 8), numbers(2, 1, 8)}).of(23).leaves("another shape"),
		single("a scale of another type", "SimplifiedLayerNormalization", inputs{numbers(2, 8), half(8)}).leaves("different types"),
		single("no axes", "ReduceL1", inputs{numbers(2, 3)}, onnx.IntAttr("noop_with_empty_axes", 1)),
		single("no axes", "ReduceL2", inputs{numbers(2, 3)}, onnx.IntAttr("noop_with_empty_axes", 1)),
		single("no axes", "ReduceSumSquare", inputs{numbers(2, 3)}, onnx.IntAttr("noop_with_empty_axes", 1)),
		single("no axes", "ReduceMean", inputs{numbers(2, 3)}, onnx.IntAttr("noop_with_empty_axes", 1)),
		single("nothing", "Flatten", inputs{numbers(0, 3)}),
		single("to the end", "Flatten", inputs{numbers(2, 3)}, onnx.IntAttr("axis", 2)),
		single("NaN", "HardSigmoid", inputs{tensor.Of([]float32{nan, 9, -9, 0.25}, 4)}),
		single("of large numbers", "Range", inputs{scalar(math.MinInt64 + 1), scalar(math.MinInt64 + 12), scalar(5)}).device(ints(math.MinInt64+1, math.MinInt64+6, math.MinInt64+11)),
		single("backwards, of large numbers", "Range", inputs{scalar(1<<60 + 5), scalar(1 << 60), scalar(-2)}).device(ints(1<<60+5, 1<<60+3, 1<<60+1)),
		single("the largest step", "Slice", inputs{numbers(2, 3), ints(0), ints(math.MaxInt64), ints(1), ints(math.MaxInt64)}),
		single("backwards to the largest number", "Slice", inputs{numbers(4, 3), ints(-1, 9), ints(math.MaxInt64, math.MaxInt32), ints(0, 1), ints(-1, -2)}),
		single("the least step", "Slice", inputs{numbers(2, 3), ints(-1), ints(math.MinInt64), ints(1), ints(math.MinInt64)}),
		single("backwards", "Slice", inputs{numbers(2, 5), ints(-1), ints(math.MinInt64), ints(1), ints(-2)}),
		single("backwards, nothing", "Slice", inputs{numbers(0, 3), ints(-1), ints(-100), ints(0), ints(-1)}),
		single("all that there is, and more", "Pad", inputs{numbers(3, 1), ints(-5, -2, 10, 2)}),
		single("a last window beyond the end", "MaxPool", inputs{numbers(1, 2, 9, 3)}, onnx.IntsAttr("kernel_shape", 3, 4), onnx.IntsAttr("strides", 2, 3), onnx.IntAttr("ceil_mode", 1)),
		single("infinities above", "Clip", inputs{infinities, tensor.Of([]float32{0})}),
		single("infinities below", "Clip", inputs{infinities, nil, tensor.Of([]float32{1})}),
		single("infinities times 0", "Gemm", inputs{numbers(2, 3), numbers(3, 4), infinities}, onnx.FloatAttr("beta", 0)),
		single("the padding too", "Pad", inputs{numbers(3), ints(2, -4)}),
		single("of nothing", "ReduceMax", inputs{tensor.Of([]int32{}, 2, 0), ints(1)}),
		single("a wide exponent", "Pow", inputs{tensor.Of([]int32{0, -2, 3}, 3), ints(1<<32, 3, 4)}),
		single("an exponent of 32 bits", "Pow", inputs{half(3), tensor.Of([]float32{2, 3, 0.5}, 3)}),
		single("the least number", "Div", inputs{ints(math.MinInt64, 6), ints(-1, -1)}).device(ints(math.MinInt64, -6)),
		single("the least number", "Mod", inputs{ints(math.MinInt64, 7), ints(-1, -1)}).device(ints(0, 0)),
		single("beyond the integers", "Cast", inputs{tensor.Of([]float32{-1.9, 3e9, -3e9, nan}, 4)}, onnx.IntAttr("to", int64(onnx.Int32))).device(tensor.Of([]int32{-1, math.MaxInt32, math.MinInt32, 0}, 4)),
		rank, leftOut,
		// More than a launch has blocks in its second and third dimension.
		single("many batches", "MatMul", inputs{numbers(70000, 1, 2), numbers(70000, 2, 3)}),
		single("many batches of few rows", "MatMul", inputs{numbers(70000, 8, 2), numbers(70000, 2, 3)}),
		single("many heads", "Attention", inputs{numbers(70000, 1, 1, 4), numbers(70000, 1, 2, 4), numbers(70000, 1, 2, 4)}).of(23),
		single("many heads and queries", "Attention", inputs{numbers(70000, 1, 9, 4), numbers(70000, 1, 2, 4), numbers(70000, 1, 2, 4)}).of(23),
	} {
		t.Run(c.nodes[len(c.nodes)-1].OpType+"/"+c.name, func(t *testing.T) {
			path, fed := c.build(t)
			want, err := c.result, error(nil)
			if want == nil {
				want, err = runNodes(t, path, "", fed)
			}
			if err != nil && strings.Contains(err.Error(), "Unrecognized attribute") {
				t.Skip("an attribute of a later ONNX Runtime")
			}
			if err != nil {
				t.Fatal(err)
			}
			before := about.Traffic().Runs
			got, err := runNodes(t, path, library, fed)
			if err != nil {
				t.Fatal(err)
			}
			if d := distance(t, want, got); !(d < 1e-5) {
				t.Errorf("off by %g", d)
			}
			ran := about.Traffic().Runs > before
			if ran != (c.left == "") {
				t.Errorf("on the device: %t", ran)
			}
			if c.left == "" {
				return
			}
			nodes, err := openORT(t).Placement(context.Background(), path, options(library), fed)
			if err != nil || !slices.ContainsFunc(nodes, func(n ort.NodeRun) bool { return strings.Contains(n.Reason, c.left) }) {
				t.Errorf("%+v, %v, want %q", nodes, err, c.left)
			}
		})
	}
}

// Shapes, sizes and axes that do not go together are an error that says which, and nothing is read or written beyond the end of a tensor, nor is
// the session of no use afterwards.
func TestProviderRefusesShapes(t *testing.T) {
	library := testenv.Provider(t)
	type inputs = []*tensor.Tensor
	large := ints(65536, 65536, 65536, 65536)
	empty := single("too large for any memory", "Reshape", inputs{numbers(0, 4), large}, onnx.IntAttr("allowzero", 1)).fails("too large for any memory")
	empty.nodes[0].Outputs = []string{"all"}
	empty.nodes = append(empty.nodes, onnx.NewNode("Slice", []string{"all", "x2", "x3"}, []string{"y"}))
	empty.inputs = append(empty.inputs, ints(0), ints(9))
	rotary := func(name string, x, positions, cosine, sine *tensor.Tensor, heads int64) nodeCase {
		return single(name, "com.microsoft::RotaryEmbedding", inputs{x, positions, cosine, sine}, onnx.IntAttr("num_heads", heads)).fails("RotaryEmbedding")
	}
	skip := func(name string, shapes ...int64) nodeCase {
		return single(name, "com.microsoft::SkipLayerNormalization", inputs{numbers(2, 3, 8), numbers(2, 3, 8), numbers(shapes[0]), numbers(shapes[1]), numbers(shapes[2])}).fails("want 8 elements")
	}
	other := func(name string, dims ...int64) nodeCase {
		return single(name, "com.microsoft::SkipLayerNormalization", inputs{numbers(dims[:3]...), numbers(dims[3:]...), numbers(8)}).fails("skip of")
	}
	group := func(name string, keys, values *tensor.Tensor, total int32, want string) nodeCase {
		return single(name, "com.microsoft::GroupQueryAttention", inputs{numbers(1, 2, 8), numbers(1, 2, 8), numbers(1, 2, 8), keys, values, tensor.Of([]int32{total - 1}, 1), tensor.Of([]int32{total}, 1)},
			onnx.IntAttr("num_heads", 2), onnx.IntAttr("kv_num_heads", 2)).fails(want)
	}
	deep := single("more indices than any tensor has dimensions", "GatherND", inputs{numbers(2, 1, 1, 1, 1, 1, 1, 1, 1), tensor.Of(make([]int64, 9), 1, 9)}).fails("9 indices")
	deep.open = true
	pool := single("of a number", "GlobalAveragePool", inputs{tensor.Of([]float32{1})}).fails("no channels")
	pool.open = true
	added := nodeCase{name: "ahead of its norm", constants: true, inputs: inputs{numbers(2, 3, 8), numbers(2, 4, 8), numbers(8)},
		nodes: []*onnx.Node{onnx.NewNode("Add", []string{"x0", "x1"}, []string{"sum"}), onnx.NewNode("LayerNormalization", []string{"sum", "x2"}, []string{"y"})}}
	picked := single("an index of no row", "Gather", inputs{numbers(2, 3), scalar(3)}, onnx.IntAttr("axis", 1))
	picked.constants = true
	cases := []nodeCase{
		deep, pool, added.fails("Add node Add0: shapes [2,3,8] and [2,4,8]"), picked.fails("Gather node Gather0: index 3 along axis 1 of [2,3]"),
		group("no past", nil, nil, 6, "total_sequence_length 6 for 2 tokens after a past of 0"),
		group("a short past", numbers(1, 2, 4, 4), numbers(1, 2, 4, 4), 12, "after a past of 4"),
		group("fewer values", numbers(1, 2, 4, 4), numbers(1, 2, 3, 4), 6, "a past of 4 keys and 3 values"),
		single("fewer values", "Attention", inputs{numbers(1, 2, 1, 4), numbers(1, 2, 1, 4), numbers(1, 2, 1, 4), nil, numbers(1, 2, 4, 4), numbers(1, 2, 3, 4)}).of(24).fails("a past of 4 keys and 3 values"),
		single("more values", "com.microsoft::MultiHeadAttention", inputs{numbers(1, 1, 8), numbers(1, 1, 8), numbers(1, 1, 8), nil, nil, nil, numbers(1, 2, 3, 4), numbers(1, 2, 4, 4)},
			onnx.IntAttr("num_heads", 2)).fails("a past of 3 keys and 4 values"),
		single("other rows", "Concat", inputs{numbers(2, 3), numbers(5000, 3)}, onnx.IntAttr("axis", 1)).fails("[2,3] and [5000,3]"),
		single("no steps", "Range", inputs{scalar(0), scalar(3), scalar(0)}).fails("delta of 0"),
		single("all numbers", "Range", inputs{scalar(math.MinInt64), scalar(math.MaxInt64), scalar(1)}).fails("too large for any memory"),
		single("no number", "Range", inputs{tensor.Of([]float32{0}), tensor.Of([]float32{float32(math.NaN())}), tensor.Of([]float32{1})}).fails("Range from 0.000000 to nan"),
		single("negative sizes", "Reshape", inputs{numbers(2, 3), ints(-2, -3)}).fails("[-2,-3]"),
		single("an open one in vain", "Reshape", inputs{numbers(2, 3), ints(4, -1)}).fails("[2,3] to [4,1]"),
		empty,
		single("a negative size", "ConstantOfShape", inputs{ints(-1)}).fails("[-1]"),
		single("more counts than dimensions", "Tile", inputs{numbers(3), ints(2, 2)}).fails("Tile of [3] by [2,2]"),
		single("more ends than axes", "Slice", inputs{numbers(8, 3), ints(4), ints(9, 2), ints(0)}).fails("from [4] to [9,2] along [0]"),
		single("more steps than axes", "Slice", inputs{numbers(8, 3), ints(4), ints(9), ints(0), ints(1, 2)}).fails("by [1,2]"),
		single("more pads than axes", "Pad", inputs{numbers(3), ints(1, 2, 1, 2), nil, ints(0)}).fails("Pad of [3] along [0] by [1,2,1,2]"),
		other("as long, but turned", 2, 3, 8, 3, 2, 8), other("one token for all", 2, 3, 8, 2, 1, 8), other("more batches", 2, 3, 8, 4, 3, 8),
		single("a negative count", "Tile", inputs{numbers(3), ints(-2)}).fails("[-6]"),
		single("a negative part", "Split", inputs{numbers(3), ints(5, -2)}).splits().fails("parts of [5,-2]"),
		single("more than there is", "Pad", inputs{numbers(3), ints(-2, -2)}).fails("[-1]"),
		single("more than any", "Pad", inputs{numbers(3), ints(0, math.MaxInt64)}).fails("Pad of [3] by 9223372036854775807"),
		single("no number", "Pad", inputs{numbers(3), ints(1, 1), numbers(0)}).fails("single number"),
		single("an axis twice", "Slice", inputs{numbers(8, 3), ints(4, 4), ints(9, 9), ints(0, 0)}).fails("comes twice"),
		single("an axis that is not one", "Squeeze", inputs{numbers(2, 3), ints(1)}).fails("is not 1"),
		single("no limit", "Clip", inputs{numbers(3), numbers(0)}).fails("single number"),
		single("other dimensions", "GatherElements", inputs{numbers(2, 3), tensor.Of(make([]int64, 6), 1, 2, 3)}).fails("[1,2,3]"),
		single("more columns", "GatherElements", inputs{numbers(2, 3), tensor.Of(make([]int64, 4000), 1, 4000)}).fails("[1,4000]"),
		single("other batches", "GatherND", inputs{numbers(2, 3), tensor.Of(make([]int64, 5000), 5000, 1)}, onnx.IntAttr("batch_dims", 1)).fails("[5000,1]"),
		single("batches from the end", "GatherND", inputs{numbers(2, 3), tensor.Of(make([]int64, 5), 5, 1)}, onnx.IntAttr("batch_dims", -1)).fails("batch_dims -1"),
		single("more indices than dimensions", "GatherND", inputs{numbers(2, 3), tensor.Of(make([]int64, 15), 5, 3)}).fails("[5,3]"),
		rotary("few positions", numbers(2, 3, 8), tensor.Of(make([]int64, 2), 2, 1), numbers(9, 2), numbers(9, 2), 2),
		rotary("wide cosines", numbers(2, 3, 8), tensor.Of(make([]int64, 6), 2, 3), numbers(9, 8), numbers(9, 8), 2),
		rotary("few sines", numbers(2, 3, 8), tensor.Of(make([]int64, 6), 2, 3), numbers(9, 2), numbers(1, 2), 2),
		skip("a short scale", 1, 8, 8), skip("a short shift", 8, 1, 8), skip("a short bias", 8, 8, 1),
		single("a short scale", "BatchNormalization", inputs{numbers(2, 3, 4, 4), numbers(1), numbers(3), numbers(3), numbers(3)}).fails("want 3 elements"),
		single("a short bias", "Conv", inputs{numbers(1, 2, 5, 5), numbers(3, 2, 3, 3), numbers(1)}).fails("a bias of [1]"),
		single("groups that do not divide", "Conv", inputs{numbers(1, 2, 5, 5), numbers(3, 1, 3, 3)}, onnx.IntAttr("group", 2)).fails("2 groups"),
		single("no groups", "Conv", inputs{numbers(1, 0, 5, 5), numbers(2, 2, 3, 3)}, onnx.IntAttr("group", 0)).fails("0 groups"),
	}
	if testenv.Slow() { // three gigabytes
		cases = append(cases, single("places beyond an int", "Slice", inputs{tensor.Of(make([]uint8, 3<<30), 3, 1<<30), ints(0), ints(1 << 40), ints(1), ints(1 << 28)}).fails("2^31"))
	}
	for _, c := range cases {
		t.Run(c.nodes[0].OpType+"/"+c.name, func(t *testing.T) {
			path, fed := c.build(t)
			if _, err := runNodes(t, path, library, fed); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ort.ProviderName) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// An output that no memory holds is said to be that, in a way that the tool's exit code tells, and is not written.
func TestProviderRunsOutOfMemory(t *testing.T) {
	c := single("", "ConstantOfShape", []*tensor.Tensor{ints(1 << 58)})
	path, fed := c.build(t)
	if _, err := runNodes(t, path, testenv.Provider(t), fed); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("%v, want out of memory", err)
	}
}

// Positions that the tables do not reach give zeros, as indices beyond the end do.
func TestProviderRotatesKnownPositions(t *testing.T) {
	library := testenv.Provider(t)
	x, table := numbers(1, 3, 4), numbers(4, 2)
	for _, positions := range []*tensor.Tensor{tensor.Of([]int64{3, -1, 1 << 40}, 1, 3), ints(3)} {
		c := single("", "com.microsoft::RotaryEmbedding", []*tensor.Tensor{x, positions, table, table})
		path, fed := c.build(t)
		y, err := runNodes(t, path, library, fed)
		if err != nil {
			t.Fatal(err)
		}
		v, err := tensor.View[float32](y)
		if err != nil {
			t.Fatal(err)
		}
		if v[0] == 0 || slices.Max(v[4:]) != 0 || slices.Min(v[4:]) != 0 {
			t.Errorf("positions %v: %v", positions.Shape, v)
		}
	}
}

// Constants of a coded weight of another type than the format has are no weight, whatever size their elements have.
func TestProviderWantsTheTypesOfTheFormat(t *testing.T) {
	library := testenv.Provider(t)
	file, err := os.ReadFile(filepath.Join(testenv.Root(t), "rewrite", "testdata", "compat", "v1", "d4.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	taken := func(change func(*onnx.Graph, *onnx.Node)) bool {
		m, err := onnx.Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		change(m.Graph, m.Graph.Nodes[0])
		path := filepath.Join(t.TempDir(), "model.onnx")
		if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		nodes, err := openORT(t).Placement(context.Background(), path, options(library), map[string]*tensor.Tensor{"x0": numbers(2, 3, 60)})
		// What nobody takes is computed by the function that the model has for it, or is an error.
		return err == nil && slices.ContainsFunc(nodes, func(n ort.NodeRun) bool { return n.Op == cudaops.OpName && n.Provider == ort.ProviderName })
	}
	if !taken(func(*onnx.Graph, *onnx.Node) {}) {
		t.Fatal("the weight as it is was left to the CPU")
	}
	for input, as := range map[int]onnx.DataType{1: onnx.Int8, 2: onnx.Uint16, 4: onnx.Uint8, 6: onnx.Int32} {
		change := func(g *onnx.Graph, n *onnx.Node) {
			for _, c := range g.Initializers {
				if c.Name == n.Inputs[input] {
					c.DataType = as
				}
			}
		}
		if taken(change) {
			t.Errorf("input %d as %s was taken", input, as)
		}
	}
}
