package rewrite_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// chain is a way of keeping the constant w [32 × 48] of a MatMul: tensors and nodes, the last of which yields "w".
type chain struct {
	name    string
	tensors []*onnx.Tensor
	nodes   []*onnx.Node
	refused rewrite.Reason // what FindSites says of it; "" when it is followed
}

func chains(rng *rand.Rand) []chain {
	const k, n = 32, 48
	values := normal(rng, k*n)
	raw := func(name string, dt onnx.DataType, dims ...int64) *onnx.Tensor {
		size := int64(dt.Bits())
		for _, d := range dims {
			size *= d
		}
		b := make([]byte, size/8)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return onnx.NewRawTensor(name, dt, dims, b)
	}
	scales := func(dims ...int64) *onnx.Tensor {
		size := 1
		for _, d := range dims {
			size *= int(d)
		}
		v := make([]float32, size)
		for i := range v {
			v[i] = 0.01 + rng.Float32()
		}
		return floats("scale", dims, v)
	}
	wide := func(name string, dims ...int64) *onnx.Tensor { // more than the weight needs
		size := 1
		for _, d := range dims {
			size *= int(d)
		}
		return floats(name, dims, normal(rng, size))
	}
	list := func(name string, v ...int64) *onnx.Tensor { return onnx.NewTensor(name, []int64{int64(len(v))}, v) }
	op := func(op, out string, in []string, attrs ...*onnx.Attribute) *onnx.Node {
		return node(out, op, in, []string{out}, attrs...)
	}
	dq := func(attrs ...*onnx.Attribute) []*onnx.Node {
		return []*onnx.Node{op("DequantizeLinear", "w", []string{"q", "scale", "zero"}, attrs...)}
	}
	brain := make([]uint16, len(values))
	for i, v := range values {
		brain[i] = onnx.BFloat16FromFloat32(v)
	}
	bf16 := onnx.NewTensor("h", []int64{k, n}, brain)
	bf16.DataType = onnx.BFloat16
	perm := func(p ...int64) *onnx.Attribute { return onnx.IntsAttr("perm", p...) }
	cast := func(to onnx.DataType) *onnx.Attribute { return onnx.IntAttr("to", int64(to)) }
	return []chain{
		{name: "constant node", nodes: []*onnx.Node{op("Constant", "w", nil, onnx.TensorAttr("value", floats("", []int64{k, n}, values)))}},
		{name: "constant floats", tensors: []*onnx.Tensor{list("s", k, -1)}, nodes: []*onnx.Node{
			op("Constant", "v", nil, onnx.FloatsAttr("value_floats", values...)), op("Reshape", "w", []string{"v", "s"})}},
		{name: "identity", tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values)}, nodes: []*onnx.Node{
			op("Identity", "i", []string{"v"}), op("Identity", "w", []string{"i"})}},
		{name: "float16", tensors: []*onnx.Tensor{onnx.NewFloat16Tensor("h", []int64{k, n}, values)}, nodes: []*onnx.Node{
			op("Cast", "w", []string{"h"}, cast(onnx.Float))}},
		{name: "bfloat16", tensors: []*onnx.Tensor{bf16}, nodes: []*onnx.Node{op("Cast", "w", []string{"h"}, cast(onnx.Float))}},
		{name: "rounded", tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values)}, nodes: []*onnx.Node{
			op("Cast", "h", []string{"v"}, cast(onnx.Float16)), op("Cast", "w", []string{"h"}, cast(onnx.Float))}},
		{name: "transpose", tensors: []*onnx.Tensor{floats("v", []int64{n, k}, values)}, nodes: []*onnx.Node{
			op("Transpose", "w", []string{"v"})}},
		{name: "transpose twice", tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values)}, nodes: []*onnx.Node{
			op("Transpose", "t", []string{"v"}, perm(1, 0)), op("Transpose", "w", []string{"t"}, perm(1, 0))}},
		{name: "heads", tensors: []*onnx.Tensor{floats("v", []int64{n, 4, 8}, values), list("s", 0, 0, -1), list("s2", -1, n)}, nodes: []*onnx.Node{
			op("Reshape", "r", []string{"v", "s"}), op("Transpose", "t", []string{"r"}, perm(1, 2, 0)), op("Reshape", "w", []string{"t", "s2"})}},
		{name: "squeeze", tensors: []*onnx.Tensor{floats("v", []int64{1, k, 1, n}, values), list("a", 0, -2)}, nodes: []*onnx.Node{
			op("Squeeze", "w", []string{"v", "a"})}},
		{name: "unsqueeze and flatten", tensors: []*onnx.Tensor{floats("v", []int64{k, 6, 8}, values), list("a", 0)}, nodes: []*onnx.Node{
			op("Unsqueeze", "u", []string{"v", "a"}), op("Flatten", "w", []string{"u"}, onnx.IntAttr("axis", 2))}},
		{name: "single elements moved", refused: rewrite.UnsupportedAttr,
			tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values), list("s", k, n)}, nodes: []*onnx.Node{
				op("Transpose", "t", []string{"v"}), op("Reshape", "w", []string{"t", "s"})}},
		{name: "per tensor", tensors: []*onnx.Tensor{raw("q", onnx.Int8, k, n), scales(), raw("zero", onnx.Int8)}, nodes: dq()},
		{name: "no zero point", tensors: []*onnx.Tensor{raw("q", onnx.Int8, k, n), scales(n)}, nodes: []*onnx.Node{
			op("DequantizeLinear", "w", []string{"q", "scale"})}},
		{name: "per row", tensors: []*onnx.Tensor{raw("q", onnx.Uint8, k, n), scales(k), raw("zero", onnx.Uint8, k)}, nodes: dq(onnx.IntAttr("axis", 0))},
		{name: "per column", tensors: []*onnx.Tensor{raw("q", onnx.Uint8, k, n), scales(n), raw("zero", onnx.Uint8, n)}, nodes: dq(onnx.IntAttr("axis", -1))},
		{name: "blocks of rows", tensors: []*onnx.Tensor{raw("q", onnx.Int4, k, n), scales(2, n), raw("zero", onnx.Int4, 2, n)},
			nodes: dq(onnx.IntAttr("axis", 0), onnx.IntAttr("block_size", 16))},
		{name: "blocks of columns", tensors: []*onnx.Tensor{raw("q", onnx.Uint4, k, n), scales(k, 3), raw("zero", onnx.Uint4, k, 3)},
			nodes: dq(onnx.IntAttr("axis", 1), onnx.IntAttr("block_size", 16))},
		{name: "dequantized, then transposed", tensors: []*onnx.Tensor{raw("q", onnx.Int8, n, k), scales(n)}, nodes: []*onnx.Node{
			op("DequantizeLinear", "d", []string{"q", "scale"}, onnx.IntAttr("axis", 0)), op("Transpose", "w", []string{"d"})}},
		{name: "transposed, then dequantized", tensors: []*onnx.Tensor{raw("q", onnx.Int8, n, k), scales(n)}, nodes: []*onnx.Node{
			op("Transpose", "t", []string{"q"}), op("DequantizeLinear", "w", []string{"t", "scale"}, onnx.IntAttr("axis", 1))}},
		{name: "split of rows, transposed", tensors: []*onnx.Tensor{wide("v", 3*n, k)}, nodes: []*onnx.Node{
			node("s", "Split", []string{"v"}, []string{"a", "b", "c"}, onnx.IntAttr("num_outputs", 3)), op("Transpose", "w", []string{"b"})}},
		{name: "split of columns", tensors: []*onnx.Tensor{wide("v", k, 2*n), list("s", 16, n, 32)}, nodes: []*onnx.Node{
			node("s", "Split", []string{"v", "s"}, []string{"a", "w", "c"}, onnx.IntAttr("axis", -1))}},
		{name: "uneven split, the last part", tensors: []*onnx.Tensor{wide("v", k, 3*n-1), list("s", -n), list("e", 4*n), list("a", 1)}, nodes: []*onnx.Node{
			node("s", "Split", []string{"v"}, []string{"p", "q"}, onnx.IntAttr("axis", 1), onnx.IntAttr("num_outputs", 2)),
			op("Slice", "w", []string{"q", "s", "e", "a"})}},
		{name: "slice of both axes", tensors: []*onnx.Tensor{wide("v", k+3, n+5), list("s", 1, -n), list("e", k+1, 1<<62)}, nodes: []*onnx.Node{
			op("Slice", "w", []string{"v", "s", "e"})}},
		{name: "slice, transpose, slice", tensors: []*onnx.Tensor{wide("v", n+5, k+3), list("s", 2), list("e", n+2), list("s2", 3), list("e2", k+3)}, nodes: []*onnx.Node{
			op("Slice", "p", []string{"v", "s", "e"}), op("Transpose", "t", []string{"p"}), op("Slice", "w", []string{"t", "s2", "e2"})}},
		{name: "every other row", refused: rewrite.UnsupportedAttr, tensors: []*onnx.Tensor{wide("v", 2*k, n), list("s", 0), list("e", 2*k), list("a", 0), list("st", 2)},
			nodes: []*onnx.Node{op("Slice", "w", []string{"v", "s", "e", "a", "st"})}},
		{name: "one of a stack", tensors: []*onnx.Tensor{wide("v", 3, k, n), onnx.NewTensor("i", []int64{}, []int64{2})}, nodes: []*onnx.Node{
			op("Gather", "w", []string{"v", "i"})}},
		{name: "one of a stack inside, transposed", tensors: []*onnx.Tensor{wide("v", n, 3, k), onnx.NewTensor("i", []int64{1, 1}, []int64{-2}), list("a", 1, 2)}, nodes: []*onnx.Node{
			op("Gather", "g", []string{"v", "i"}, onnx.IntAttr("axis", 1)), op("Squeeze", "q", []string{"g", "a"}), op("Transpose", "w", []string{"q"})}},
		{name: "quantized and dequantized", tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values), scales(n), raw("zero", onnx.Int8, n)}, nodes: []*onnx.Node{
			op("QuantizeLinear", "q", []string{"v", "scale", "zero"}), op("DequantizeLinear", "w", []string{"q", "scale", "zero"})}},
		{name: "quantized to unsigned bytes and dequantized", tensors: []*onnx.Tensor{floats("v", []int64{k, n}, values), scales(k)}, nodes: []*onnx.Node{
			op("QuantizeLinear", "q", []string{"v", "scale"}, onnx.IntAttr("axis", 0)), op("DequantizeLinear", "w", []string{"q", "scale"}, onnx.IntAttr("axis", 0))}},
		{name: "quantized to half bytes and dequantized", tensors: []*onnx.Tensor{floats("v", []int64{n, k}, values), scales(n, 2)}, nodes: []*onnx.Node{
			op("QuantizeLinear", "q", []string{"v", "scale"}, onnx.IntAttr("block_size", 16), onnx.IntAttr("output_dtype", int64(onnx.Int4))),
			op("DequantizeLinear", "d", []string{"q", "scale"}, onnx.IntAttr("block_size", 16)), op("Transpose", "w", []string{"d"})}},
		{name: "dequantized, then split", tensors: []*onnx.Tensor{raw("q", onnx.Int8, k, 2*n), scales(2 * n)}, nodes: []*onnx.Node{
			op("DequantizeLinear", "d", []string{"q", "scale"}), node("s", "Split", []string{"d"}, []string{"a", "w"}, onnx.IntAttr("axis", 1), onnx.IntAttr("num_outputs", 2))}},
	}
}

