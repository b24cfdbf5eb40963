package grad

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// groupQueryLowering writes out com.microsoft's GroupQueryAttention: attention of new tokens over those of a cache and themselves. Inputs:
// queries, keys, values, the past of both, the last token of each sequence, the number of tokens of the longest, cosines, sines, positions,
// a bias of scores, a score without a key. Outputs: the result, the cache of both.
//
// The lengths of sequences are data, which change from run to run: what they decide is computed by the graph. Rows of padding, behind the end of
// a sequence, see what the last token sees.
func groupQueryLowering(l *lowered) error {
	g, n := l.g, l.n
	if what := l.unknownGroupQuery(); what != "" {
		return l.noRule(what)
	}
	heads, own := n.Int("num_heads", 0), n.Int("kv_num_heads", 0)
	q := l.heads(l.x(0), heads)
	var k, v *Value
	if l.x(1) != nil {
		k, v = l.heads(l.x(1), own), l.heads(l.x(2), own)
	} else {
		all := l.heads(l.x(0), heads+2*own)
		q, k, v = g.slice(all, 1, 0, heads), g.slice(all, 1, heads, heads+own), g.slice(all, 1, heads+own, heads+2*own)
	}
	c, err := l.cache(q.Shape[2])
	if err != nil {
		return err
	}
	if n.Int("do_rotary", 0) != 0 {
		cos, sin, positions := l.x(7), l.x(8), c.positions(l.x(9))
		turn, interleaved := 2*cos.Shape[1], n.Int("rotary_interleaved", 0) != 0
		cos, sin = g.angles(cos, positions, q, true), g.angles(sin, positions, q, true)
		q, k = g.turnHeads(q, cos, sin, turn, interleaved), g.turnHeads(k, cos, sin, turn, interleaved)
	}
	k, v = c.append(l.x(3), k), c.append(l.x(4), v)
	l.define(1, k)
	l.define(2, v)
	a := attended{q: q, k: k, v: v, scale: float64(n.Float("scale", 0)), cap: float64(n.Float("softcap", 0)), sink: l.x(11)}
	a.visible = []*Value{c.visible(n.Int("causal", 1) != 0, n.Int("local_window_size", -1))}
	if bias := l.x(10); bias != nil {
		bias = g.slice(bias, 3, 0, min(c.room, bias.Shape[3]))
		a.bias = g.padAxis(bias, 3, 0, c.room-bias.Shape[3])
	}
	if a.sink == nil && n.Int("smooth_softmax", 0) == 1 {
		a.sink = g.number(q.Type, 0, heads)
	}
	l.define(0, g.tokens(g.attend(a)))
	return nil
}

// unknownGroupQuery says what of a GroupQueryAttention has no rule.
func (l *lowered) unknownGroupQuery() string {
	n := l.n
	for _, name := range []string{"k_quant_type", "v_quant_type"} {
		if kind := n.Str(name, "NONE"); kind != "NONE" && kind != "" {
			return "with a quantized cache"
		}
	}
	switch {
	case n.Int("sliding_window_cache", 0) != 0:
		return "with a cache of the size of a window"
	case l.x(14) != nil || l.x(15) != nil:
		return "with norms of queries and keys in it"
	case l.gives(3):
		return "with an output of scores"
	case l.x(1) != nil && l.x(1).Shape[1] == 0:
		return "with no keys but those of a cache"
	case n.Int("local_window_size", -1) == 0:
		return "with a window of no keys"
	}
	return ""
}

// noRule says that a node has no rule in the form it has.
func (l *lowered) noRule(form string) error {
	return &NoRuleError{Nodes: []string{describe(l.n) + " " + form}}
}

// cache is where new tokens go.
type cache struct {
	g       *Graph
	batch   int64
	added   int64  // new tokens
	room    int64  // tokens that the result has room for
	first   bool   // it is known that no token is ahead of the new ones
	prompt  *Value // whether none is, [1], where that is not known
	lengths *Value // [B, 1, 1, 1] of all sequences, with the new tokens
	before  *Value // tokens ahead of the new ones, [B, 1, 1, 1] or [1, 1, 1, 1]
}

