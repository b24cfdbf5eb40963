//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// attentionCase is one node of attention with all inputs of it.
type attentionCase struct {
	t         *testing.T
	seed      uint64
	rng       *rand.Rand
	kind      tensor.Type
	batches   int64
	queries   int64
	past      int64
	heads, kv int64
	width     int64
	node      *onnx.Node
	inputs    map[string]*tensor.Tensor
}

func newAttentionCase(t *testing.T, seed, stream uint64) *attentionCase {
	c := &attentionCase{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, stream)), kind: tensor.Float32, inputs: map[string]*tensor.Tensor{}}
	if c.rng.IntN(3) == 0 {
		c.kind = tensor.Float16Type
	}
	return c
}

func (c *attentionCase) oneOf(n ...int64) int64 { return n[c.rng.IntN(len(n))] }
func (c *attentionCase) coin() bool             { return c.rng.IntN(2) == 0 }

// floats makes an input of the case's type.
func (c *attentionCase) floats(name string, dims ...int64) string {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(c.rng.NormFloat64())
	}
	return c.numbers(name, v, dims...)
}

// numbers adds an input of the type of the case.
func (c *attentionCase) numbers(name string, v []float32, dims ...int64) string {
	if c.kind == tensor.Float32 {
		return c.add(name, tensor.Of(v, dims...))
	}
	return c.add(name, tensor.Of(halves(v), dims...))
}

func halves(v []float32) []tensor.Float16 {
	h := make([]tensor.Float16, len(v))
	for i := range v {
		h[i] = tensor.ToFloat16(v[i])
	}
	return h
}

func (c *attentionCase) add(name string, x *tensor.Tensor) string {
	c.inputs[name] = x
	return name
}

func (c *attentionCase) set(name string, value any) {
	a := &onnx.Attribute{Name: name}
	switch v := value.(type) {
	case int64:
		a.Type, a.I = onnx.AttrInt, v
	case float32:
		a.Type, a.F = onnx.AttrFloat, v
	}
	c.node.Attributes = append(c.node.Attributes, a)
}

// sometimes sets an attribute in a third of all cases.
func (c *attentionCase) sometimes(name string, value any) {
	if c.rng.IntN(3) == 0 {
		c.set(name, value)
	}
}

// optional gives the name that make makes, or that of a missing input.
func (c *attentionCase) optional(there bool, make func() string) string {
	if there {
		return make()
	}
	return ""
}

// standard is Attention of ONNX 24.
func (c *attentionCase) standard() {
	c.node = onnx.NewNode("Attention", nil, nil)
	total, wide := c.past+c.queries, c.oneOf(c.width, 2*c.width)
	q, k, v := []int64{c.batches, c.heads, c.queries, c.width}, []int64{c.batches, c.kv, c.queries, c.width}, []int64{c.batches, c.kv, c.queries, wide}
	if c.coin() {
		c.set("q_num_heads", c.heads)
		c.set("kv_num_heads", c.kv)
		q, k, v = []int64{c.batches, c.queries, c.heads * c.width}, []int64{c.batches, c.queries, c.kv * c.width}, []int64{c.batches, c.queries, c.kv * wide}
	}
	c.sometimes("is_causal", int64(1))
	c.sometimes("scale", float32(0.3))
	c.sometimes("softcap", float32(2))
	masked := c.rng.IntN(3)
	c.node.Inputs = []string{c.floats("q", q...), c.floats("k", k...), c.floats("v", v...),
		c.optional(masked > 0, func() string {
			dims := [][]int64{{c.queries, total}, {c.heads, c.queries, total}, {c.batches, 1, c.queries, total}, {1, c.heads, c.queries, total}}[c.rng.IntN(4)]
			if masked == 1 {
				return c.floats("mask", dims...)
			}
			n := int64(1)
			for _, d := range dims {
				n *= d
			}
			keep := make([]bool, n)
			for i := range keep {
				keep[i] = i%int(total) == 0 || c.rng.IntN(4) > 0 // every query sees the first key
			}
			return c.add("mask", tensor.Of(keep, dims...))
		}),
		c.optional(c.past > 0, func() string { return c.floats("past_key", c.batches, c.kv, c.past, c.width) }),
		c.optional(c.past > 0, func() string { return c.floats("past_value", c.batches, c.kv, c.past, wide) })}
	c.node.Outputs = []string{"y"}
	if c.past > 0 {
		c.node.Outputs = []string{"y", "key", "value"}
	}
}