// TestChains reads every form of a constant and compares it with what ONNX Runtime multiplies by: the product with the
// identity matrix.
func TestChains(t *testing.T) {
	testenv.ORT(t)
	const k, n = 32, 48
	identity := make([]float32, k*k)
	for i := range k {
		identity[i*k+i] = 1
	}
	for _, c := range chains(rand.New(rand.NewPCG(16, 17))) {
		t.Run(c.name, func(t *testing.T) {
			m := newModel(10, 21, &onnx.Graph{
				Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", k)},
				Initializers: c.tensors,
				Nodes:        append(c.nodes, node("fc", "MatMul", []string{"x", "w"}, []string{"y"})),
				Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, "batch", n)},
			})
			inputs := map[string]*tensor.Tensor{"x": tensor.Of(identity, k, k)}
			want := run(t, m, ort.OptimizeDisabled, inputs)["y"]
			sites := find(t, m)
			if len(sites) != 1 || sites[0].Reason != c.refused {
				t.Fatalf("sites %+v, want one with reason %q", sites, c.refused)
			}
			if c.refused != "" {
				return
			}
			got := rows{n, k, make([]float32, n*k)}
			var wg sync.WaitGroup // as the quantizer reads: in parts, at the same time
			for n0 := 0; n0 < n; n0 += 7 {
				wg.Go(func() {
					n1 := min(n0+7, n)
					if err := sites[0].Weight.Rows(got.v[n0*k:n1*k], n0, n1); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if e := relativeError(want, got.transposed()); e > 1e-7 {
				t.Fatalf("read weights that differ by %.2g", e)
			}

			before := onnx.Clone(m)
			apply(t, m)
			if len(m.Graph.Nodes) != 1 || len(m.Graph.Initializers) != 6 {
				t.Errorf("something is left of the weight:\n%s", dump(t, m))
			}
			sameOutputs(t, before, m, inputs, 0.2) // rounded to 4 bits: only that nothing is out of place
		})
	}
}

// Those that leave the weight what it is, as inspect follows it to its product, and those that make another value of it.
func TestArranges(t *testing.T) {
	foreign := node("", "Transpose", []string{"w"}, []string{"v"})
	foreign.Domain = "com.example"
	for _, tt := range []struct {
		n    *onnx.Node
		want bool
	}{
		{node("", "Transpose", []string{"w"}, []string{"v"}), true}, {node("", "Concat", []string{"w", "u"}, []string{"v"}), true},
		{node("", "DequantizeLinear", []string{"w", "s"}, []string{"v"}), true}, {node("", "Relu", []string{"w"}, []string{"v"}), false}, {foreign, false},
	} {
		if got := rewrite.Arranges(tt.n); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.n.OpID(), got, tt.want)
		}
	}
}
