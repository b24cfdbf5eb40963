package grad

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// nodeCase is one node of an operator of ONNX Runtime with all inputs of it, drawn at random.
type nodeCase struct {
	rng    *rand.Rand
	node   *onnx.Node
	inputs map[string]*tensor.Tensor
	fixed  []string // of the inputs, those that are no variables
}

func newNodeCase(seed uint64, op string, outputs ...string) *nodeCase {
	c := &nodeCase{rng: rand.New(rand.NewPCG(seed, 9)), node: onnx.NewNode(op, nil, outputs), inputs: map[string]*tensor.Tensor{}}
	c.node.Name, c.node.Domain = "node", "com.microsoft"
	return c
}

func (c *nodeCase) coin() bool             { return c.rng.IntN(2) == 0 }
func (c *nodeCase) oneOf(n ...int64) int64 { return n[c.rng.IntN(len(n))] }

func (c *nodeCase) set(attrs ...*onnx.Attribute) {
	c.node.Attributes = append(c.node.Attributes, attrs...)
}

// sometimes sets an attribute in a third of all cases.
func (c *nodeCase) sometimes(attr *onnx.Attribute) {
	if c.rng.IntN(3) == 0 {
		c.set(attr)
	}
}

func (c *nodeCase) feed(name string, x *tensor.Tensor) {
	c.inputs[name] = x
	c.node.Inputs = append(c.node.Inputs, name)
}

func (c *nodeCase) floats(name string, dims ...int64) {
	c.feed(name, tensor.Of(floats(c.rng, &ruleCase{}, product(dims)), dims...))
}

// integers are in [low, high), of int32.
func (c *nodeCase) integers(name string, low, high int64, dims ...int64) {
	v := make([]int32, product(dims))
	for i := range v {
		v[i] = int32(low + c.rng.Int64N(high-low))
	}
	c.feed(name, tensor.Of(v, dims...))
}

func (c *nodeCase) leaveOut() { c.node.Inputs = append(c.node.Inputs, "") }

// groupQuery draws a GroupQueryAttention: a prompt, of sequences that end early, or new tokens behind a cache that has room left or none.
func (c *nodeCase) groupQuery() {
	i, f := onnx.IntAttr, onnx.FloatAttr
	batch, tokens, own, width, past := c.oneOf(1, 2, 3), c.oneOf(1, 2, 5), c.oneOf(1, 2), c.oneOf(16, 32), c.oneOf(0, 0, 3)
	heads, room := own*c.oneOf(1, 2, 3), past
	if past > 0 && tokens > 1 {
		batch = 1 // as ONNX Runtime wants it
	}
	if c.rng.IntN(3) == 0 {
		room += c.oneOf(1, 6) // a prompt too may find a cache, of which nothing is in use
	}
	total := past + tokens
	c.set(i("num_heads", heads), i("kv_num_heads", own))
	c.sometimes(f("scale", 0.3))
	c.sometimes(f("softcap", 0.7))
	c.sometimes(i("smooth_softmax", 1))
	window := int64(-1)
	if c.rng.IntN(4) == 0 {
		c.set(i("causal", 0))
	} else if c.rng.IntN(3) == 0 {
		window = c.oneOf(1, 2, 70)
		c.set(i("local_window_size", window))
	}
	if c.coin() {
		c.floats("q", batch, tokens, (heads+2*own)*width)
		c.leaveOut()
		c.leaveOut()
	} else {
		c.floats("q", batch, tokens, heads*width)
		c.floats("k", batch, tokens, own*width)
		c.floats("v", batch, tokens, own*width)
	}
	if room > 0 || c.coin() {
		c.floats("past_key", batch, own, room, width)
		c.floats("past_value", batch, own, room, width)
	} else {
		c.leaveOut()
		c.leaveOut()
	}
	last := make([]int32, batch)
	for b := range last {
		last[b] = int32(total - 1)
		// What ONNX Runtime makes of padding with a window differs among its own kernels.
		if b > 0 && (tokens == 1 || window < 0) {
			last[b] = int32(c.rng.Int64N(total))
		}
	}
	c.feed("last", tensor.Of(last, batch))
	c.feed("total", tensor.Of([]int32{int32(total)}, 1))
	if c.coin() {
		c.fixed = append(c.fixed, "total")
	}
	rotary := c.coin()
	if rotary {
		half := c.oneOf(8, width/2)
		c.set(i("do_rotary", 1))
		c.sometimes(i("rotary_interleaved", 1))
		c.floats("cosines", total+3, half)
		c.floats("sines", total+3, half)
		c.fixed = append(c.fixed, "cosines", "sines")
	} else {
		c.leaveOut()
		c.leaveOut()
	}
	if rotary && c.coin() {
		at := make([]int64, batch*tokens)
		for j := range at {
			at[j] = c.rng.Int64N(4)
		}
		c.feed("positions", tensor.Of(at, batch, tokens))
	} else {
		c.leaveOut()
	}
	if c.rng.IntN(3) == 0 {
		c.floats("bias", c.oneOf(1, batch), c.oneOf(1, heads), tokens, total)
	} else {
		c.leaveOut()
	}
	if c.rng.IntN(3) == 0 {
		c.floats("sink", heads)
	}
}

