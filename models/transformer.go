package models

import (
	"fmt"
	"math"

	"github.com/cosetq/cosetq/onnx"
)

// Transformer is a decoder over bytes in the manner of GPT-2: embeddings of bytes and positions, layers of causal self-attention and
// a Gelu network twice as wide, each behind a LayerNormalization and around a residual connection, and a head of its own. Its
// weights are random: it knows nothing, and has every operation of a real one, for tests and examples that need no more.
type Transformer struct {
	Layers, Width, Heads int // Width is a multiple of Heads
	Context              int // tokens at most
	Seed                 uint64
}

// Tokens is the size of the vocabulary of a [Transformer]: a token is a byte.
const Tokens = 256

const (
	tokensName = "input_ids"
	growth     = 2   // of the Gelu network
	surprise   = 1.5 // standard deviation of the logits, near enough: predictions that differ from byte to byte
)

// ONNX is the model: input_ids [batch, seq] of int64 → logits [batch, seq, 256]. It comes out the same on every machine.
func (c Transformer) ONNX() *onnx.Model {
	model := onnx.NewModel(modelIR, modelOpset, "transformer")
	model.ProducerName = "cosetq"
	model.DocString = "A small transformer with random weights. Made by github.com/cosetq/cosetq/models."
	b := &transformerBuilder{Transformer: c, graph: model.Graph, random: newRandom(c.Seed, 0)}
	b.graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo(tokensName, onnx.Int64, "batch", "seq")}
	b.graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(outputName, onnx.Float, "batch", "seq", Tokens)}
	x := b.embed()
	for i := range c.Layers {
		name := fmt.Sprintf("layer%d", i)
		x = b.node("Add", name+".residual1", x, b.attention(name, b.norm(name+".norm1", x)))
		x = b.node("Add", name+".residual2", x, b.network(name, b.norm(name+".norm2", x)))
	}
	b.append("MatMul", "head", []string{b.norm("norm", x), b.matrix("head.weight", c.Width, Tokens, surprise)}, []string{outputName})
	return model
}

// transformerBuilder appends the nodes and weights of a transformer to a graph.
type transformerBuilder struct {
	Transformer
	graph  *onnx.Graph
	random random
}

func (b *transformerBuilder) append(op, name string, inputs, outputs []string, attrs ...*onnx.Attribute) {
	n := onnx.NewNode(op, inputs, outputs, attrs...)
	n.Name = name
	b.graph.Nodes = append(b.graph.Nodes, n)
}

// node appends a node with one output, and returns that.
func (b *transformerBuilder) node(op, name string, inputs ...string) string {
	b.append(op, name, inputs, []string{name + ".out"})
	return name + ".out"
}

func (b *transformerBuilder) ints(name string, v ...int64) string {
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, []int64{int64(len(v))}, v))
	return name
}

func (b *transformerBuilder) number(name string, v float32) string {
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, nil, []float32{v}))
	return name
}

// vector is a weight of n equal numbers.
func (b *transformerBuilder) vector(name string, n int, v float32) string {
	all := make([]float32, n)
	for i := range all {
		all[i] = v
	}
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, []int64{int64(n)}, all))
	return name
}

// matrix is a random weight [in, out] that gives outputs of the standard deviation gain for inputs of 1.
func (b *transformerBuilder) matrix(name string, in, out int, gain float64) string {
	w := make([]float32, in*out)
	scale := gain / math.Sqrt(float64(in))
	for i := range w {
		w[i] = float32(scale * b.random.normal())
	}
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, []int64{int64(in), int64(out)}, w))
	return name
}

// linear is a product with a weight, and a bias.
func (b *transformerBuilder) linear(name, x string, in, out int, gain float64) string {
	y := b.node("MatMul", name, x, b.matrix(name+".weight", in, out, gain))
	return b.node("Add", name+".add", y, b.vector(name+".bias", out, 0))
}

func (b *transformerBuilder) norm(name, x string) string {
	scale, bias := b.vector(name+".scale", b.Width, 1), b.vector(name+".bias", b.Width, 0)
	b.append("LayerNormalization", name, []string{x, scale, bias}, []string{name + ".out"}, onnx.IntAttr("axis", -1))
	return name + ".out"
}

