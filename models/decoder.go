package models

import (
	"fmt"
	"math"

	"github.com/cosetq/cosetq/onnx"
)

// Decoder is a language model in the manner of Llama, as the model builder of ONNX Runtime GenAI writes one: grouped-query attention over a
// cache of keys and values that the caller keeps, rotary positions, and a gated network, each behind a root-mean-square normalization. Its
// weights are random, drawn from a table, so that one of billions of weights is made in seconds: it is there to be timed, and to test
// runtimes with.
type Decoder struct {
	Layers, Width      int
	Heads, CacheHeads  int // of queries, and of keys and values; Width is a multiple of Heads, and they of CacheHeads
	Network            int // width of the gated network
	Vocabulary, Tokens int // tokens that there are, and the most that one sequence has
	Half               bool
	Apart              bool // queries, keys and values are products of their own, as many exporters write them
	Pieces             bool // attention is in the pieces that PyTorch's exporter writes, over caches that grow, without attention_mask; they are Apart
	Seed               uint64
}

// decoderTable is how many numbers the weights of a [Decoder] are drawn from: each row takes a run of them.
const decoderTable = 1 << 20

// ONNX is the model: input_ids [batch, sequence], attention_mask [batch, total] of int64 and, for each layer, past_key_values.i.key and .value
// [batch, cache heads, past, size of a head] → logits [batch, sequence, vocabulary] and present.i.key and .value. It comes out the same on every machine.
func (c Decoder) ONNX() *onnx.Model {
	model := onnx.NewModel(10, 21, "decoder")
	model.SetOpset("com.microsoft", 1)
	model.ProducerName = "cosetq"
	model.DocString = "A decoder with random weights. Made by github.com/cosetq/cosetq/models."
	b := &decoderBuilder{Decoder: c, graph: model.Graph, random: newRandom(c.Seed, 1), kind: onnx.Float}
	if c.Half {
		b.kind = onnx.Float16
	}
	for range decoderTable {
		b.table = append(b.table, float32(b.random.normal()))
	}
	g := b.graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo(tokensName, onnx.Int64, "batch_size", "sequence_length")}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(outputName, b.kind, "batch_size", "sequence_length", c.Vocabulary)}
	b.rotary()
	if c.Pieces {
		b.positions()
	} else {
		g.Inputs = append(g.Inputs, onnx.NewValueInfo("attention_mask", onnx.Int64, "batch_size", "total_sequence_length"))
		b.lengths()
	}
	sum := b.node("", "Gather", "embedding", b.weight("embedding.weight", c.Vocabulary, c.Width, math.Sqrt(float64(c.Vocabulary))), tokensName)
	x := b.node("", "SimplifiedLayerNormalization", "layer0.norm1", sum, b.ones("layer0.norm1.weight"))
	for i := range c.Layers {
		name := fmt.Sprintf("layer%d", i)
		if i > 0 {
			x, sum = b.norm(name+".norm1", sum, b.product(fmt.Sprintf("layer%d.down", i-1), x, c.Network, c.Width, 0.5))
		}
		x, sum = b.norm(name+".norm2", sum, b.attention(i, name, x))
		gate := b.product(name+".gate", x, c.Width, c.Network, 1)
		gate = b.node("", "Mul", name+".swish", gate, b.node("", "Sigmoid", name+".sigmoid", gate))
		x = b.node("", "Mul", name+".gated", gate, b.product(name+".up", x, c.Width, c.Network, 1))
	}
	x, _ = b.norm("norm", sum, b.product(fmt.Sprintf("layer%d.down", c.Layers-1), x, c.Network, c.Width, 0.5))
	b.append("", "MatMul", "head", []string{x, b.weight("head.weight", c.Width, c.Vocabulary, surprise)}, []string{outputName})
	return model
}

type decoderBuilder struct {
	Decoder
	graph  *onnx.Graph
	random random
	kind   onnx.DataType
	table  []float32
}

func (b *decoderBuilder) append(domain, op, name string, inputs, outputs []string, attrs ...*onnx.Attribute) {
	n := onnx.NewNode(op, inputs, outputs, attrs...)
	n.Name, n.Domain = name, domain
	b.graph.Nodes = append(b.graph.Nodes, n)
}

// node appends a node with one output, and returns that.
func (b *decoderBuilder) node(domain, op, name string, inputs ...string) string {
	b.append(domain, op, name, inputs, []string{name + ".out"})
	return name + ".out"
}

// floats is a constant of the model's type.
func (b *decoderBuilder) floats(name string, dims []int64, v []float32) string {
	t := onnx.NewTensor(name, dims, v)
	if b.Half {
		t = onnx.NewFloat16Tensor(name, dims, v)
	}
	b.graph.Initializers = append(b.graph.Initializers, t)
	return name
}

func (b *decoderBuilder) ones(name string) string {
	v := make([]float32, b.Width)
	for i := range v {
		v[i] = 1
	}
	return b.floats(name, []int64{int64(b.Width)}, v)
}

