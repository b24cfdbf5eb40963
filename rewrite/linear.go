package rewrite

import (
	"cmp"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// linear is how a node multiplies by its constant: Y = f(T'(T(A)·Wᵀ) + beta·C), where T and T' are optional permutations of
// the axes and f an optional function of each element, and how a following Add may join it.
type linear struct {
	node       *onnx.Node
	scope      *onnx.Scope
	side       int // left or right: the input that is the weight
	activation *onnx.Value
	weight     *Weight
	// gather makes it Y = W[A] instead: A holds the numbers of rows.
	gather bool
	// in arranges A; out permutes the axes of the product, nil for none.
	in  arrangement
	out []int64
	// rank is the number of axes of A and of the product, known whenever one of them is turned.
	rank int
	// bias is a constant folded into the node, biasScale its factor. Nil when there is none.
	bias      *constant
	biasScale float32
	// addend is a C that cannot be folded: it is added behind, times addendScale; where addendRows is set, which has an element
	// for each row of W, before the product is turned.
	addend      *onnx.Value
	addendScale float32
	addendRows  bool
	// function is applied to each element in the end, by the node itself; nil for none. It has neither inputs nor outputs.
	function *onnx.Node
	// add is the following Add whose constant became bias; its output takes the place of the node's.
	add *onnx.Node
}

// output names the value that l computes.
func (l *linear) output() string {
	if l.add != nil {
		return l.add.Outputs[0]
	}
	return l.node.Outputs[0]
}

// sides of a product: the position of the constant among the node's inputs.
const (
	left  = 0
	right = 1
)

// linear reads a MatMul, a Gemm, what ONNX Runtime makes of them, or a pointwise Conv. The error is a *notConstant, or names why the form is unsupported; c, the constant
// factor, is returned with it as far as it is known.
func (vs *values) linear(n *onnx.Node) (*linear, *constant, error) {
	c, side, err := vs.factor(n)
	if err != nil {
		return nil, nil, err
	}
	l := &linear{node: n, scope: vs.scopeOf[n], side: side, activation: vs.input(n, 1-side), biasScale: 1, addendScale: 1}
	if l.activation == nil {
		return nil, c, unsupported("its input %d is missing", 1-side)
	}
	switch c.dtype {
	case onnx.Float, onnx.Float16:
	default:
		return nil, c, &notConstant{DType, "the weight is " + c.dtype.String() + "; float32 and float16 can be coded"}
	}
	switch n.OpType {
	case "Gemm":
		err = vs.gemm(l, c, side)
	case "FusedGemm":
		if err = vs.gemm(l, c, side); err == nil {
			l.function, err = fusedFunction(n)
		}
	case "Conv":
		err = vs.pointwise(l, c)
	default:
		err = vs.matMul(l, c, side)
	}
	return l, c, err
}

// factor returns the constant that n multiplies by, and its side. The error is that of the right side unless the left one is constant.
func (vs *values) factor(n *onnx.Node) (c *constant, side int, err error) {
	c, err = vs.constant(vs.input(n, right))
	if err != nil && n.OpType != "Conv" {
		if l, lerr := vs.constant(vs.input(n, left)); lerr == nil {
			return l, left, nil
		}
	}
	return c, right, err
}

// weightUse returns the input through which the node reads its weight.
func (l *linear) weightUse() onnx.Use { return onnx.Use{Scope: l.scope, Node: l.node, Input: l.side} }

// matMul completes l for a MatMul with constant c, or a FusedMatMul: Y = alpha·A'·B'.
func (vs *values) matMul(l *linear, c *constant, side int) error {
	n := l.node
	if r := len(c.dims); r > 2 {
		if product(c.dims[:r-2]) != 1 {
			_, err := vs.batch(n, c, side)
			return cmp.Or(err, rankError("the weight is a batch of matrices %s; take it apart first", dimsText(c.dims)))
		}
		// Leading ones do not change the result, unless they lengthen its shape.
		if a, ok := vs.rank(l.activation); !ok || a < r {
			return rankError("the weight is %s and may lengthen the shape of the result", dimsText(c.dims))
		}
		c.dims, c.strides = c.dims[r-2:], c.strides[r-2:]
	}
	if len(c.dims) != 2 {
		return rankError("the weight has rank %d, not 2", len(c.dims))
	}
	if n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0 {
		return unsupported("%s %q moves the axes of a batch: transBatchA %d, transBatchB %d", n.OpType, n.Name, n.Int("transBatchA", 0), n.Int("transBatchB", 0))
	}
	transposed := transpositions(n)
	rank, known := vs.rank(l.activation)
	if turns := side == left || transposed[left]; turns && (!known || rank == 0) {
		if side == left {
			return unsupported("the weight is on the left and the rank of the other factor is not known")
		}
		return unsupported("the other factor is transposed and its rank is not known")
	} else if turns { // the transpositions must name all axes
		l.rank = rank
	}
	l.arrange(c, side, transposed, n.Float("alpha", 1))
	return nil
}

// transpositions tells which of its two factors n transposes first.
func transpositions(n *onnx.Node) [2]bool {
	return [2]bool{n.Int("transA", 0) != 0, n.Int("transB", 0) != 0}
}

// arrange makes alpha times the constant c the weight, and says how the other factor and the product are turned.
func (l *linear) arrange(c *constant, side int, transposed [2]bool, alpha float32) {
	if side == right {
		l.weight = newWeight(c, transposed[right], alpha)
		l.turn(transposed[left], false)
	} else {
		// A'·B' = (B'ᵀ·A'ᵀ)ᵀ, and W = A'.
		l.weight = newWeight(c, !transposed[left], alpha)
		l.turn(!transposed[right], true)
	}
}

// gemm completes l for a Gemm with constant c: Y = alpha·A'·B' + beta·C.
func (vs *values) gemm(l *linear, c *constant, side int) error {
	n := l.node
	if len(c.dims) != 2 {
		return rankError("the weight has rank %d, not 2", len(c.dims))
	}
	l.rank = 2
	l.arrange(c, side, transpositions(n), n.Float("alpha", 1))
	beta := n.Float("beta", 1)
	addend := vs.input(n, 2)
	if addend == nil || beta == 0 {
		return nil
	}
	if bias, err := vs.constant(addend); err == nil && l.foldable(bias, 2) {
		l.bias, l.biasScale = bias, beta
	} else {
		l.addend, l.addendScale = addend, beta
	}
	return nil
}

// turn transposes a matrix A, the product, or both.
func (l *linear) turn(in, out bool) {
	if in {
		l.in.perm = lastTwo(l.rank)
	}
	if out {
		l.out = lastTwo(l.rank)
	}
}

// foldable reports whether adding c to the result is adding a bias to every row of A·Wᵀ: c has one element, or N of them
// along the axis that W's rows become. It must not lengthen the shape of the result, which has the given rank, or 0 where
// that is not known.
func (l *linear) foldable(c *constant, rank int) bool {
	rank = max(rank, 1) // what is known: a product has at least one axis
	if c.dtype != l.weight.dtype {
		return false
	}
	n, r := int64(l.weight.n), len(c.dims)
	if c.size() == 1 {
		return r <= rank
	}
	if c.size() != n {
		return false
	}
	axis := r - 1 // of c, where the rows of W lie along in the result
	if l.out != nil {
		axis = r - l.rank + slices.Index(l.out, int64(l.rank-1))
	}
	return axis >= 0 && r <= rank && c.dims[axis] == n
}

// foldAdd joins the Add that follows, when its other side is a constant bias and nobody else sees the product.
func (vs *values) foldAdd(l *linear) {
	if l.bias != nil || l.addend != nil || l.function != nil || len(l.node.Outputs) == 0 {
		return
	}
	y := vs.local(l.scope, l.node.Outputs[0])
	if y == nil || vs.isOutput(y) || len(y.Uses) != 1 {
		return
	}
	add := y.Uses[0].Node
	if !standard(add, "Add") || vs.scopeOf[add] != l.scope || len(add.Inputs) != 2 || len(add.Outputs) != 1 {
		return
	}
	other := vs.input(add, 1-y.Uses[0].Input)
	if other == nil || other == y {
		return
	}
	c, err := vs.constant(other)
	if err != nil {
		return
	}
	rank := l.rank
	if rank == 0 { // a MatMul with the weight on the right: the result has the rank of A
		rank, _ = vs.rank(l.activation)
	}
	if l.foldable(c, rank) {
		l.bias, l.add = c, add
	}
}
