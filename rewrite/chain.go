package rewrite

import (
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// maxChain bounds how many nodes are followed from a MatMul up to the stored tensor.
const maxChain = 64

// parameterDepth is what following a parameter of a node on the way (a scale, a shape) costs of maxChain: scales that are
// themselves dequantized are followed, but only a few levels, since every level may branch.
const parameterDepth = maxChain / 4

// constant is a tensor known before the model runs: stored elements, seen through a permutation of their order.
type constant struct {
	elements elements
	dims     []int64
	strides  []int64 // of each dimension, in elements
	dtype    onnx.DataType
	root     *onnx.Value // where the data lie: an initializer, or the output of a Constant node
	recipe   string      // what was done to which stored tensor: equal recipes mean equal constants
	values   string      // the same of the elements in their order: what strides tell is left out
}

// notConstant says why a value is no weight.
type notConstant struct {
	reason Reason
	why    string
}

func (e *notConstant) Error() string { return e.why }

func dynamic(format string, args ...any) error {
	return &notConstant{DynamicB, fmt.Sprintf(format, args...)}
}

func rankError(format string, args ...any) error {
	return &notConstant{Rank, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &notConstant{UnsupportedAttr, fmt.Sprintf(format, args...)}
}

// foldable lists the operators of default-domain nodes whose output constant follows from constant input 0.
var foldable = map[string]bool{
	"Identity": true, "Cast": true, "Transpose": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true,
	"Flatten": true, "DequantizeLinear": true, "QuantizeLinear": true, "Split": true, "Slice": true,
}

// folds reports whether what n computes of a constant input 0 can be followed.
func (vs *values) folds(n *onnx.Node) bool {
	if standard(n, "Gather") {
		_, _, ok := vs.picked(n)
		return ok
	}
	return foldable[n.OpType] && standard(n, n.OpType)
}

// Arranges reports whether n only puts the numbers of its first input in another order, cuts some out, quantizes or dequantizes them: whether its
// output is the same weight still.
func Arranges(n *onnx.Node) bool {
	return (foldable[n.OpType] || n.OpType == "Concat") && standard(n, n.OpType)
}

// constant follows v up to stored data. The error is a *notConstant when v is not constant, or is computed in a way
// this package does not follow.
func (vs *values) constant(v *onnx.Value) (*constant, error) { return vs.follow(v, 0) }

func (vs *values) follow(v *onnx.Value, depth int) (*constant, error) {
	switch {
	case v == nil:
		return nil, dynamic("an input is missing")
	case depth > maxChain:
		return nil, unsupported("more than %d nodes stand between it and the stored weight", maxChain)
	case vs.overridable(v):
		return nil, &notConstant{Replaceable, fmt.Sprintf("%q is also a graph input, so a caller may replace it; remove it from the inputs to fix its value", v.Name)}
	case v.Initializer != nil:
		return stored(v.Initializer, v)
	case v.Sparse != nil:
		return nil, unsupported("%q is a sparse initializer; store it as a dense one", v.Name)
	case v.Param:
		return nil, unsupported("%q is an input of the model-local function, which was not inlined; inline the functions first", v.Name)
	case v.Node == nil:
		return nil, dynamic("%q is an input of the graph", v.Name)
	}
	n := v.Node
	if standard(n, "Constant") {
		t, err := constantTensor(n)
		if err != nil {
			return nil, unsupported("%v", err)
		}
		return stored(t, v)
	}
	if !vs.folds(n) {
		if vs.fixed(v) {
			return nil, &notConstant{Unfolded, fmt.Sprintf("%q is computed by %s from constants alone; save the model with constants folded first", v.Name, n.OpType)}
		}
		return nil, dynamic("%q is computed by %s", v.Name, n.OpType)
	}
	c, err := vs.follow(vs.input(n, 0), depth+1)
	if err != nil {
		return nil, err
	}
	if err := vs.fold(c, n, slices.Index(n.Outputs, v.Name), depth); err != nil {
		return nil, err
	}
	return c, nil
}

// fixed reports whether v is the same in every run: stored, or computed from what is.
func (vs *values) fixed(v *onnx.Value) bool {
	switch n := v.Node; {
	case vs.overridable(v) || v.Param:
		return false
	case v.Initializer != nil || v.Sparse != nil:
		return true
	case n == nil:
		return false
	case standard(n, "Constant"):
		return true
	}
	if known, ok := vs.constants[v]; ok {
		return known
	}
	vs.constants[v] = false // also what a damaged model computes from itself
	var inputs int
	for i := range v.Node.Inputs {
		if in := vs.input(v.Node, i); in != nil {
			if inputs++; !vs.fixed(in) {
				return false
			}
		}
	}
	captures := slices.ContainsFunc(v.Node.Attributes, func(a *onnx.Attribute) bool { return a.G != nil || len(a.Graphs) > 0 })
	vs.constants[v] = inputs > 0 && !captures
	return vs.constants[v]
}

// fold changes c, the constant input 0 of n, into output out of n.
func (vs *values) fold(c *constant, n *onnx.Node, out, depth int) error {
	switch n.OpType {
	case "Identity":
		return nil
	case "Cast":
		return c.cast(onnx.DataType(n.Int("to", 0)))
	case "Transpose":
		return c.transpose(n.Ints("perm"))
	case "DequantizeLinear":
		return vs.dequantize(c, n, depth)
	case "QuantizeLinear":
		return vs.quantize(c, n, depth)
	case "Split":
		return vs.split(c, n, out, depth)
	case "Slice":
		return vs.slice(c, n, depth)
	case "Gather":
		return vs.pick(c, n)
	case "Flatten":
		axis, err := wrapAxis(n.Int("axis", 1), len(c.dims), len(c.dims))
		if err != nil {
			return unsupported("Flatten %q: %v", n.Name, err)
		}
		return c.reshape([]int64{product(c.dims[:axis]), product(c.dims[axis:])})
	case "Reshape":
		want, err := vs.ints(n, 1, "shape", depth)
		if err != nil {
			return err
		}
		return c.reshapeTo(want, n.Int("allowzero", 0) != 0)
	default: // Squeeze, Unsqueeze
		axes, err := vs.ints(n, 1, "axes", depth)
		if err != nil {
			return err
		}
		return c.squeeze(axes, n.OpType == "Unsqueeze")
	}
}

// stored starts a constant from a tensor of the model.
func stored(t *onnx.Tensor, root *onnx.Value) (*constant, error) {
	n, err := t.NumElements()
	if err != nil {
		return nil, unsupported("tensor %q: %v", root.Name, err)
	}
	if n == 0 {
		return nil, unsupported("tensor %q is empty", root.Name)
	}
	return &constant{
		elements: tensorElements{t}, dims: slices.Clone(t.Dims), strides: contiguous(t.Dims),
		dtype: t.DataType, root: root, recipe: fmt.Sprintf("%p", t), values: fmt.Sprintf("%p", t),
	}, nil
}

// constantTensor returns the tensor a Constant node stands for.
func constantTensor(n *onnx.Node) (*onnx.Tensor, error) {
	for _, a := range n.Attributes {
		switch a.Name {
		case "value":
			if a.T != nil {
				return a.T, nil
			}
		case "value_float":
			return &onnx.Tensor{DataType: onnx.Float, FloatData: onnx.Pack(a.F)}, nil
		case "value_floats":
			return &onnx.Tensor{DataType: onnx.Float, Dims: []int64{int64(len(a.Floats))}, FloatData: onnx.Pack(a.Floats...)}, nil
		case "value_int":
			return &onnx.Tensor{DataType: onnx.Int64, Int64Data: onnx.Pack(a.I)}, nil
		case "value_ints":
			return &onnx.Tensor{DataType: onnx.Int64, Dims: []int64{int64(len(a.Ints))}, Int64Data: onnx.Pack(a.Ints...)}, nil
		}
	}
	return nil, fmt.Errorf("the Constant node %q holds no dense tensor", n.Name)
}

func (c *constant) note(format string, args ...any) { c.recipe += "|" + fmt.Sprintf(format, args...) }

// noteValues notes what changes the elements, not only how they are seen.
func (c *constant) noteValues(format string, args ...any) {
	c.note(format, args...)
	c.values += "|" + fmt.Sprintf(format, args...)
}

// isContiguous reports whether the elements stand in row-major order; the stride of a dimension of 1 says nothing.
func (c *constant) isContiguous() bool {
	for i, s := range contiguous(c.dims) {
		if c.dims[i] != 1 && c.strides[i] != s {
			return false
		}
	}
	return true
}

func (c *constant) size() int64 { return product(c.dims) }

// cast rounds the elements when the target type is narrower. Casting is elementwise, so it goes below the permutation.
func (c *constant) cast(to onnx.DataType) error {
	if !c.dtype.IsFloat() || !to.IsFloat() {
		return unsupported("it is cast from %v to %v", c.dtype, to)
	}
	if to == onnx.Float16 || to == onnx.BFloat16 {
		if to != c.dtype {
			c.elements = roundedElements{c.elements, to}
		}
	} else if to != onnx.Float && to != onnx.Double {
		return unsupported("it is cast to %v", to)
	}
	c.dtype = to
	c.noteValues("cast %d", to)
	return nil
}

func (c *constant) transpose(perm []int64) error {
	r := len(c.dims)
	if perm == nil {
		for i := range r {
			perm = append(perm, int64(r-1-i))
		}
	}
	if len(perm) != r {
		return unsupported("it passes a Transpose of %d axes, but has %d", len(perm), r)
	}
	dims, strides, seen := make([]int64, r), make([]int64, r), make([]bool, r)
	for i, p := range perm {
		if p < 0 || p >= int64(r) || seen[p] {
			return unsupported("it passes a Transpose with the impossible permutation %v", perm)
		}
		seen[p] = true
		dims[i], strides[i] = c.dims[p], c.strides[p]
	}
	c.dims, c.strides = dims, strides
	c.note("transpose %v", perm)
	return nil
}

// reshapeTo applies the target of a Reshape node, where 0 copies a dimension and -1 stands for what is left.
func (c *constant) reshapeTo(want []int64, allowZero bool) error {
	dims, open := slices.Clone(want), -1
	for i, d := range want {
		switch {
		case d == 0 && !allowZero && i < len(c.dims):
			dims[i] = c.dims[i]
		case d == -1 && open < 0:
			open, dims[i] = i, 1
		case d <= 0:
			return unsupported("it is reshaped to %v", want)
		}
	}
	if open >= 0 {
		p, ok := boundedProduct(dims, c.size())
		if !ok || c.size()%p != 0 {
			return unsupported("it is reshaped from %v to %v", c.dims, want)
		}
		dims[open] = c.size() / p
	}
	return c.reshape(dims)
}

// reshape changes the dimensions and keeps the order of the elements. A reshape that would mix transposed axes has no
// strides; it is refused.
func (c *constant) reshape(dims []int64) error {
	if p, ok := boundedProduct(dims, c.size()); !ok || p != c.size() {
		return unsupported("it is reshaped from %v to %v", c.dims, dims)
	}
	strides, ok := restride(c.dims, c.strides, dims)
	if !ok {
		return unsupported("it is transposed and then reshaped from %v to %v, which moves single elements", c.dims, dims)
	}
	c.dims, c.strides = slices.Clone(dims), strides
	c.note("reshape %v", dims)
	return nil
}

func (c *constant) squeeze(axes []int64, insert bool) error {
	r := len(c.dims)
	if insert {
		r += len(axes)
	}
	at := make([]bool, r)
	for _, a := range axes {
		i, err := wrapAxis(a, r, r-1)
		if err != nil || at[i] {
			return unsupported("it passes a Squeeze or Unsqueeze with impossible axes %v", axes)
		}
		at[i] = true
	}
	var dims []int64
	if insert {
		for i, left := 0, c.dims; i < r; i++ {
			if at[i] {
				dims = append(dims, 1)
			} else {
				dims, left = append(dims, left[0]), left[1:]
			}
		}
		return c.reshape(dims)
	}
	for i, d := range c.dims {
		if !at[i] && (d != 1 || axes != nil) {
			dims = append(dims, d)
		}
	}
	return c.reshape(dims)
}

// ints reads integers that are input i of n or, in older opsets, its attribute. Both absent gives nil.
func (vs *values) ints(n *onnx.Node, i int, attr string, depth int) ([]int64, error) {
	v := vs.input(n, i)
	if v == nil {
		return n.Ints(attr), nil
	}
	c, err := vs.follow(v, depth+parameterDepth)
	if err != nil {
		return nil, unsupported("the %s of %s %q is not constant", attr, n.OpType, n.Name)
	}
	t, ok := c.elements.(tensorElements)
	if !ok || t.DataType != onnx.Int64 || c.size() > 16 {
		return nil, unsupported("the %s of %s %q is no short list of integers", attr, n.OpType, n.Name)
	}
	ints, err := t.Int64s()
	if err != nil {
		return nil, unsupported("the %s of %s %q: %v", attr, n.OpType, n.Name, err)
	}
	return ints, nil
}