// embed is the sum of the embeddings of bytes and positions. It defines the value seq, the number of tokens, as well.
func (b *transformerBuilder) embed() string {
	tokens := b.node("Gather", "tokens", b.matrix("tokens.weight", Tokens, b.Width, math.Sqrt(Tokens)), tokensName)
	b.append("Shape", "seq", []string{tokensName}, []string{"seq"}, onnx.IntAttr("start", 1))
	table := b.matrix("positions.weight", b.Context, b.Width, 0.3*math.Sqrt(float64(b.Context)))
	positions := b.node("Slice", "positions", table, b.ints("zero", 0), "seq", b.ints("rows", 0))
	return b.node("Add", "embedding", tokens, positions)
}

// attention is causal self-attention.
func (b *transformerBuilder) attention(name, x string) string {
	size := b.Width / b.Heads
	qkv := b.linear(name+".qkv", x, b.Width, 3*b.Width, 1)
	parts := []string{name + ".q", name + ".k", name + ".v"}
	width := int64(b.Width)
	b.append("Split", name+".split", []string{qkv, b.ints(name+".parts", width, width, width)}, parts, onnx.IntAttr("axis", -1))
	for i, perm := range [][]int64{{0, 2, 1, 3}, {0, 2, 3, 1}, {0, 2, 1, 3}} { // q and v [batch, head, seq, size], k [batch, head, size, seq]
		heads := b.node("Reshape", parts[i]+".heads", parts[i], b.ints(parts[i]+".shape", 0, 0, int64(b.Heads), int64(size)))
		b.append("Transpose", parts[i]+".transpose", []string{heads}, []string{parts[i] + ".t"}, onnx.IntsAttr("perm", perm...))
	}
	scores := b.node("MatMul", name+".scores", parts[0]+".t", parts[1]+".t")
	scores = b.node("Mul", name+".scaled", scores, b.number(name+".scale", float32(1/math.Sqrt(float64(size)))))
	scores = b.node("Add", name+".masked", scores, b.mask(name))
	b.append("Softmax", name+".softmax", []string{scores}, []string{name + ".p"}, onnx.IntAttr("axis", -1))
	mixed := b.node("MatMul", name+".mixed", name+".p", parts[2]+".t")
	b.append("Transpose", name+".merge", []string{mixed}, []string{name + ".merged"}, onnx.IntsAttr("perm", 0, 2, 1, 3))
	joined := b.node("Reshape", name+".joined", name+".merged", b.ints(name+".width", 0, 0, width))
	return b.linear(name+".proj", joined, b.Width, b.Width, 0.5)
}

// mask is [seq, seq]: 0 up to the diagonal and a large negative number behind it.
func (b *transformerBuilder) mask(name string) string {
	const table = "mask"
	if b.graph.Initializer(table) == nil {
		v := make([]float32, b.Context*b.Context)
		for row := range b.Context {
			for col := row + 1; col < b.Context; col++ {
				v[row*b.Context+col] = -1e9
			}
		}
		b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(table, []int64{int64(b.Context), int64(b.Context)}, v))
	}
	rows := b.node("Slice", name+".mask.rows", table, "zero", "seq", "rows")
	return b.node("Slice", name+".mask", rows, "zero", "seq", b.ints(name+".columns", 1))
}

// network is the Gelu network, Gelu written out as exporters do.
func (b *transformerBuilder) network(name, x string) string {
	h := b.linear(name+".up", x, b.Width, growth*b.Width, 1)
	e := b.node("Div", name+".gelu.div", h, b.number(name+".gelu.root", float32(math.Sqrt2)))
	e = b.node("Erf", name+".gelu.erf", e)
	e = b.node("Add", name+".gelu.add", e, b.number(name+".gelu.one", 1))
	h = b.node("Mul", name+".gelu.mul", h, e)
	h = b.node("Mul", name+".gelu.half", h, b.number(name+".gelu.factor", 0.5))
	return b.linear(name+".down", h, growth*b.Width, b.Width, 0.5)
}
