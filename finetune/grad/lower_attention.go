package grad

import (
	"math"

	"github.com/cosetq/cosetq/onnx"
)

// masked is what a score becomes where a mask forbids it: nothing is left of it behind the softmax.
const masked = -1e30

// attended is attention over heads of keys and values that several heads of queries share.
type attended struct {
	q       *Value   // [B, heads, S, d]
	k, v    *Value   // [B, own heads, T, d], and of another width
	scale   float64  // 1/√d where it is 0
	cap     float64  // scores become cap·tanh(score/cap), unless it is 0
	bias    *Value   // added to scores, or nil
	visible []*Value // scores stay where these hold
	sink    *Value   // [heads]: a score without a value, or nil
}

// attend is softmax(cap(scale·Q·Kᵀ) + bias)·V, [B, heads, S, width of V].
func (g *Graph) attend(a attended) *Value {
	b, heads, s, d := a.q.Shape[0], a.q.Shape[1], a.q.Shape[2], a.q.Shape[3]
	own, t := a.k.Shape[1], a.k.Shape[2]
	if a.scale == 0 {
		a.scale = 1 / math.Sqrt(float64(d))
	}
	// Queries of heads that share keys are rows of one product.
	rows := heads / own * s
	scores := g.reshape(g.matMul(g.reshape(g.scale(a.q, a.scale), b, own, rows, d), g.swapLast(a.k)), b, heads, s, t)
	if a.cap != 0 {
		scores = g.scale(g.unary("Tanh", g.scale(scores, 1/a.cap)), a.cap)
	}
	if a.bias != nil {
		scores = g.add(scores, a.bias)
	}
	for _, visible := range a.visible {
		scores = g.put("Where", []*Value{visible, scores, g.number(scores.Type, masked)}, scores.Type, scores.Shape)
	}
	if a.sink != nil {
		scores = g.concat(3, scores, g.expand(g.reshape(a.sink, 1, heads, 1, 1), []int64{b, heads, s, 1}))
	}
	p := g.slice(g.unary("Softmax", scores, onnx.IntAttr("axis", -1)), 3, 0, t)
	return g.reshape(g.matMul(g.reshape(p, b, own, rows, t), a.v), b, heads, s, a.v.Shape[3])
}

// attentionLowering writes out ONNX's Attention of [B, heads, S, d] or [B, S, heads·d]. Inputs: queries, keys, values, mask, the past of both.
// Outputs: the result, keys and values with the past.
func attentionLowering(l *lowered) error {
	g, n := l.g, l.n
	switch {
	case l.x(6) != nil:
		return l.noRule("with lengths of its keys")
	case l.gives(3):
		return l.noRule("with an output of scores")
	}
	for _, side := range []string{"left_window_size", "right_window_size"} {
		if n.Int(side, -1) != -1 {
			return l.noRule("with a window")
		}
	}
	q := l.heads(l.x(0), n.Int("q_num_heads", 0))
	k, v := l.heads(l.x(1), n.Int("kv_num_heads", 0)), l.heads(l.x(2), n.Int("kv_num_heads", 0))
	past := -k.Shape[2]
	k, v = g.behind(l.x(4), k), g.behind(l.x(5), v)
	past += k.Shape[2]
	l.define(1, k)
	l.define(2, v)
	a := attended{q: q, k: k, v: v, scale: float64(n.Float("scale", 0)), cap: float64(n.Float("softcap", 0))}
	if mask := l.x(3); mask != nil && mask.Type == onnx.Bool {
		a.visible = append(a.visible, mask)
	} else {
		a.bias = mask
	}
	if n.Int("is_causal", 0) != 0 {
		last := sequence(int(q.Shape[2]))
		for i := range last {
			last[i] += past
		}
		a.visible = append(a.visible, g.causal(last, k.Shape[2]))
	}
	y := g.attend(a)
	if l.x(0).rank() == 3 {
		y = g.tokens(y)
	}
	l.define(0, y)
	return nil
}

// gives reports whether output i is wanted.
func (l *lowered) gives(i int) bool { return i < len(l.n.Outputs) && l.n.Outputs[i] != "" }

// heads turns [B, S, heads·d] to [B, heads, S, d].
func (l *lowered) heads(x *Value, heads int64) *Value {
	if x.rank() == 4 {
		return x
	}
	return l.g.transpose(l.g.reshape(x, x.Shape[0], x.Shape[1], heads, x.Shape[2]/heads), 0, 2, 1, 3)
}

// tokens turns [B, heads, S, d] to [B, S, heads·d].
func (g *Graph) tokens(x *Value) *Value {
	x = g.transpose(x, 0, 2, 1, 3)
	return g.reshape(x, x.Shape[0], x.Shape[1], x.Shape[2]*x.Shape[3])
}

// causal lets each row see columns up to its last.
func (g *Graph) causal(last []int64, columns int64) *Value {
	row := g.reshape(g.integers(last...), int64(len(last)), 1)
	return g.not(g.compare("Less", row, g.integers(sequence(int(columns))...)))
}