// multiHead is MultiHeadAttention of ONNX Runtime.
func (c *attentionCase) multiHead() {
	c.kind, c.kv = tensor.Float32, c.heads
	c.node = onnx.NewNode("MultiHeadAttention", nil, []string{"y"})
	c.node.Domain = "com.microsoft"
	c.set("num_heads", c.heads)
	c.sometimes("scale", float32(0.3))
	keys, hidden := c.queries, c.heads*c.width
	if c.past == 0 && c.coin() {
		keys = c.oneOf(1, 7, 66)
	} else {
		c.sometimes("unidirectional", int64(1))
	}
	total, masked := c.past+keys, c.rng.IntN(4) // a padding mask, a bias of scores, or both
	k, v := []int64{c.batches, keys, hidden}, []int64{c.batches, keys, hidden}
	if c.past == 0 && c.rng.IntN(4) == 0 {
		k, v = []int64{c.batches, c.heads, keys, c.width}, []int64{c.batches, c.heads, keys, c.width}
	}
	c.node.Inputs = []string{c.floats("q", c.batches, c.queries, hidden), c.floats("k", k...), c.floats("v", v...),
		c.optional(c.coin(), func() string { return c.floats("bias", 3*hidden) }),
		c.optional(masked%2 == 1, func() string {
			switch c.rng.IntN(4) {
			case 0:
				lengths := make([]int32, c.batches)
				for i := range lengths {
					lengths[i] = int32(1 + c.rng.Int64N(total))
				}
				return c.add("padding", tensor.Of(lengths, c.batches))
			case 1:
				keep := make([]int32, c.batches*c.queries*total)
				for i := range keep {
					keep[i] = int32(c.rng.IntN(2))
					if int64(i)%total == 0 {
						keep[i] = 1 // scores near the filter are rounded
					}
				}
				return c.add("padding", tensor.Of(keep, c.batches, c.queries, total))
			}
			keep := make([]int32, c.batches*total)
			for i := range keep {
				keep[i] = int32(c.rng.IntN(4)) // 0 hides a key
				if int64(i)%total == 0 {
					keep[i] = 1 // every query sees the first one
				}
			}
			return c.add("padding", tensor.Of(keep, c.batches, total))
		}),
		c.optional(masked > 1, func() string {
			return c.floats("score_bias", c.oneOf(1, c.batches), c.oneOf(1, c.heads), c.queries, total)
		}),
		c.optional(c.past > 0, func() string { return c.floats("past_key", c.batches, c.heads, c.past, c.width) }),
		c.optional(c.past > 0, func() string { return c.floats("past_value", c.batches, c.heads, c.past, c.width) })}
	if c.past > 0 {
		c.node.Outputs = []string{"y", "key", "value"}
	}
}

