package models

import (
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// positions are what all layers share whose attention is in pieces: cosines and sines of the new tokens' positions, [1, 1, sequence, size of a head],
// and the mask of what they do not see, [sequence, total].
func (b *decoderBuilder) positions() {
	b.ints("axis0", 0)
	b.ints("axis1", 1)
	b.ints("axis2", 2)
	b.ints("axis3", 3)
	scalar := func(name string, v int64) {
		b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, nil, []int64{v}))
	}
	scalar("first", 0)
	scalar("second", 1)
	scalar("third", 2)
	scalar("one", 1)
	past := b.node("", "Gather", "past", b.node("", "Shape", "past.shape", "past_key_values.0.key"), "third")
	added := b.node("", "Gather", "added", b.node("", "Shape", "ids.shape", tokensName), "second")
	total := b.node("", "Add", "total", past, added)
	own := b.node("", "Range", "own", past, total, "one")
	for _, name := range []string{"cosines", "sines"} {
		half := b.node("", "Gather", name+".own", name, own)
		b.append("", "Concat", name+".both", []string{half, half}, []string{name + ".both.out"}, onnx.IntAttr("axis", -1))
		b.node("", "Unsqueeze", name+".heads", b.node("", "Unsqueeze", name+".batch", name+".both.out", "axis0"), "axis0")
	}
	seen := b.node("", "LessOrEqual", "seen", b.node("", "Range", "keys", "first", total, "one"), b.node("", "Unsqueeze", "own.rows", own, "axis1"))
	least := float32(-math.MaxFloat32)
	if b.Half {
		least = -65504
	}
	b.node("", "Where", "mask", seen, b.floats("nothing", nil, []float32{0}), b.floats("least", nil, []float32{least}))
}

func (b *decoderBuilder) ints(name string, v ...int64) string {
	b.graph.Initializers = append(b.graph.Initializers, onnx.NewTensor(name, []int64{int64(len(v))}, v))
	return name
}

// inPieces is attention of queries, keys and values as PyTorch's exporter writes it, over caches that grow: they are appended to.
func (b *decoderBuilder) inPieces(name, past, present, q, k, v string) string {
	size := b.Width / b.Heads
	transpose := func(name, x string, perm ...int64) string {
		b.append("", "Transpose", name, []string{x}, []string{name + ".out"}, onnx.IntsAttr("perm", perm...))
		return name + ".out"
	}
	heads := func(part, x string, count int) string {
		x = b.node("", "Reshape", name+"."+part+".split", x, b.ints(name+"."+part+".shape", 0, 0, int64(count), int64(size)))
		return transpose(name+"."+part+".heads", x, 0, 2, 1, 3)
	}
	turned := func(part, x string) string {
		part = name + "." + part
		low := b.node("", "Slice", part+".low", x, b.ints(part+".begin", 0), b.ints(part+".middle", int64(size/2)), "axis3")
		high := b.node("", "Slice", part+".high", x, part+".middle", b.ints(part+".end", math.MaxInt64), "axis3")
		b.append("", "Concat", part+".halves", []string{b.node("", "Neg", part+".negative", high), low}, []string{part + ".halves.out"}, onnx.IntAttr("axis", -1))
		return b.node("", "Add", part+".turned", b.node("", "Mul", part+".plain", x, "cosines.heads.out"), b.node("", "Mul", part+".product", part+".halves.out", "sines.heads.out"))
	}
	cached := func(part, x string) string {
		b.append("", "Concat", name+part, []string{past + part, x}, []string{present + part}, onnx.IntAttr("axis", 2))
		x = present + part
		if b.Heads == b.CacheHeads {
			return x
		}
		// Each head as often as there are queries' heads for it, by shapes that are found out.
		part = name + part
		shape := b.node("", "Shape", part+".shape", x)
		cut := func(from, to string) string {
			return b.node("", "Slice", part+".dims"+from+to, shape, "axis"+from, "axis"+to)
		}
		concat := func(name string, dims ...string) string {
			b.append("", "Concat", name, dims, []string{name + ".out"}, onnx.IntAttr("axis", 0))
			return name + ".out"
		}
		batch, own, rest := cut("0", "1"), cut("1", "2"), []string{cut("2", "3"), b.ints(part+".size", int64(size))}
		wide := concat(part+".wide", slices.Concat([]string{batch, own, b.ints(part+".repeats", int64(b.Heads/b.CacheHeads))}, rest)...)
		x = b.node("", "Expand", part+".repeated", b.node("", "Unsqueeze", part+".each", x, "axis2"), wide)
		return b.node("", "Reshape", part+".all", x, concat(part+".merged", slices.Concat([]string{batch, b.ints(part+".heads", int64(b.Heads))}, rest)...))
	}
	q = turned("q", heads("q", q, b.Heads))
	k = cached(".key", turned("k", heads("k", k, b.CacheHeads)))
	v = cached(".value", heads("v", v, b.CacheHeads))
	scores := b.node("", "MatMul", name+".scores", q, transpose(name+".k.across", k, 0, 1, 3, 2))
	scores = b.node("", "Mul", name+".scaled", scores, b.floats(name+".scale", nil, []float32{float32(1 / math.Sqrt(float64(size)))}))
	weights := fmt.Sprint(name, ".weights")
	b.append("", "Softmax", weights, []string{b.node("", "Add", name+".masked", scores, "mask.out")}, []string{weights}, onnx.IntAttr("axis", -1))
	y := transpose(name+".tokens", b.node("", "MatMul", name+".mixed", weights, v), 0, 2, 1, 3)
	return b.node("", "Reshape", name+".attended", y, b.ints(name+".attended.shape", 0, 0, int64(b.Width)))
}