// padding draws a mask of keys. Every query sees the first key: where all are hidden, and scores near the filter, they are rounded.
func (c *nodeCase) padding(name string, batch, tokens, keys int64) {
	switch c.rng.IntN(4) {
	case 0:
		c.integers(name, 1, keys+1, batch)
		return
	case 1:
		c.integers(name, 0, 2, batch, tokens, keys)
	case 2:
		c.integers(name, 0, 2, batch, keys)
	default:
		c.leaveOut()
		return
	}
	marks, _ := tensor.View[int32](c.inputs[name])
	for i := 0; i < len(marks); i += int(keys) {
		marks[i] = 1
	}
}

func (c *nodeCase) multiHead() {
	i, f := onnx.IntAttr, onnx.FloatAttr
	batch, tokens, heads, width, past := c.oneOf(1, 2), c.oneOf(1, 2, 5), c.oneOf(1, 2, 3), c.oneOf(2, 4), c.oneOf(0, 0, 3)
	wide, keys := width, c.oneOf(tokens, tokens, 4)
	c.set(i("num_heads", heads))
	c.sometimes(f("scale", 0.3))
	c.sometimes(f("mask_filter_value", -2))
	c.sometimes(i("unidirectional", 1))
	c.floats("q", batch, tokens, heads*width)
	if past == 0 && c.rng.IntN(4) == 0 {
		c.floats("k", batch, heads, keys, width)
		c.floats("v", batch, heads, keys, wide)
	} else {
		if past == 0 {
			wide = c.oneOf(width, 3)
		}
		c.floats("k", batch, keys, heads*width)
		c.floats("v", batch, keys, heads*wide)
	}
	if c.coin() {
		c.floats("bias", heads*(2*width+wide))
	} else {
		c.leaveOut()
	}
	c.padding("padding", batch, tokens, past+keys)
	if c.rng.IntN(3) == 0 {
		c.floats("score_bias", c.oneOf(1, batch), c.oneOf(1, heads), tokens, past+keys)
	} else {
		c.leaveOut()
	}
	if past > 0 {
		c.floats("past_key", batch, heads, past, width)
		c.floats("past_value", batch, heads, past, wide)
	} else if c.coin() {
		c.node.Outputs = c.node.Outputs[:1]
	}
}

// projected draws an Attention that makes queries, keys and values itself.
func (c *nodeCase) projected() {
	i, f := onnx.IntAttr, onnx.FloatAttr
	batch, tokens, heads, width, past := c.oneOf(1, 2), c.oneOf(1, 2, 5), c.oneOf(1, 2, 3), c.oneOf(2, 4), c.oneOf(0, 0, 3)
	c.set(i("num_heads", heads))
	c.sometimes(f("scale", 0.3))
	c.sometimes(f("mask_filter_value", -2))
	c.sometimes(i("unidirectional", 1))
	all := 3 * heads * width
	if past == 0 && c.coin() {
		wide := c.oneOf(1, 5)
		c.set(onnx.IntsAttr("qkv_hidden_sizes", heads*width, heads*width, heads*wide))
		all = heads * (2*width + wide)
		c.node.Outputs = c.node.Outputs[:1]
	}
	c.floats("x", batch, tokens, 6)
	c.floats("weights", 6, all)
	c.floats("bias", all)
	switch c.rng.IntN(4) {
	case 0:
		c.integers("padding", 0, 2, c.oneOf(1, batch), 1)
	case 1: // the ends of all sequences, then their begins
		c.integers("padding", past+tokens, past+tokens+1, 2*batch)
		mask, _ := tensor.View[int32](c.inputs["padding"])
		for b := range batch {
			mask[batch+b] = int32(c.rng.Int64N(past + 1))
		}
	default:
		c.padding("padding", batch, tokens, past+tokens)
	}
	if past > 0 {
		c.floats("past", 2, batch, heads, past, width)
	} else {
		c.leaveOut()
		if c.coin() {
			c.floats("score_bias", c.oneOf(1, batch), c.oneOf(1, heads), tokens, tokens)
		}
	}
}

