package rewrite_test

import (
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/onnx"
)

// BenchmarkRows reads a weight as the quantizer does, 64 rows at a time: as a MatMul has it, [K × N], and as a Gemm with transB.
func BenchmarkRows(b *testing.B) {
	const k, n, at = 4096, 4096, 64
	for _, dtype := range []onnx.DataType{onnx.Float, onnx.Float16} {
		for _, transposed := range []bool{false, true} {
			name := dtype.String() + " columns"
			if transposed {
				name = dtype.String() + " rows"
			}
			b.Run(name, func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				data := make([]byte, k*n*dtype.Bits()/8)
				for i := range data {
					data[i] = byte(rng.Uint32())&0x37 | 8 // numbers, none of them NaN
				}
				w := &onnx.Tensor{Name: "w", DataType: dtype, Dims: []int64{k, n}, RawData: data}
				m := newModel(0, 21, &onnx.Graph{
					Inputs:       []*onnx.ValueInfo{onnx.NewValueInfo("x", dtype, "batch", k)},
					Initializers: []*onnx.Tensor{w},
					Nodes:        []*onnx.Node{node("fc", "Gemm", []string{"x", "w"}, []string{"y"}, onnx.IntAttr("transB", map[bool]int64{true: 1}[transposed]))},
					Outputs:      []*onnx.ValueInfo{onnx.NewValueInfo("y", dtype, "batch", n)},
				})
				sites := find(b, m)
				rows := make([]float32, at*k)
				b.SetBytes(4 * k * n)
				for b.Loop() {
					for n0 := 0; n0 < n; n0 += at {
						if err := sites[0].Weight.Rows(rows, n0, n0+at); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
