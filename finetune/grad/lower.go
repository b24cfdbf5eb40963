package grad

import (
	"errors"
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
		microsoft + "EmbedLayerNormalization": embedNormLowering,
		microsoft + "RotaryEmbedding":         microsoftRotaryLowering, "RotaryEmbedding": rotaryLowering,
		"Attention": attentionLowering, microsoft + "GroupQueryAttention": groupQueryLowering,
		microsoft + "MultiHeadAttention": multiHeadLowering, microsoft + "Attention": projectedAttentionLowering,
		microsoft + "FusedMatMul": fusedMatMulLowering,
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
				if missing := (*NoRuleError)(nil); errors.As(err, &missing) {
					return err
				}
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
	l.normalize(l.skipSum(4), l.x(2), l.x(3))
	return nil
}

// normalize stores the layer normalization of the sum as output 0. ONNX Runtime takes that operator in models of any opset, but its optimizer
// crashes where the bias is named as left out.
func (l *lowered) normalize(sum, scale, bias *Value) {
	in := []*Value{sum, scale}
	if bias != nil {
		in = append(in, bias)
	}
	l.define(0, l.g.put("LayerNormalization", in, sum.Type, sum.Shape, onnx.IntAttr("axis", -1), onnx.FloatAttr("epsilon", l.n.Float("epsilon", 1e-12))))
}

// The sum of three embeddings, normalized. Inputs: ids of tokens and segments, tables of tokens, positions and segments, scale and bias, mask,
// positions. Outputs: the result, how many tokens the mask keeps, the sum.
func embedNormLowering(l *lowered) error {
	g, ids := l.g, l.x(0)
	rows := func(table, at *Value) *Value {
		return g.put("Gather", []*Value{table, at}, table.Type, append(slices.Clone(at.Shape), table.Shape[1]))
	}
	positions := l.x(8)
	if positions == nil {
		positions = g.reshape(g.integers(sequence(int(ids.Shape[1]))...), 1, ids.Shape[1])
	}
	sum := g.add(rows(l.x(2), ids), rows(l.x(3), positions))
	if segments := l.x(1); segments != nil {
		sum = g.add(sum, rows(l.x(4), segments))
	}
	l.define(2, sum)
	l.normalize(sum, l.x(5), l.x(6))
	kept := g.constant("zeros", onnx.NewTensor("", ids.Shape[:1], make([]int32, ids.Shape[0])))
	if mask := l.x(7); mask != nil {
		one := g.constant("one", onnx.NewTensor("", nil, []int32{1}))
		kept = g.reshape(g.reduce("ReduceSum", g.cast(g.compare("Equal", mask, one), onnx.Int32), 1), ids.Shape[0])
	}
	l.define(1, kept)
	return nil
}
