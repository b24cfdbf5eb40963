package grad

import "github.com/cosetq/cosetq/onnx"

// multiHeadLowering writes out com.microsoft's MultiHeadAttention. Inputs: queries, keys, values, a bias of all three, a padding mask, a bias of
// scores, the past of keys and values. Outputs: the result, keys and values with the past.
func multiHeadLowering(l *lowered) error {
	g, n := l.g, l.n
	switch {
	case l.x(1) == nil || l.x(2) == nil || l.x(1).rank() > 4:
		return l.noRule("with queries, keys and values in one input")
	case l.x(8) != nil || l.x(9) != nil:
		return l.noRule("with a cache that is written in place, or with beams")
	case l.gives(3):
		return l.noRule("with an output of scores")
	}
	heads := n.Int("num_heads", 0)
	q, k, v := l.x(0), l.x(1), l.x(2)
	if bias := l.x(3); bias != nil {
		hidden := q.Shape[2]
		q = g.add(q, g.slice(bias, 0, 0, hidden))
		if k.rank() == 3 { // those ordered by heads have theirs
			k, v = g.add(k, g.slice(bias, 0, hidden, 2*hidden)), g.add(v, g.slice(bias, 0, 2*hidden, bias.Shape[0]))
		}
	}
	q, k, v = l.heads(q, heads), l.heads(k, heads), l.heads(v, heads)
	added := k.Shape[2]
	k, v = g.behind(l.x(6), k), g.behind(l.x(7), v)
	l.define(1, k)
	l.define(2, v)
	l.define(0, l.maskedAttention(q, k, v, l.x(4), l.x(5), k.Shape[2]-added))
	return nil
}

// projectedAttentionLowering writes out com.microsoft's Attention, which makes queries, keys and values itself. Inputs: x, their weights
// and bias, a padding mask, the past of keys and values, a bias of scores. Outputs: the result, keys and values with the past.
func projectedAttentionLowering(l *lowered) error {
	g, n := l.g, l.n
	switch {
	case l.x(6) != nil || n.Int("past_present_share_buffer", 0) != 0:
		return l.noRule("with a cache that is written in place")
	case n.Int("do_rotary", 0) != 0:
		return l.noRule("with a rotary embedding in it")
	}
	x, weights, heads := l.x(0), l.x(1), n.Int("num_heads", 0)
	b, s, all := x.Shape[0], x.Shape[1], weights.Shape[1]
	sizes := n.Ints("qkv_hidden_sizes")
	if sizes == nil {
		sizes = []int64{all / 3, all / 3, all / 3}
	}
	product := g.gemm(g.reshape(x, b*s, x.Shape[2]), weights, false, false)
	if bias := l.x(2); bias != nil {
		product = g.add(product, bias)
	}
	product = g.reshape(product, b, s, all)
	var parts [3]*Value
	from := int64(0)
	for i, size := range sizes {
		parts[i] = l.heads(g.slice(product, 2, from, from+size), heads)
		from += size
	}
	q, k, v := parts[0], parts[1], parts[2]
	if past := l.x(4); past != nil {
		k = g.behind(g.reshape(g.slice(past, 0, 0, 1), past.Shape[1:]...), k)
		v = g.behind(g.reshape(g.slice(past, 0, 1, 2), past.Shape[1:]...), v)
	}
	if l.gives(1) {
		one := append([]int64{1}, k.Shape...)
		l.define(1, g.concat(0, g.reshape(k, one...), g.reshape(v, one...)))
	}
	l.define(0, l.maskedAttention(q, k, v, l.x(3), l.x(5), k.Shape[2]-s))
	return nil
}

// behind puts new keys or values behind those of the past.
func (g *Graph) behind(past, added *Value) *Value {
	if past == nil || past.Shape[2] == 0 {
		return added
	}
	return g.concat(2, past, added)
}

// maskedAttention is attention with a padding mask, a bias of scores and, where "unidirectional" says so, only over keys up to a query's own, as
// [B, S, heads·d]; past keys are ahead of the first query's. The last query sees all keys, however many there are: ONNX Runtime hides none from it.
func (l *lowered) maskedAttention(q, k, v, padding, bias *Value, past int64) *Value {
	g, n := l.g, l.n
	s, t := q.Shape[2], k.Shape[2]
	a := attended{q: q, k: k, v: v, scale: float64(n.Float("scale", 0)), bias: bias}
	if keep := g.kept(padding, q.Shape[0], s, t); keep != nil {
		filter := g.number(q.Type, float64(n.Float("mask_filter_value", -10000)))
		hidden := g.put("Where", []*Value{keep, g.number(q.Type, 0), filter}, q.Type, keep.Shape)
		if a.bias = hidden; bias != nil {
			a.bias = g.add(bias, hidden)
		}
	}
	if n.Int("unidirectional", 0) != 0 && s > 1 {
		last := sequence(int(s))
		for i := range last {
			last[i] += past
		}
		last[s-1] = t
		a.visible = []*Value{g.causal(last, t)}
	}
	return g.tokens(g.attend(a))
}

// kept says which of t keys a padding mask keeps, [B, 1, S or 1, t], nil for all: it holds numbers of keys, [B] or more, followed by the first key
// of each sequence if it has twice as many; or marks, [B, t] or [B, S, t].
func (g *Graph) kept(mask *Value, batch, s, t int64) *Value {
	switch {
	case mask == nil || mask.rank() == 2 && mask.Count() != batch*t: // one mark for all keys
		return nil
	case mask.rank() == 1:
		at := g.integers(sequence(int(t))...)
		bounds := g.cast(mask, onnx.Int64)
		part := func(i int64) *Value { return g.reshape(g.slice(bounds, 0, i*batch, (i+1)*batch), batch, 1, 1, 1) }
		keep := g.compare("Less", at, part(0))
		if mask.Count() == 2*batch {
			keep = g.put("And", []*Value{keep, g.not(g.compare("Less", at, part(1)))}, onnx.Bool, keep.Shape)
		}
		return keep
	}
	marks := g.compare("Greater", g.cast(mask, onnx.Int64), g.integer(0))
	if mask.rank() == 2 {
		s = 1
	}
	return g.reshape(marks, batch, 1, s, t)
}