// groupQuery is GroupQueryAttention of ONNX Runtime, with a past that has room left, or is as long as it says.
func (c *attentionCase) groupQuery() {
	c.node = onnx.NewNode("GroupQueryAttention", nil, []string{"y", "key", "value"})
	c.node.Domain = "com.microsoft"
	c.set("num_heads", c.heads)
	c.set("kv_num_heads", c.kv)
	c.sometimes("scale", float32(0.3))
	c.sometimes("softcap", float32(2))
	if c.rng.IntN(4) == 0 {
		c.set("causal", int64(0))
	} else {
		c.sometimes("local_window_size", c.oneOf(1, 3, 70))
	}
	c.width = (c.width + 15) / 16 * 16
	if c.past > 0 && c.queries > 1 {
		c.batches = 1 // as ONNX Runtime wants it
	}
	total := c.past + c.queries
	last := make([]int32, c.batches)
	for i := range last {
		last[i] = int32(total - 1)
		if i > 0 && c.queries == 1 {
			last[i] -= int32(c.rng.Int64N(c.past + 1)) // shorter ones beside it
		}
	}
	rotary, packed := c.coin(), c.coin()
	if rotary {
		c.set("do_rotary", int64(1))
		c.sometimes("rotary_interleaved", int64(1))
	}
	turned := c.oneOf(c.width, max(16, c.width/2/16*16)) / 2
	if turned*2 > c.width {
		turned = c.width / 2
	}
	room := c.past + c.oneOf(0, 5)
	query := []int64{c.batches, c.queries, c.heads * c.width}
	if packed {
		query[2] += 2 * c.kv * c.width
	}
	c.node.Inputs = []string{c.floats("q", query...),
		c.optional(!packed, func() string { return c.floats("k", c.batches, c.queries, c.kv*c.width) }),
		c.optional(!packed, func() string { return c.floats("v", c.batches, c.queries, c.kv*c.width) }),
		c.optional(c.past > 0, func() string { return c.floats("past_key", c.batches, c.kv, room, c.width) }),
		c.optional(c.past > 0, func() string { return c.floats("past_value", c.batches, c.kv, room, c.width) }),
		c.add("last", tensor.Of(last, c.batches)), c.add("total", tensor.Of([]int32{int32(total)})),
		c.optional(rotary, func() string { return c.floats("cosines", total+3, turned) }),
		c.optional(rotary, func() string { return c.floats("sines", total+3, turned) }),
		c.optional(rotary && c.coin(), func() string {
			// One after the other from where those of the first batch begin: ONNX Runtime's kernel reads no more.
			positions, first := make([]int64, c.batches*c.queries), c.rng.Int64N(c.past+3)
			for i := range positions {
				positions[i] = first + int64(i)%c.queries
			}
			return c.add("positions", tensor.Of(positions, c.batches, c.queries))
		}),
		c.optional(c.coin(), func() string {
			return c.floats("score_bias", c.oneOf(1, c.batches), c.oneOf(1, c.heads), c.queries, total)
		}),
	}
	if c.coin() {
		c.node.Inputs = append(c.node.Inputs, c.optional(c.coin(), func() string { return c.floats("sink", c.heads) }))
	}
}

// compare runs the node on the provider and on the CPU; false where it did not run on the device.
func (c *attentionCase) compare(library string, about *ort.Provider) bool {
	c.t.Helper()
	c.node.Name = "attention"
	path := modelOf(c.t, 24, func(g *onnx.Graph) {
		g.Inputs, g.Nodes = nil, []*onnx.Node{c.node}
		for _, name := range c.node.Inputs {
			if x := c.inputs[name]; x != nil {
				dims := make([]any, len(x.Shape))
				for i := range dims {
					dims[i] = fmt.Sprintf("%s%d", name, i)
				}
				if len(dims) > 2 { // how wide a head is may be known
					dims[len(dims)-1] = int(x.Shape[len(dims)-1])
				}
				g.Inputs = append(g.Inputs, value(name, onnx.DataType(x.Type), dims...))
			}
		}
		for _, name := range c.node.Outputs {
			g.Outputs = append(g.Outputs, value(name, onnx.DataType(c.kind)))
			g.Outputs[len(g.Outputs)-1].Type.Tensor.Shape = nil
		}
	})
	text := fmt.Sprintf("seed %d: %s of %s, %d × %d, past %d, %d heads over %d, width %d, %+v", c.seed, c.node.OpType, c.kind, c.batches, c.queries, c.past, c.heads, c.kv, c.width, c.node.Inputs)
	for _, a := range c.node.Attributes {
		text += fmt.Sprintf(" %s=%v,%v", a.Name, a.I, a.F)
	}
	for n, x := range c.inputs {
		text += fmt.Sprint(" ", n, x.Shape)
	}
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
	want := session(c.t, path, o)
	a, err := want.Run(context.Background(), c.inputs)
	if err != nil {
		c.t.Errorf("%s on the CPU: %v", text, err)
		return false
	}
	o.Provider = library
	got := session(c.t, path, o)
	before := about.Traffic().Runs
	for range 4 {
		b, err := got.Run(context.Background(), c.inputs)
		if err != nil {
			c.t.Fatalf("%s: %v", text, err)
		}
		for name := range a {
			limit := 2e-5
			if c.kind == tensor.Float16Type {
				limit = 3e-3
			}
			if d := distance(c.t, a[name], b[name]); !(d < limit) {
				c.t.Errorf("%s: %s is off by %g", text, name, d)
			}
		}
	}
	return about.Traffic().Runs-before == 4
}

