package grad

import (
	"math"

	"github.com/cosetq/cosetq/onnx"
)

// masked is what a score becomes where a mask forbids it: nothing is left of it behind the softmax.
const masked = -1e30

// attentionLowering writes out ONNX's Attention, softmax(Q·Kᵀ·scale + mask)·V with heads of K and V that several heads of Q share,
// of [B, heads, S, d] or [B, S, heads·d]. A cache, a soft cap and an output of the scores have no rule.
func attentionLowering(l *lowered) error {
	g, n := l.g, l.n
	if l.x(4) != nil || l.x(5) != nil || l.x(6) != nil || n.Float("softcap", 0) != 0 || len(n.Outputs) > 3 && n.Outputs[3] != "" {
		return &NoRuleError{Nodes: []string{describe(n)}}
	}
	q := l.heads(l.x(0), n.Int("q_num_heads", 0))
	k, v := l.heads(l.x(1), n.Int("kv_num_heads", 0)), l.heads(l.x(2), n.Int("kv_num_heads", 0))
	l.define(1, k)
	l.define(2, v)
	k, v = l.repeatHeads(k, q.Shape[1]), l.repeatHeads(v, q.Shape[1])

	scale := float64(n.Float("scale", 0))
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(q.Shape[3]))
	}
	scores := g.matMul(g.scale(q, scale), g.swapLast(k))
	fill := g.number(q.Type, masked)
	if mask := l.x(3); mask != nil && mask.Type == onnx.Bool {
		scores = g.put("Where", []*Value{mask, scores, fill}, scores.Type, scores.Shape)
	} else if mask != nil {
		scores = g.add(scores, mask)
	}
	if n.Int("is_causal", 0) != 0 {
		scores = g.put("Where", []*Value{g.causal(scores.Shape[2], scores.Shape[3]), scores, fill}, scores.Type, scores.Shape)
	}
	y := g.matMul(g.unary("Softmax", scores, onnx.IntAttr("axis", -1)), v)
	if l.x(0).rank() == 3 {
		y = g.transpose(y, 0, 2, 1, 3)
		y = g.reshape(y, y.Shape[0], y.Shape[1], y.Shape[2]*y.Shape[3])
	}
	l.define(0, y)
	return nil
}

// heads turns [B, S, heads·d] to [B, heads, S, d].
func (l *lowered) heads(x *Value, heads int64) *Value {
	if x.rank() == 4 {
		return x
	}
	return l.g.transpose(l.g.reshape(x, x.Shape[0], x.Shape[1], heads, x.Shape[2]/heads), 0, 2, 1, 3)
}

// repeatHeads has every head of x as often as heads of Q share it, one beside the other.
func (l *lowered) repeatHeads(x *Value, heads int64) *Value {
	b, own, s, d := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	if own == heads {
		return x
	}
	each := l.g.expand(l.g.reshape(x, b, own, 1, s, d), []int64{b, own, heads / own, s, d})
	return l.g.reshape(each, b, heads, s, d)
}

// causal lets row i see columns up to i.
func (g *Graph) causal(rows, columns int64) *Value {
	row := g.constant("rows", onnx.NewTensor("", []int64{rows, 1}, sequence(int(rows))))
	return g.not(g.compare("Less", row, g.integers(sequence(int(columns))...)))
}