// weight is [in, out], and gives outputs of the standard deviation gain for inputs of 1.
func (b *decoderBuilder) weight(name string, in, out int, gain float64) string {
	scale := float32(gain / math.Sqrt(float64(in)))
	scaled := make([]float32, len(b.table)+out) // runs may go on at the begin
	for i := range scaled {
		scaled[i] = scale * b.table[i%len(b.table)]
	}
	dims := []int64{int64(len(scaled))}
	run := onnx.NewTensor("", dims, scaled)
	if b.Half {
		run = onnx.NewFloat16Tensor("", dims, scaled)
	}
	size := len(run.RawData) / len(scaled)
	raw := make([]byte, 0, in*out*size)
	for range in {
		from := int(b.random.between(0, float64(len(b.table)))) * size
		raw = append(raw, run.RawData[from:from+out*size]...)
	}
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewRawTensor(name, b.kind, []int64{int64(in), int64(out)}, raw))
	return name
}

func (b *decoderBuilder) product(name, x string, in, out int, gain float64) string {
	return b.node("", "MatMul", name, x, b.weight(name+".weight", in, out, gain))
}

// norm normalizes the sum of both, and returns the result and the sum.
func (b *decoderBuilder) norm(name, sum, x string) (string, string) {
	b.append("com.microsoft", "SkipSimplifiedLayerNormalization", name, []string{sum, x, b.ones(name + ".weight")}, []string{name + ".out", "", "", name + ".sum"})
	return name + ".out", name + ".sum"
}

// lengths are what attention asks for: the last token of each sequence, and how many the mask has room for.
func (b *decoderBuilder) lengths() {
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor("one", []int64{1}, []int64{1}), onnx.NewTensor("second", nil, []int64{1}))
	b.append("", "ReduceSum", "tokens", []string{"attention_mask", "one"}, []string{"tokens"}, onnx.IntAttr("keepdims", 0))
	b.append("", "Sub", "before", []string{"tokens", "one"}, []string{"before"})
	b.append("", "Cast", "last", []string{"before"}, []string{"last"}, onnx.IntAttr("to", int64(onnx.Int32)))
	b.append("", "Shape", "shape", []string{"attention_mask"}, []string{"shape"})
	b.append("", "Gather", "room", []string{"shape", "second"}, []string{"room"})
	b.append("", "Cast", "total", []string{"room"}, []string{"total"}, onnx.IntAttr("to", int64(onnx.Int32)))
}

// rotary are the cosines and sines of all positions, to the base 10000.
func (b *decoderBuilder) rotary() {
	half := b.Width / b.Heads / 2
	cosines, sines := make([]float32, b.Tokens*half), make([]float32, b.Tokens*half)
	for i := range cosines {
		angle := float64(i/half) * math.Pow(10000, -float64(i%half)/float64(half))
		cosines[i], sines[i] = float32(math.Cos(angle)), float32(math.Sin(angle))
	}
	dims := []int64{int64(b.Tokens), int64(half)}
	b.floats("cosines", dims, cosines)
	b.floats("sines", dims, sines)
}

func (b *decoderBuilder) attention(layer int, name, x string) string {
	size := b.Width / b.Heads
	past, present := fmt.Sprintf("past_key_values.%d", layer), fmt.Sprintf("present.%d", layer)
	for _, part := range []string{".key", ".value"} {
		b.graph.Inputs = append(b.graph.Inputs, onnx.NewValueInfo(past+part, b.kind, "batch_size", b.CacheHeads, "past_sequence_length", size))
		b.graph.Outputs = append(b.graph.Outputs, onnx.NewValueInfo(present+part, b.kind, "batch_size", b.CacheHeads, "present_sequence_length", size))
	}
	var operands [3]string
	if b.Apart || b.Pieces {
		for i, part := range []string{"q", "k", "v"} {
			heads := []int{b.Heads, b.CacheHeads, b.CacheHeads}[i]
			operands[i] = b.product(name+"."+part, x, b.Width, heads*size, 1)
		}
	} else {
		operands[0] = b.product(name+".qkv", x, b.Width, (b.Heads+2*b.CacheHeads)*size, 1)
	}
	if b.Pieces {
		return b.product(name+".o", b.inPieces(name, past, present, operands[0], operands[1], operands[2]), b.Width, b.Width, 0.5)
	}
	b.append("com.microsoft", "GroupQueryAttention", name+".attention",
		append(operands[:], past+".key", past+".value", "last", "total", "cosines", "sines"),
		[]string{name + ".attended", present + ".key", present + ".value"},
		onnx.IntAttr("num_heads", int64(b.Heads)), onnx.IntAttr("kv_num_heads", int64(b.CacheHeads)), onnx.IntAttr("do_rotary", 1))
	return b.product(name+".o", name+".attended", b.Width, b.Width, 0.5)
}