// Attention of every kind is what it is on the CPU, with any of its inputs and attributes.
func TestProviderAttention(t *testing.T) {
	library, about, _ := aboutProvider(t)
	ran := map[string]int{}
	for seed := range uint64(300) {
		c := newAttentionCase(t, seed, 5)
		c.batches, c.queries, c.past, c.kv = c.oneOf(1, 1, 3), c.oneOf(1, 2, 5, 19, 70), c.oneOf(0, 0, 3, 64, 200), c.oneOf(1, 2)
		c.heads, c.width = c.kv*c.oneOf(1, 2, 3), c.oneOf(4, 6, 32, 64, 80, 128, 160)
		if c.rng.IntN(2) == 0 {
			c.queries = 1
		}
		[]func(){c.standard, c.multiHead, c.groupQuery}[seed%3]()
		if c.compare(library, about) {
			ran[c.node.OpType]++
		}
	}
	t.Logf("on the device: %v", ran)
	for _, op := range []string{"Attention", "MultiHeadAttention", "GroupQueryAttention"} {
		if ran[op] < 90 {
			t.Errorf("only %d cases of %s ran on the device", ran[op], op)
		}
	}
}

// Masks that hide whole runs of keys, which need not be looked at, leave the results what they are on the CPU.
func TestProviderSkipsHiddenKeys(t *testing.T) {
	library, about, device := aboutProvider(t)
	for seed := range uint64(60) {
		c := newAttentionCase(t, seed, 21)
		c.batches, c.queries, c.past, c.kv = c.oneOf(1, 2), c.oneOf(20, 65, 200, 300), c.oneOf(0, 0, 130), c.oneOf(1, 2)
		c.heads, c.width = c.kv*c.oneOf(1, 3), c.oneOf(8, 64, 128)
		if device != "host" && seed%10 == 0 { // as many blocks as a GPU looks for hidden tiles with
			c.batches, c.queries, c.kv, c.heads, c.width = 12, 300, 8, 8, 8
		}
		c.standard()
		c.node.Inputs[3] = c.writtenOut(c.past + c.queries)
		if !c.compare(library, about) {
			t.Errorf("seed %d did not run on the device", seed)
		}
	}
}

// clear makes what an input has of a token zeros.
func (c *attentionCase) clear(name string, token int64) {
	x := c.inputs[name]
	data, err := tensor.View[tensor.Float16](x)
	if err != nil {
		c.t.Fatal(err)
	}
	width := x.Shape[len(x.Shape)-1]
	for i := range data {
		if int64(i)/width%x.Shape[len(x.Shape)-2] == token {
			data[i] = 0
		}
	}
}

// writtenOut adds a mask that hides keys from queries in runs: those after a query's own, also far ones before it, as models write out what is causal,
// with -infinity, or a number that leaves as little; or all keys from some queries, which then see all alike.
func (c *attentionCase) writtenOut(total int64) string {
	hides, window, blind := float32(math.Inf(-1)), c.oneOf(total, 40), int64(-1)
	switch c.rng.IntN(3) {
	case 0:
		if hides = -math.MaxFloat32; c.kind == tensor.Float16Type {
			hides = -65504
		}
	case 1:
		if hides, blind = -2e30, c.rng.Int64N(c.queries); c.kind == tensor.Float16Type {
			hides = -62000      // ONNX Runtime takes the least number for -infinity
			c.clear("q", blind) // and rounds sums with it
		}
	}
	batches := c.oneOf(1, c.batches)
	v := make([]float32, 0, batches*c.queries*total)
	keep := make([]bool, 0, cap(v))
	for range batches {
		for q := range c.queries {
			own := total - c.queries + q
			for k := range total {
				seen := k <= own && k > own-window && q != blind
				keep = append(keep, seen)
				if v = append(v, 0); !seen {
					v[len(v)-1] = hides
				} else if c.rng.IntN(4) == 0 {
					v[len(v)-1] = float32(c.rng.NormFloat64())
				}
			}
		}
	}
	dims := []int64{batches, 1, c.queries, total}
	if math.IsInf(float64(hides), 0) && c.coin() {
		return c.add("mask", tensor.Of(keep, dims...))
	}
	return c.numbers("mask", v, dims...)
}

// A cache that grows with every token, and what the mask and its shape say of it, as the model builder of ONNX Runtime GenAI has them: the
// provider brings nothing to the host to know how long it is, for more tokens than it remembers shapes of, nor where a node ahead of
// attention is left to the CPU.
func TestProviderGrowsCaches(t *testing.T) {
	for _, first := range []string{"Identity", "Hardmax"} {
		t.Run(first, func(t *testing.T) { growCaches(t, first) })
	}
}