func (l *lowered) cache(added int64) (*cache, error) {
	g, past := l.g, int64(0)
	if l.x(3) != nil {
		past = l.x(3).Shape[2]
	}
	total, known := g.ints[l.n.Inputs[6]]
	c := &cache{g: g, batch: l.x(0).Shape[0], added: added, room: added, first: past == 0 || known && total[0] == added}
	switch {
	case l.gives(1):
		c.room = g.values[l.n.Outputs[1]].Shape[2]
	case known:
		c.room = max(total[0], past)
	case past > 0:
		return nil, l.noRule("whose total_sequence_length depends on data, without an output of its cache")
	}
	if past == 0 && c.room != added {
		return nil, fmt.Errorf("it has %d tokens, and total_sequence_length is %d without a past", added, c.room)
	}
	one := g.integer(1)
	c.lengths = g.add(g.reshape(g.cast(l.x(5), onnx.Int64), c.batch, 1, 1, 1), one)
	if c.before = g.reshape(g.integer(0), 1, 1, 1, 1); c.first {
		return c, nil
	}
	before := g.sub(c.lengths, g.integer(added))
	if !known { // a prompt begins anew, whatever the cache holds
		c.prompt = g.compare("Equal", g.reshape(g.cast(l.x(6), onnx.Int64), 1), g.integer(added))
		before = g.put("Where", []*Value{c.prompt, c.before, before}, onnx.Int64, before.Shape)
	}
	c.before = before
	return c, nil
}

// positions are those of the new tokens, nil for 0, 1, …; of positions that are given for a prompt, ONNX Runtime reads the first alone.
func (c *cache) positions(given *Value) *Value {
	g := c.g
	following := g.integers(sequence(int(c.added))...)
	switch {
	case given == nil && c.first:
		return nil
	case given == nil:
		return g.add(g.reshape(c.before, c.batch, 1), following)
	}
	begin := g.slice(g.reshape(given, given.Count()), 0, 0, 1)
	switch {
	case c.first:
		return begin
	case c.prompt != nil:
		return g.put("Where", []*Value{c.prompt, g.add(begin, following), given}, given.Type, given.Shape)
	}
	return given
}

// append puts new keys or values behind those of the past; what room is left holds zeros.
func (c *cache) append(past, added *Value) *Value {
	g := c.g
	if c.first {
		return g.padAxis(added, 2, 0, c.room-c.added)
	}
	at := g.reshape(g.integers(sequence(int(c.room))...), 1, 1, c.room, 1)
	behind := g.add(c.before, g.reshape(g.integers(sequence(int(c.added))...), 1, 1, 1, c.added))
	placed := g.matMul(g.cast(g.compare("Equal", at, behind), added.Type), added)
	return g.add(g.keep(g.compare("Less", at, c.before), g.padAxis(past, 2, 0, c.room-past.Shape[2])), placed)
}

// visible says which of the tokens in the cache a new one sees, [B, 1, S or 1, room].
func (c *cache) visible(causal bool, window int64) *Value {
	g := c.g
	at := g.integers(sequence(int(c.room))...)
	if !causal {
		return g.compare("Less", at, c.lengths)
	}
	end := g.add(c.before, g.reshape(g.add(g.integers(sequence(int(c.added))...), g.integer(1)), 1, 1, c.added, 1))
	shape := broadcast(end.Shape, c.lengths.Shape)
	end = g.put("Where", []*Value{g.compare("Less", end, c.lengths), end, c.lengths}, onnx.Int64, shape)
	seen := g.compare("Less", at, end)
	if window > 0 {
		seen = g.put("And", []*Value{seen, g.not(g.compare("Less", at, g.sub(end, g.integer(window))))}, onnx.Bool, seen.Shape)
	}
	return seen
}

// integer is a constant scalar of int64.
func (g *Graph) integer(v int64) *Value { return g.constant(fmt.Sprint(v), onnx.Scalar("", v)) }