func (c *nodeCase) embedding() {
	batch, tokens, width := c.oneOf(1, 2), c.oneOf(1, 5), c.oneOf(4, 6)
	c.set(onnx.FloatAttr("epsilon", 1e-3))
	c.integers("ids", 0, 7, batch, tokens)
	segments := c.coin()
	if segments {
		c.integers("segments", 0, 2, batch, tokens)
	} else {
		c.leaveOut()
	}
	c.floats("words", 7, width)
	c.floats("places", 6, width)
	if segments {
		c.floats("kinds", 2, width)
	} else {
		c.leaveOut()
	}
	c.floats("scale", width)
	c.floats("shift", width)
	if c.coin() {
		c.integers("mask", 0, 3, batch, tokens)
	} else {
		c.leaveOut()
	}
	if c.coin() {
		c.integers("positions", 0, 6, c.oneOf(1, batch), tokens)
	}
	if c.coin() {
		c.node.Outputs[2] = "" // the sum
	}
}

// check compares the node written out with the operator, and its gradient with differences; it returns the inputs that have one.
func (c *nodeCase) check(t *testing.T) []string {
	m, fed, wrt := c.build()
	return checkGradients(t, c.rng, m, fed, wrt, 0.15)
}

// build makes a model of the node, with what it is to be fed and which of that are variables.
func (c *nodeCase) build() (*onnx.Model, map[string]*tensor.Tensor, []string) {
	m := onnx.NewModel(8, c.oneOf(13, 17, 21), "node")
	m.SetOpset(c.node.Domain, 1)
	m.Graph.Nodes = []*onnx.Node{c.node}
	fed, wrt := map[string]*tensor.Tensor{}, []string(nil)
	for _, name := range c.node.Inputs {
		x := c.inputs[name]
		if x == nil {
			continue
		}
		if slices.Contains(c.fixed, name) {
			m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewRawTensor(name, onnx.DataType(x.Type), x.Shape, x.Data))
			continue
		}
		m.Graph.Inputs = append(m.Graph.Inputs, (&Value{name, onnx.DataType(x.Type), x.Shape}).info())
		if fed[name] = x; x.Type == tensor.Float32 {
			wrt = append(wrt, name)
		}
	}
	for i, out := range c.node.Outputs {
		if out == "" {
			continue
		}
		kind := onnx.Float
		if c.node.OpType == "EmbedLayerNormalization" && i == 1 {
			kind = onnx.Int32
		}
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(out, kind, onnx.UnknownRank))
	}
	return m, fed, wrt
}

func (c *nodeCase) String() string {
	s := c.node.OpType
	for _, a := range c.node.Attributes {
		s += fmt.Sprint(" ", a.Name, "=", a.I, a.F, a.Ints)
	}
	for _, name := range c.node.Inputs {
		if x := c.inputs[name]; x != nil {
			s += fmt.Sprint(" ", name, x.Shape)
		}
	}
	return s
}

