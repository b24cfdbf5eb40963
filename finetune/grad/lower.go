package grad

import (
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// lowering writes an operator out in terms of others, with its output under the old name.
type lowering func(l *lowered) error

// lowered is a node being written out.
type lowered struct {
	g *Graph
	n *onnx.Node
}

const microsoft = "com.microsoft::"

// lowerings holds the operators that are differentiated by writing them out.
var lowerings map[string]lowering

func init() {
	lowerings = map[string]lowering{
		"Gelu": geluLowering, microsoft + "Gelu": geluLowering, microsoft + "FastGelu": fastGeluLowering, microsoft + "BiasGelu": geluLowering,
		microsoft + "QuickGelu": quickGeluLowering, "HardSwish": hardSwishLowering,
		"RMSNormalization": rmsLowering, "SimplifiedLayerNormalization": rmsLowering, microsoft + "SimplifiedLayerNormalization": rmsLowering,
		microsoft + "SkipLayerNormalization": skipNormLowering, microsoft + "SkipSimplifiedLayerNormalization": skipRMSLowering,
		microsoft + "RotaryEmbedding": microsoftRotaryLowering, "RotaryEmbedding": rotaryLowering,
		"Attention": attentionLowering, microsoft + "FusedMatMul": fusedMatMulLowering,
	}
}

// lower takes over the nodes, in their order: composed operators written out, and products with a matrix as Gemm.
func (g *Graph) lower(nodes []*onnx.Node) error {
	transposed := map[string]*Value{} // matrices by the name of their transpose
	for _, n := range nodes {
		l := &lowered{g, n}
		if n.OpType == "Transpose" && standard(n.Domain) && g.values[n.Inputs[0]].rank() == 2 {
			if perm := n.Ints("perm"); perm == nil || perm[0] == 1 {
				transposed[n.Outputs[0]] = l.x(0)
			}
		}
		if n.OpType == "MatMul" && standard(n.Domain) && l.matMul(transposed) {
			continue
		}
		if f := lowerings[opName(n)]; f != nil {
			if err := f(l); err != nil {
				return fmt.Errorf("grad: %s: %w", describe(n), err)
			}
			continue
		}
		g.nodes = append(g.nodes, n)
	}
	return nil
}

// x returns input i, nil when it was left out.
func (l *lowered) x(i int) *Value {
	if i >= len(l.n.Inputs) || l.n.Inputs[i] == "" {
		return nil
	}
	return l.g.values[l.n.Inputs[i]]
}

// define makes v output i.
func (l *lowered) define(i int, v *Value) {
	if i < len(l.n.Outputs) && l.n.Outputs[i] != "" {
		l.g.putAs(l.n.Outputs[i], "Identity", []*Value{v}, v.Type, v.Shape)
	}
}

// matMul writes a product with a matrix on the right, or with a vector, as a Gemm on flattened rows; false for other products.
// A matrix that is the transpose of another is read in that form.
func (l *lowered) matMul(transposed map[string]*Value) bool {
	g, a, b := l.g, l.x(0), l.x(1)
	if b.rank() > 2 || a.rank() == 0 || a.Type != onnx.Float && a.Type != onnx.Double {
		if a.rank() != 1 && b.rank() != 1 {
			return false
		}
		// vector · matrices, or a vector on the right in a type that Gemm does not take
		shape := g.values[l.n.Outputs[0]].Shape
		if a.rank() == 1 {
			a = g.reshape(a, 1, a.Count())
		}
		if b.rank() == 1 {
			b = g.reshape(b, b.Count(), 1)
		}
		v := g.matMul(a, b)
		g.putAs(l.n.Outputs[0], "Reshape", []*Value{v, g.integers(shape...)}, v.Type, shape)
		return true
	}
	shape := g.values[l.n.Outputs[0]].Shape
	k := a.Shape[a.rank()-1]
	rows := a.Count() / max(k, 1)
	transB := false
	if w := transposed[b.Name]; w != nil {
		b, transB = w, true
	}
	b = g.reshape(b, b.Shape[0], b.Count()/max(b.Shape[0], 1))
	n := b.Shape[1]
	if transB {
		n = b.Shape[0]
	}
	if a.rank() == 2 && len(shape) == 2 {
		g.gemmAs(l.n.Outputs[0], a, b, false, transB, rows, n)
		return true
	}
	y := g.gemm(g.reshape(a, rows, k), b, false, transB)
	g.putAs(l.n.Outputs[0], "Reshape", []*Value{y, g.integers(shape...)}, y.Type, shape)
	return true
}

// alpha·a'·b', either factor transposed or not, as ONNX Runtime's optimizer leaves the products of attention.
func fusedMatMulLowering(l *lowered) error {
	g, a, b := l.g, l.x(0), l.x(1)
	if l.n.Int("transBatchA", 0) != 0 || l.n.Int("transBatchB", 0) != 0 || a.rank() < 2 || b.rank() < 2 {
		return fmt.Errorf("it moves the axes of a batch, or takes a vector; save the model with ORT_ENABLE_BASIC")
	}
	if l.n.Int("transA", 0) != 0 {
		a = g.swapLast(a)
	}
	if l.n.Int("transB", 0) != 0 {
		b = g.swapLast(b)
	}
	l.define(0, g.scale(g.matMul(a, b), float64(l.n.Float("alpha", 1))))
	return nil
}

// x·Φ(x), exactly or by tanh; BiasGelu adds its second input first.
func geluLowering(l *lowered) error {
	g, x := l.g, l.x(0)
	if bias := l.x(1); bias != nil {
		x = g.add(x, bias)
	}
	if l.n.Str("approximate", "none") == "tanh" {
		l.define(0, g.tanhGelu(x))
		return nil
	}
	phi := g.scale(g.add(g.unary("Erf", g.scale(x, math.Sqrt2/2)), g.number(x.Type, 1)), 0.5)
	l.define(0, g.mul(x, phi))
	return nil
}

func fastGeluLowering(l *lowered) error {
	x := l.x(0)
	if bias := l.x(1); bias != nil {
		x = l.g.add(x, bias)
	}
	l.define(0, l.g.tanhGelu(x))
	return nil
}

// tanhGelu is x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
func (g *Graph) tanhGelu(x *Value) *Value {
	cube := g.mul(g.mul(x, x), x)
	inner := g.scale(g.add(x, g.scale(cube, 0.044715)), math.Sqrt(2/math.Pi))
	return g.mul(x, g.scale(g.add(g.unary("Tanh", inner), g.number(x.Type, 1)), 0.5))
}

func quickGeluLowering(l *lowered) error {
	g, x := l.g, l.x(0)
	l.define(0, g.mul(x, g.unary("Sigmoid", g.scale(x, float64(l.n.Float("alpha", 1.702))))))
	return nil
}

func hardSwishLowering(l *lowered) error {
	g, x := l.g, l.x(0)
	l.define(0, g.mul(x, g.unary("HardSigmoid", x, onnx.FloatAttr("alpha", 1./6), onnx.FloatAttr("beta", 0.5))))
	return nil
}

// rms is scale·x/√(mean(x²) + ε) over the axes from first on.
func (g *Graph) rms(x, scale *Value, first int, epsilon float64) *Value {
	mean := g.reduce("ReduceMean", g.mul(x, x), sequence(x.rank())[first:]...)
	r := g.unary("Reciprocal", g.unary("Sqrt", g.add(mean, g.number(x.Type, epsilon))))
	return g.mul(g.mul(x, r), scale)
}

func rmsLowering(l *lowered) error {
	x := l.x(0)
	l.define(0, l.g.rms(x, l.x(1), axis(l.n.Int("axis", -1), x.rank()), float64(l.n.Float("epsilon", 1e-5))))
	return nil
}

// skipSum adds the first two inputs and the bias, input i, and stores the sum as output 3.
func (l *lowered) skipSum(bias int) *Value {
	sum := l.g.add(l.x(0), l.x(1))
	if b := l.x(bias); b != nil {
		sum = l.g.add(sum, b)
	}
	l.define(3, sum)
	return sum
}

func skipRMSLowering(l *lowered) error {
	sum := l.skipSum(3)
	l.define(0, l.g.rms(sum, l.x(2), sum.rank()-1, float64(l.n.Float("epsilon", 1e-12))))
	return nil
}

func skipNormLowering(l *lowered) error {
	g := l.g
	if g.opset < 17 {
		return fmt.Errorf("it is written out with LayerNormalization, which opset %d lacks; export the model with opset 17 or later", g.opset)
	}
	sum := l.skipSum(4)
	in := []*Value{sum, l.x(2)}
	if beta := l.x(3); beta != nil {
		in = append(in, beta)
	}
	l.define(0, g.put("LayerNormalization", in, sum.Type, sum.Shape,
		onnx.IntAttr("axis", -1), onnx.FloatAttr("epsilon", l.n.Float("epsilon", 1e-12))))
	return nil
}

// com.microsoft: inputs x, position_ids, cos [positions × d/2], sin; x is [B, S, hidden] or [B, heads, S, d].
func microsoftRotaryLowering(l *lowered) error {
	return l.rotary(l.x(0), l.x(2), l.x(3), l.x(1), false)
}

// ai.onnx: inputs x, cos, sin, position_ids.
func rotaryLowering(l *lowered) error { return l.rotary(l.x(0), l.x(1), l.x(2), l.x(3), true) }

// rotary turns pairs of numbers of every head by angles that depend on the position: (a, b) → (a·cos − b·sin, b·cos + a·sin).
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
	d := x.Shape[3]
	turn := l.n.Int("rotary_embedding_dim", 0)
	if turn == 0 {
		turn = d
	}
	cos, sin = l.angles(cos, positions, x, headsFirst), l.angles(sin, positions, x, headsFirst)
	part := g.slice(x, 3, 0, turn)
	var y *Value
	if l.n.Int("interleaved", 0) != 0 {
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
	if turn < d {
		y = g.concat(3, y, g.slice(x, 3, turn, d))
	}
	l.define(0, g.reshape(y, shape...))
	return nil
}

func (g *Graph) turn(a, b, cos, sin *Value) (real, imaginary *Value) {
	return g.sub(g.mul(a, cos), g.mul(b, sin)), g.add(g.mul(b, cos), g.mul(a, sin))
}

// angles looks up the cosines or sines of the positions and gives them the shape of x.
func (l *lowered) angles(table, positions, x *Value, headsFirst bool) *Value {
	g := l.g
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
