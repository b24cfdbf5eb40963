package grad

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// Loss is what training makes small, as a function of a model's output and a target that is fed beside the data.
type Loss int

// The losses. A row is a vector along the last axis of the output.
const (
	// KL is the Kullback-Leibler divergence Σ p·(log p − log q) of the softmax q of the output from the softmax p of the target,
	// a teacher's output, as the mean over rows, in nats.
	KL Loss = iota
	// CrossEntropy is −Σ p·log q of the softmax q of the output, the target p being probabilities such as one-hot labels, as the
	// mean over rows, in nats.
	CrossEntropy
	// MSE is the squared error relative to the energy of the target, Σ(y − t)² / Σt².
	MSE
)

// String is the name that the command line uses.
func (l Loss) String() string { return [...]string{"kl", "ce", "mse"}[l] }

// AddLoss appends a loss of the value named output, and returns it with the graph input for the target, of the same type and
// shape as the output.
func (g *Graph) AddLoss(kind Loss, output string) (loss, target *Value, err error) {
	y := g.values[output]
	if y == nil || !y.IsFloat() || y.rank() == 0 || y.Count() == 0 {
		return nil, nil, fmt.Errorf("grad: %q is no output of floating-point rows that a loss could judge", output)
	}
	target = g.AddInput("target", y.Type, y.Shape...)
	if kind == MSE {
		d := g.sub(y, target)
		return g.div(g.total(g.mul(d, d)), g.total(g.mul(target, target))), target, nil
	}
	cols := y.Shape[y.rank()-1]
	rows := y.Count() / cols
	logits := g.Logits(y)
	logQ := g.logSoftmax(g.reshape(logits, rows, cols))
	p := g.reshape(target, rows, cols)
	difference := logQ
	if kind == KL {
		// The target is the same kind of output as y: where the output is a probability, so is the target.
		logP := p
		if logits == y {
			logP = g.logSoftmax(p)
		} else {
			logP = g.unary("Log", g.add(p, g.number(p.Type, 1e-30)))
		}
		p = g.unary("Exp", logP)
		difference = g.sub(logQ, logP)
	}
	return g.scale(g.total(g.mul(p, difference)), -1/float64(rows)), target, nil
}

// Logits returns what the Softmax behind y was taken of, or y when y is none over the last axis: the softmax of its rows is what a loss
// takes for the model's distribution.
func (g *Graph) Logits(y *Value) *Value {
	for _, n := range g.nodes {
		if n.Outputs[0] != y.Name || n.OpType != "Softmax" || !standard(n.Domain) {
			continue
		}
		otherwise := int64(-1)
		if g.opset < 13 {
			otherwise = 1
		}
		if axis(n.Int("axis", otherwise), y.rank()) == y.rank()-1 {
			return g.values[n.Inputs[0]]
		}
	}
	return y
}

// logSoftmax is over the columns of a matrix, which all versions of the operator agree about.
func (g *Graph) logSoftmax(x *Value) *Value { return g.unary("LogSoftmax", x, onnx.IntAttr("axis", 1)) }

// total is the sum of all elements, as a tensor with one element.
func (g *Graph) total(x *Value) *Value {
	flat := g.reshape(x, 1, x.Count())
	return g.reshape(g.reduce("ReduceSum", flat, 1), 1)
}