func growCaches(t *testing.T, first string) {
	library, about, _ := aboutProvider(t)
	const heads, kv, width, prompt, tokens = 4, 2, 16, 5, 24
	ints := func(name string, v int64) *onnx.Attribute {
		return &onnx.Attribute{Name: name, Type: onnx.AttrInt, I: v}
	}
	path := model(t, func(g *onnx.Graph) {
		cache := []any{"batch", kv, "past", width}
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "batch", "tokens", (heads+2*kv)*width), value("mask", onnx.Int64, "batch", "total"),
			value("past_key", onnx.Float, cache...), value("past_value", onnx.Float, cache...)}
		g.Initializers = []*onnx.Tensor{onnx.NewTensor("one", []int64{1}, []int64{1}), onnx.NewTensor("first", []int64{}, []int64{1}),
			onnx.NewTensor("w", []int64{heads * width, 3}, make([]float32, heads*width*3))}
		attention := onnx.NewNode("GroupQueryAttention", []string{"projected", "", "", "past_key", "past_value", "last", "total32"}, []string{"y", "key", "value"},
			ints("num_heads", heads), ints("kv_num_heads", kv))
		attention.Domain = "com.microsoft"
		g.Nodes = []*onnx.Node{
			onnx.NewNode(first, []string{"x"}, []string{"a"}), onnx.NewNode("Sub", []string{"x", "a"}, []string{"projected"}),
			onnx.NewNode("ReduceSum", []string{"mask", "one"}, []string{"seen"}, ints("keepdims", 0)), onnx.NewNode("Sub", []string{"seen", "one"}, []string{"before"}),
			onnx.NewNode("Cast", []string{"before"}, []string{"last"}, ints("to", int64(onnx.Int32))),
			onnx.NewNode("Shape", []string{"mask"}, []string{"shape"}), onnx.NewNode("Gather", []string{"shape", "first"}, []string{"total64"}),
			onnx.NewNode("Cast", []string{"total64"}, []string{"total32"}, ints("to", int64(onnx.Int32))), attention,
			onnx.NewNode("MatMul", []string{"y", "w"}, []string{"z"}),
		}
		for _, n := range g.Nodes {
			n.Name = n.OpType + n.Outputs[0]
		}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "batch", "tokens", heads*width), value("z", onnx.Float, "batch", "tokens", 3),
			value("key", onnx.Float, cache...), value("value", onnx.Float, cache...)}
	})
	want, got := session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})
	before := about.Traffic()
	rng := rand.New(rand.NewPCG(1, 5))
	empty := func() *tensor.Tensor { return tensor.Of([]float32{}, 2, kv, 0, width) }
	a, b := map[string]*tensor.Tensor{"key": empty(), "value": empty()}, map[string]*tensor.Tensor{"key": empty(), "value": empty()}
	for total := int64(prompt); total < prompt+tokens; total++ {
		added := int64(1)
		if total == prompt {
			added = prompt
		}
		v := make([]float32, 2*added*(heads+2*kv)*width)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		mask := make([]int64, 2*total)
		for i := range mask {
			mask[i] = 1
		}
		step := func(s *ort.Session, last map[string]*tensor.Tensor) map[string]*tensor.Tensor {
			out, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": tensor.Of(v, 2, added, (heads+2*kv)*width),
				"mask": tensor.Of(mask, 2, total), "past_key": last["key"], "past_value": last["value"]})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		a, b = step(want, a), step(got, b)
		for name := range a {
			if d := distance(t, a[name], b[name]); !(d < 2e-5) {
				t.Fatalf("%d tokens: %s is off by %g", total, name, d)
			}
		}
	}
	after := about.Traffic()
	if after.Runs-before.Runs != tokens {
		t.Errorf("%d of %d runs on the device", after.Runs-before.Runs, tokens)
	}
	if n := after.Downloads - before.Downloads; n != 0 {
		t.Errorf("%d copies to the host in the middle of the graph", n)
	}
}