// The begin of a BERT as ONNX Runtime's optimizer leaves it: the embedding says how many tokens attention sees.
func TestEmbeddedAttention(t *testing.T) {
	c := newNodeCase(1, "EmbedLayerNormalization", "x", "kept")
	c.set(onnx.FloatAttr("epsilon", 1e-3))
	c.integers("ids", 0, 7, 2, 5)
	c.leaveOut()
	c.floats("words", 7, 6)
	c.floats("places", 5, 6)
	c.leaveOut()
	c.floats("scale", 6)
	c.floats("shift", 6)
	c.feed("mask", tensor.Of([]int32{1, 1, 1, 0, 0, 1, 1, 1, 1, 0}, 2, 5))
	attention := onnx.NewNode("Attention", []string{"x", "weights", "bias", "kept"}, []string{"y"}, onnx.IntAttr("num_heads", 3))
	attention.Domain = "com.microsoft"
	m := onnx.NewModel(8, 13, "bert")
	m.SetOpset("com.microsoft", 1)
	m.Graph.Nodes = []*onnx.Node{c.node, attention}
	c.floats("weights", 6, 18)
	c.floats("bias", 18)
	c.node.Inputs = c.node.Inputs[:8]
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, onnx.UnknownRank)}
	wrt := []string{"words", "places", "scale", "shift", "weights", "bias"}
	for _, name := range slices.Sorted(maps.Keys(c.inputs)) {
		m.Graph.Inputs = append(m.Graph.Inputs, (&Value{name, onnx.DataType(c.inputs[name].Type), c.inputs[name].Shape}).info())
	}
	checkGradients(t, c.rng, m, c.inputs, wrt, 0)
}

// operatorsOfRuntime are the attention of ONNX Runtime, and what its optimizer makes of the begin of a BERT.
var operatorsOfRuntime = []struct {
	op      string
	draw    func(*nodeCase)
	outputs []string
	inputs  int // that have gradients in some case
}{
	{"GroupQueryAttention", (*nodeCase).groupQuery, []string{"y", "key", "value"}, 7},
	{"MultiHeadAttention", (*nodeCase).multiHead, []string{"y", "key", "value"}, 7},
	{"Attention", (*nodeCase).projected, []string{"y", "present"}, 5},
	{"EmbedLayerNormalization", (*nodeCase).embedding, []string{"y", "kept", "sum"}, 5},
}

// They have the values and the gradients of the operator with any of their inputs and attributes.
func TestOperatorsOfRuntime(t *testing.T) {
	for _, o := range operatorsOfRuntime {
		t.Run(o.op, func(t *testing.T) {
			moved := map[string]bool{}
			for seed := range uint64(60) {
				c := newNodeCase(seed, o.op, o.outputs...)
				o.draw(c)
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					for _, name := range c.check(t) {
						moved[name] = true
					}
					if t.Failed() {
						t.Log(c)
					}
				})
			}
			if len(moved) != o.inputs {
				t.Errorf("only %v have gradients", moved)
			}
		})
	}
}

// What has no rule is refused by what it is, before any of it is differentiated.
func TestAttentionWithoutRule(t *testing.T) {
	i := onnx.IntAttr
	prompt := func(c *nodeCase) {
		c.set(i("num_heads", 2), i("kv_num_heads", 1))
		c.floats("q", 1, 3, 32)
		c.floats("k", 1, 3, 16)
		c.floats("v", 1, 3, 16)
		c.floats("past_key", 1, 1, 4, 16)
		c.floats("past_value", 1, 1, 4, 16)
		c.feed("last", tensor.Of([]int32{2}, 1))
		c.feed("total", tensor.Of([]int32{3}, 1))
	}
	for _, refused := range []struct {
		want    string
		outputs []string
		draw    func(*nodeCase)
	}{
		{"with an output of scores", []string{"y", "key", "value", "scores"}, func(c *nodeCase) {
			prompt(c)
			c.set(i("qk_output", 1))
		}},
		{"with a window of no keys", []string{"y", "key", "value"}, func(c *nodeCase) {
			prompt(c)
			c.set(i("local_window_size", 0))
		}},
		{"whose total_sequence_length depends on data, without an output of its cache", []string{"y"}, prompt},
	} {
		c := newNodeCase(1, "GroupQueryAttention", refused.outputs...)
		refused.draw(c)
		m, fed, _ := c.build()
		_, err := Trace(context.Background(), m, loader(t, ""), fed)
		var missing *NoRuleError
		if !errors.As(err, &missing) || !slices.Equal(missing.Nodes, []string{`com.microsoft::GroupQueryAttention "node" ` + refused.want}) {
			t.Errorf("%s: %v", refused.want, err)
		}
	}
}
