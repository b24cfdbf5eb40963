//go:build cgo && linux

package ort_test

import (
	"fmt"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Products that are large enough for cuBLAS, where a machine has it, are those of the CPU: with every way in which matrices lie, what is added and
// applied, and in more runs than it takes to record one.
func TestProviderLargeProducts(t *testing.T) {
	library, _, _ := aboutProvider(t)
	i, f, s := onnx.IntAttr, onnx.FloatAttr, onnx.StringAttr
	for _, c := range []struct {
		name, op, domain string
		in               [][]int64
		attrs            []*onnx.Attribute
		half             bool // in float16 as well, which the CPU has
	}{
		{"rows", "MatMul", "", [][]int64{{160, 512}, {512, 512}}, nil, true},
		{"uneven", "MatMul", "", [][]int64{{3, 131, 515}, {515, 201}}, nil, true},
		{"batches", "MatMul", "", [][]int64{{4, 8, 128, 96}, {4, 8, 96, 128}}, nil, true},
		{"one matrix times several", "MatMul", "", [][]int64{{1, 300, 128}, {8, 128, 128}}, nil, true},
		{"batches that do not lie evenly", "MatMul", "", [][]int64{{4, 1, 128, 96}, {1, 24, 96, 32}}, nil, true},
		{"one row", "MatMul", "", [][]int64{{1, 2048}, {2048, 4100}}, nil, true},
		{"one column", "MatMul", "", [][]int64{{4096, 8200}, {8200, 1}}, nil, false},
		{"a vector", "MatMul", "", [][]int64{{2048}, {2048, 4100}}, nil, false},
		{"turned", "FusedMatMul", "com.microsoft", [][]int64{{4, 96, 200}, {4, 480, 96}}, []*onnx.Attribute{i("transA", 1), i("transB", 1), f("alpha", -0.5)}, false},
		{"a row, turned", "FusedMatMul", "com.microsoft", [][]int64{{2, 2048}, {4100, 2048}}, []*onnx.Attribute{i("transB", 1)}, false},
		{"bias of columns", "Gemm", "", [][]int64{{160, 512}, {512, 512}, {512}}, []*onnx.Attribute{f("alpha", 2), f("beta", 0.5)}, true},
		{"bias of rows", "Gemm", "", [][]int64{{512, 161}, {513, 512}, {161, 1}}, []*onnx.Attribute{i("transA", 1), i("transB", 1)}, true},
		{"bias of all", "Gemm", "", [][]int64{{160, 512}, {512, 512}, {1}}, nil, true},
		{"bias times nothing", "Gemm", "", [][]int64{{160, 512}, {512, 512}, {160, 512}}, []*onnx.Attribute{f("beta", 0)}, false},
		{"activation", "FusedGemm", "com.microsoft", [][]int64{{160, 512}, {512, 512}, {512}}, []*onnx.Attribute{s("activation", "Relu"), f("beta", 0.5)}, false},
		{"convolution", "Conv", "", [][]int64{{2, 64, 32, 32}, {96, 32, 3, 3}, {96}}, []*onnx.Attribute{i("group", 2), onnx.IntsAttr("pads", 1, 1, 1, 1)}, false},
	} {
		kinds := []onnx.DataType{onnx.Float}
		if c.half {
			kinds = append(kinds, onnx.Float16)
		}
		for _, kind := range kinds {
			t.Run(fmt.Sprint(c.op, " ", c.name, " ", kind), func(t *testing.T) {
				fed, names := map[string]*tensor.Tensor{}, []string{}
				path := modelOf(t, 17, func(g *onnx.Graph) {
					g.Inputs = nil
					for at, shape := range c.in {
						name := fmt.Sprint("in", at)
						var dims []any
						for _, d := range shape {
							dims = append(dims, int(d))
						}
						g.Inputs, names = append(g.Inputs, value(name, kind, dims...)), append(names, name)
						if fed[name] = numbers(shape...); kind == onnx.Float16 {
							wide, err := tensor.View[float32](fed[name])
							if err != nil {
								t.Fatal(err)
							}
							fed[name] = tensor.Of(halves(wide), shape...)
						}
					}
					n := onnx.NewNode(c.op, names, []string{"y"}, c.attrs...)
					n.Domain = c.domain
					g.Nodes, g.Outputs = []*onnx.Node{n}, []*onnx.ValueInfo{{Name: "y", Type: &onnx.Type{Tensor: &onnx.TensorType{ElemType: kind}}}}
				})
				want, err := runNodes(t, path, "", fed)
				if err != nil {
					t.Fatal(err)
				}
				session, err := openORT(t).NewSession(path, options(library))
				if err != nil {
					t.Fatal(err)
				}
				defer session.Close()
				most := 1e-5
				if kind == onnx.Float16 {
					most = 2e-3
				}
				for run := range 4 {
					got, err := session.Run(t.Context(), fed)
					if err != nil {
						t.Fatal(err)
					}
					if d := distance(t, want, got["y"]); !(d <= most) {
						t.Fatalf("run %d is off by %g of the largest number, %g may be", run, d, most)
					}
				}
			})
		}
	}
}