// A language model writes on in a cache that has room for more tokens, in float and in float16, as it does on the CPU: all of its nodes are
// on the device, and runs after the prompt's have the same shapes.
func TestProviderRunsDecoders(t *testing.T) {
	library, about, _ := aboutProvider(t)
	const room, prompt, steps, batch = 80, 9, 6, 2
	for i := range 4 {
		half := i%2 == 1
		c := models.Decoder{Layers: 2, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: room, Half: half, Apart: i > 1, Seed: 3}
		path := filepath.Join(t.TempDir(), "decoder.onnx")
		if _, err := c.ONNX().Save(path, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		limit := 2e-5
		if half {
			limit = 1e-2
		}
		want, got := session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})
		before := about.Traffic()
		empty := map[string]*tensor.Tensor{}
		var err error
		for _, s := range want.Inputs() {
			if len(s.Shape) == 4 {
				if empty[s.Name], err = tensor.New(s.Type, batch, s.Shape[1].Size, room, s.Shape[3].Size); err != nil {
					t.Fatal(err)
				}
			}
		}
		caches := [2]map[string]*tensor.Tensor{empty, empty}
		for step := range int64(1 + steps) {
			inputs, mask := map[string]*tensor.Tensor{}, make([]int64, batch*room)
			for i := range mask {
				if int64(i%room) < prompt+step {
					mask[i] = 1
				}
			}
			inputs["attention_mask"] = tensor.Of(mask, batch, room)
			tokens := int64(1)
			if step == 0 { // the mask is as long as the prompt, by which attention knows one
				tokens = prompt
				inputs["attention_mask"] = tensor.Of(slices.Repeat([]int64{1}, batch*prompt), batch, prompt)
			}
			ids := make([]int64, batch*tokens)
			for i := range ids {
				ids[i] = (int64(i)*7 + step*5) % 50
			}
			inputs["input_ids"] = tensor.Of(ids, batch, tokens)
			var outputs [2]map[string]*tensor.Tensor
			for i, s := range []*ort.Session{want, got} {
				maps.Copy(inputs, caches[i])
				if outputs[i], err = s.Run(context.Background(), inputs); err != nil {
					t.Fatal(err)
				}
				caches[i] = map[string]*tensor.Tensor{}
				for name, x := range outputs[i] {
					if layer, ok := strings.CutPrefix(name, "present."); ok {
						caches[i]["past_key_values."+layer] = x
					}
				}
			}
			for name, x := range outputs[0] {
				if d := distance(t, x, outputs[1][name]); !(d < limit) {
					t.Errorf("half %v, step %d: %s is off by %g", half, step, name, d)
				}
			}
		}
		if runs := about.Traffic().Runs - before.Runs; runs != 1+steps {
			t.Errorf("%d of %d runs on the device", runs, 1+steps)
		}
		if n := about.Traffic().Downloads - before.Downloads; n != 0 {
			t.Errorf("%d copies to the host in the middle of the graph", n)
		}
		if about.Traffic().Repeats == before.Repeats {
			t.Error("no run repeated a recording")
		}
	}
}

// Inputs that do not go together are an error that says which, and nothing is read beyond their ends.
func TestProviderRefusesAttention(t *testing.T) {
	library := testenv.Provider(t)
	path := model(t, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("q", onnx.Float, "b", "s", 8), value("k", onnx.Float, "bk", "t", 8), value("v", onnx.Float, "bv", "u", 8)}
		n := onnx.NewNode("MultiHeadAttention", []string{"q", "k", "v"}, []string{"y"}, onnx.IntAttr("num_heads", 2))
		n.Name, n.Domain = "attention", "com.microsoft"
		g.Nodes = []*onnx.Node{n}
		g.Outputs = []*onnx.ValueInfo{value("y", onnx.Float, "b", "s", 8)}
	})
	s := session(t, path, ort.SessionOptions{Provider: library, Optimization: ort.OptimizeDisabled})
	for _, c := range []struct {
		k, v []int64
		want string
	}{
		{[]int64{2, 3, 8}, []int64{2, 3, 8}, ""},
		{[]int64{1, 3, 8}, []int64{2, 3, 8}, "input 1 is [1,3,8]"},
		{[]int64{2, 3, 8}, []int64{2, 4, 8}, "another number than values"},
	} {
		x := func(dims []int64) *tensor.Tensor { return tensor.Of(make([]float32, dims[0]*dims[1]*dims[2]), dims...) }
		_, err := s.Run(context.Background(), map[string]*tensor.Tensor{"q": x([]int64{2, 3, 8}), "k": x(c.k), "v": x(c.v)})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("keys %v, values %v: %v, want %q", c.k, c.v, err, c.want)
		}
	}
}
