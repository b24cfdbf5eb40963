package grad

import (
	"fmt"
	"math"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// put appends a node with one output of the given type and shape, under a new name.
func (g *Graph) put(op string, in []*Value, t onnx.DataType, shape []int64, attrs ...*onnx.Attribute) *Value {
	return g.putAs(g.names.Unique("grad."+op), op, in, t, shape, attrs...)
}

// putAs is put under a given name.
func (g *Graph) putAs(name, op string, in []*Value, t onnx.DataType, shape []int64, attrs ...*onnx.Attribute) *Value {
	inputs := make([]string, len(in))
	for i, v := range in {
		if v != nil {
			inputs[i] = v.Name
		}
	}
	out := &Value{name, t, slices.Clone(shape)}
	g.values[name] = out
	n := onnx.NewNode(op, inputs, []string{name}, attrs...)
	n.Name = name
	g.nodes = append(g.nodes, n)
	return out
}

// constant stores a tensor once per content.
func (g *Graph) constant(key string, t *onnx.Tensor) *Value {
	key = fmt.Sprintf("%v %v %s", t.DataType, t.Dims, key)
	if v := g.cached[key]; v != nil {
		return v
	}
	t.Name = g.names.Unique("grad.constant")
	v := &Value{t.Name, t.DataType, t.Dims}
	g.stored[t.Name], g.values[t.Name], g.cached[key] = t, v, v
	return v
}

// integers is a constant list of int64.
func (g *Graph) integers(v ...int64) *Value {
	c := g.constant(fmt.Sprint(v), onnx.NewTensor("", []int64{int64(len(v))}, v))
	g.ints[c.Name] = v
	return c
}

// number is a constant of the type of like with the given shape; none for a scalar.
func (g *Graph) number(like onnx.DataType, x float64, shape ...int64) *Value {
	n := product(shape)
	key := fmt.Sprintf("%v filled", x)
	switch like {
	case onnx.Double:
		return g.constant(key, onnx.NewTensor("", shape, slices.Repeat([]float64{x}, int(n))))
	case onnx.Float16:
		return g.constant(key, onnx.NewFloat16Tensor("", shape, slices.Repeat([]float32{float32(x)}, int(n))))
	}
	return g.constant(key, onnx.NewTensor("", shape, slices.Repeat([]float32{float32(x)}, int(n))))
}

// zeros is a tensor of zeros, made by the runtime when it is large.
func (g *Graph) zeros(t onnx.DataType, shape []int64) *Value {
	if product(shape) <= 64 {
		return g.number(t, 0, shape...)
	}
	return g.expand(g.number(t, 0), shape)
}

// unary applies an operator that keeps type and shape.
func (g *Graph) unary(op string, x *Value, attrs ...*onnx.Attribute) *Value {
	return g.put(op, []*Value{x}, x.Type, x.Shape, attrs...)
}

// binary applies a broadcasting operator.
func (g *Graph) binary(op string, a, b *Value) *Value {
	return g.put(op, []*Value{a, b}, a.Type, broadcast(a.Shape, b.Shape))
}

func (g *Graph) add(a, b *Value) *Value { return g.binary("Add", a, b) }
func (g *Graph) sub(a, b *Value) *Value { return g.binary("Sub", a, b) }
func (g *Graph) mul(a, b *Value) *Value { return g.binary("Mul", a, b) }
func (g *Graph) div(a, b *Value) *Value { return g.binary("Div", a, b) }
func (g *Graph) neg(a *Value) *Value    { return g.unary("Neg", a) }

// scale multiplies by a number.
func (g *Graph) scale(a *Value, x float64) *Value {
	if x == 1 {
		return a
	}
	return g.mul(a, g.number(a.Type, x))
}

// compare applies Less, Greater and the like.
func (g *Graph) compare(op string, a, b *Value) *Value {
	return g.put(op, []*Value{a, b}, onnx.Bool, broadcast(a.Shape, b.Shape))
}

func (g *Graph) not(a *Value) *Value { return g.unary("Not", a) }

func (g *Graph) cast(x *Value, t onnx.DataType) *Value {
	if x.Type == t {
		return x
	}
	return g.put("Cast", []*Value{x}, t, x.Shape, onnx.IntAttr("to", int64(t)))
}

// keep is x where mask holds, and 0 elsewhere.
func (g *Graph) keep(mask, x *Value) *Value {
	if g.opset < 9 { // before Where
		return g.mul(x, g.cast(mask, x.Type))
	}
	return g.put("Where", []*Value{mask, x, g.number(x.Type, 0)}, x.Type, broadcast(mask.Shape, x.Shape))
}

func (g *Graph) reshape(x *Value, shape ...int64) *Value {
	if slices.Equal(x.Shape, shape) {
		return x
	}
	return g.put("Reshape", []*Value{x, g.integers(shape...)}, x.Type, shape)
}

func (g *Graph) transpose(x *Value, perm ...int64) *Value {
	shape := make([]int64, len(perm))
	identity := true
	for i, p := range perm {
		shape[i] = x.Shape[p]
		identity = identity && p == int64(i)
	}
	if identity {
		return x
	}
	return g.put("Transpose", []*Value{x}, x.Type, shape, onnx.IntsAttr("perm", perm...))
}

// swapLast transposes the last two dimensions.
func (g *Graph) swapLast(x *Value) *Value {
	perm := sequence(x.rank())
	r := len(perm)
	perm[r-1], perm[r-2] = perm[r-2], perm[r-1]
	return g.transpose(x, perm...)
}

// sequence is 0, 1, …, n−1.
func sequence(n int) []int64 {
	s := make([]int64, n)
	for i := range s {
		s[i] = int64(i)
	}
	return s
}

// reduce applies ReduceSum, ReduceMean or ReduceMax over axes that are not negative, and keeps them with size one.
func (g *Graph) reduce(op string, x *Value, axes ...int64) *Value {
	if len(axes) == 0 {
		return x
	}
	shape := slices.Clone(x.Shape)
	for _, a := range axes {
		shape[a] = 1
	}
	since := int64(18) // the version that takes axes as an input
	if op == "ReduceSum" {
		since = 13
	}
	if g.opset < since {
		return g.put(op, []*Value{x}, x.Type, shape, onnx.IntsAttr("axes", axes...), onnx.IntAttr("keepdims", 1))
	}
	return g.put(op, []*Value{x, g.integers(axes...)}, x.Type, shape, onnx.IntAttr("keepdims", 1))
}

// sumTo undoes a broadcast: it sums x over the axes along which a tensor of the given shape was repeated.
func (g *Graph) sumTo(x *Value, shape []int64) *Value {
	if slices.Equal(x.Shape, shape) {
		return x
	}
	lead := x.rank() - len(shape)
	var axes []int64
	for i, d := range x.Shape {
		if i < lead || shape[i-lead] == 1 && d != 1 {
			axes = append(axes, int64(i))
		}
	}
	// Sums over the leading axes alone are products with a row of ones: several times faster, and in a fixed order.
	if n := len(axes); n > 0 && axes[n-1] == int64(n-1) && x.Type == onnx.Float {
		rows, cols := product(x.Shape[:n]), product(x.Shape[n:])
		if rows > 1 && cols > 1 {
			return g.reshape(g.gemm(g.number(x.Type, 1, 1, rows), g.reshape(x, rows, cols), false, false), shape...)
		}
	}
	return g.reshape(g.reduce("ReduceSum", x, axes...), shape...)
}

// expand repeats x to a shape.
func (g *Graph) expand(x *Value, shape []int64) *Value {
	if slices.Equal(x.Shape, shape) {
		return x
	}
	if g.opset < 8 { // before Expand
		return g.mul(x, g.number(x.Type, 1, shape...))
	}
	return g.put("Expand", []*Value{x, g.integers(shape...)}, x.Type, shape)
}

// matMul is the product over the last two dimensions, the others broadcast.
func (g *Graph) matMul(a, b *Value) *Value {
	shape := broadcast(a.Shape[:a.rank()-2], b.Shape[:b.rank()-2])
	shape = append(shape, a.Shape[a.rank()-2], b.Shape[b.rank()-1])
	return g.put("MatMul", []*Value{a, b}, a.Type, shape)
}

// gemm is op(a)·op(b) of two matrices.
func (g *Graph) gemm(a, b *Value, transA, transB bool) *Value {
	m, n := a.Shape[0], b.Shape[1]
	if transA {
		m = a.Shape[1]
	}
	if transB {
		n = b.Shape[0]
	}
	return g.gemmAs(g.names.Unique("grad.Gemm"), a, b, transA, transB, m, n)
}

func (g *Graph) gemmAs(name string, a, b *Value, transA, transB bool, m, n int64) *Value {
	in := []*Value{a, b}
	attrs := []*onnx.Attribute{onnx.IntAttr("transA", toInt(transA)), onnx.IntAttr("transB", toInt(transB))}
	if g.opset < 11 { // the addend was not optional
		in = append(in, g.number(a.Type, 0, 1))
		attrs = append(attrs, onnx.FloatAttr("beta", 0))
	}
	return g.putAs(name, "Gemm", in, a.Type, []int64{m, n}, attrs...)
}

func toInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// slice takes [from, to) of one axis.
func (g *Graph) slice(x *Value, axis int, from, to int64) *Value {
	if from == 0 && to == x.Shape[axis] {
		return x
	}
	return g.sliceStep(x, axis, from, to, 1)
}

// sliceStep takes every step-th place of [from, to) of one axis, for a positive step.
func (g *Graph) sliceStep(x *Value, axis int, from, to, step int64) *Value {
	shape := slices.Clone(x.Shape)
	shape[axis] = (to - from + step - 1) / step
	a := int64(axis)
	if g.opset < 10 && step == 1 {
		return g.put("Slice", []*Value{x}, x.Type, shape, onnx.IntsAttr("starts", from), onnx.IntsAttr("ends", to), onnx.IntsAttr("axes", a))
	}
	if g.opset < 10 {
		places := make([]int64, shape[axis])
		for i := range places {
			places[i] = from + int64(i)*step
		}
		return g.put("Gather", []*Value{x, g.integers(places...)}, x.Type, shape, onnx.IntAttr("axis", a))
	}
	return g.put("Slice", []*Value{x, g.integers(from), g.integers(to), g.integers(a), g.integers(step)}, x.Type, shape)
}

// pad puts a number before and after x along every axis; negative lengths cut off.
func (g *Graph) pad(x *Value, before, after []int64, fill float64) *Value {
	shape := slices.Clone(x.Shape)
	nothing := true
	for i := range shape {
		shape[i] += before[i] + after[i]
		nothing = nothing && before[i] == 0 && after[i] == 0
	}
	if nothing {
		return x
	}
	pads := slices.Concat(before, after)
	if g.opset < 11 {
		return g.put("Pad", []*Value{x}, x.Type, shape, onnx.IntsAttr("pads", pads...), onnx.FloatAttr("value", float32(fill)))
	}
	return g.put("Pad", []*Value{x, g.integers(pads...), g.number(x.Type, fill)}, x.Type, shape)
}

// padAxis puts zeros before and after x along one axis.
func (g *Graph) padAxis(x *Value, axis int, before, after int64) *Value {
	b, a := make([]int64, x.rank()), make([]int64, x.rank())
	b[axis], a[axis] = before, after
	return g.pad(x, b, a, 0)
}

func (g *Graph) concat(axis int, parts ...*Value) *Value {
	if len(parts) == 1 {
		return parts[0]
	}
	shape := slices.Clone(parts[0].Shape)
	shape[axis] = 0
	for _, p := range parts {
		shape[axis] += p.Shape[axis]
	}
	return g.put("Concat", parts, parts[0].Type, shape, onnx.IntAttr("axis", int64(axis)))
}

// oneHot is the matrix [depth × n] with a one at (indices[j], j), of type t. Negative indices count from the end.
func (g *Graph) oneHot(indices *Value, depth int64, t onnx.DataType) *Value {
	n := indices.Count()
	if known, ok := g.ints[indices.Name]; ok && depth*n <= 1<<20 && t == onnx.Float {
		m := make([]float32, depth*n)
		for j, i := range known {
			m[(i+depth)%depth*n+int64(j)] = 1
		}
		return g.constant(fmt.Sprintf("one hot %v", known), onnx.NewTensor("", []int64{depth, n}, m))
	}
	values := g.concat(0, g.number(t, 0, 1), g.number(t, 1, 1))
	flat := g.reshape(g.cast(indices, onnx.Int64), n) // ONNX Runtime has none of int32 beside such a depth
	return g.put("OneHot", []*Value{flat, g.integers(depth), values}, t, []int64{depth, n}, onnx.IntAttr("axis", 0))
}

// float returns the value of a constant with one element.
func (g *Graph) float(v *Value) (float64, bool) {
	if v == nil {
		return 0, false
	}
	t := g.stored[v.Name]
	if t == nil {
		return 0, false
	}
	if n, err := t.NumElements(); err != nil || n != 1 {
		return 0, false
	}
	x, err := t.Float32s()
	if err != nil || len(x) != 1 || math.IsNaN(float64(x[0])) {
		return 0, false
	}
	return float64(x[0]), true
}
