package grad

import (
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// com.microsoft: inputs x, position_ids, cos [positions × d/2], sin; x is [B, S, hidden] or [B, heads, S, d].
func microsoftRotaryLowering(l *lowered) error {
	return l.rotary(l.x(0), l.x(2), l.x(3), l.x(1), false)
}

// ai.onnx: inputs x, cos, sin, position_ids.
func rotaryLowering(l *lowered) error { return l.rotary(l.x(0), l.x(1), l.x(2), l.x(3), true) }

// rotary gives the heads of x, turned, the shape that x has.
func (l *lowered) rotary(x, cos, sin, positions *Value, cached bool) error {
	g := l.g
	heads := l.n.Int("num_heads", 0)
	shape := x.Shape
	headsFirst := x.rank() == 4
	if !headsFirst { // to [B, S, heads, d]
		if heads == 0 && cached {
			return fmt.Errorf("it lacks num_heads")
		}
		half := cos.Shape[cos.rank()-1]
		if heads == 0 {
			heads = shape[2] / (2 * half)
		}
		x = g.reshape(x, shape[0], shape[1], heads, shape[2]/heads)
	}
	turn := l.n.Int("rotary_embedding_dim", 0)
	if turn == 0 {
		turn = x.Shape[3]
	}
	cos, sin = g.angles(cos, positions, x, headsFirst), g.angles(sin, positions, x, headsFirst)
	l.define(0, g.reshape(g.turnHeads(x, cos, sin, turn, l.n.Int("interleaved", 0) != 0), shape...))
	return nil
}

// turnHeads turns pairs of the first numbers of every head: (a, b) → (a·cos − b·sin, b·cos + a·sin). Pairs are neighbours, or half of turn apart.
func (g *Graph) turnHeads(x, cos, sin *Value, turn int64, interleaved bool) *Value {
	part := g.slice(x, 3, 0, turn)
	var y *Value
	if interleaved {
		pairs := g.reshape(part, part.Shape[0], part.Shape[1], part.Shape[2], turn/2, 2)
		flat := slices.Clone(part.Shape)
		flat[3] = turn / 2
		a, b := g.reshape(g.slice(pairs, 4, 0, 1), flat...), g.reshape(g.slice(pairs, 4, 1, 2), flat...)
		split := append(slices.Clone(flat), 1)
		real, imaginary := g.turn(a, b, cos, sin)
		y = g.reshape(g.concat(4, g.reshape(real, split...), g.reshape(imaginary, split...)), part.Shape...)
	} else {
		real, imaginary := g.turn(g.slice(part, 3, 0, turn/2), g.slice(part, 3, turn/2, turn), cos, sin)
		y = g.concat(3, real, imaginary)
	}
	if d := x.Shape[3]; turn < d {
		y = g.concat(3, y, g.slice(x, 3, turn, d))
	}
	return y
}

func (g *Graph) turn(a, b, cos, sin *Value) (real, imaginary *Value) {
	return g.sub(g.mul(a, cos), g.mul(b, sin)), g.add(g.mul(b, cos), g.mul(a, sin))
}

// angles looks up the cosines or sines of the positions and gives them the shape of x.
func (g *Graph) angles(table, positions, x *Value, headsFirst bool) *Value {
	seq := x.Shape[1]
	if headsFirst {
		seq = x.Shape[2]
	}
	half := table.Shape[table.rank()-1]
	if table.rank() == 2 {
		switch {
		case positions == nil:
			table = g.slice(table, 0, 0, seq)
		case positions.Count() == 1: // an offset for all rows
			at := g.add(g.integers(sequence(int(seq))...), g.reshape(g.cast(positions, onnx.Int64), 1))
			table = g.put("Gather", []*Value{table, at}, table.Type, []int64{seq, half})
		default:
			table = g.put("Gather", []*Value{table, positions}, table.Type, append(slices.Clone(positions.Shape), half))
		}
	}
	batch := table.Count() / (seq * half)
	if headsFirst {
		return g.reshape(table, batch, 1, seq, half)
	}
	return g.reshape(table, batch, seq, 1, half)
}
