package ort_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"pgregory.net/rapid"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/ort"
)

// Products are added in the order of a's columns, each rounded, on every instruction set; nothing else of c changes.
func TestProductsAreExact(t *testing.T) {
	library := testenv.Ops(t)
	products, err := ort.OpenProducts(library)
	if err != nil {
		t.Fatal(err)
	}
	for _, isa := range cudaops.ISAs {
		t.Run(isa, func(t *testing.T) {
			t.Setenv(cudaops.EnvISA, isa)
			if err := products.Add(blas32.General{}, blas32.General{}, blas32.General{}); err != nil {
				if testenv.HasISA(isa) {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			rapid.Check(t, func(t *rapid.T) {
				checkProduct(t, func(c, a, b matrix[float32]) error {
					return products.Add(blas32.General(c), blas32.General(a), blas32.General(b))
				})
				checkProduct(t, func(c, a, b matrix[float64]) error {
					double := func(m matrix[float64]) blas64.General {
						return blas64.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Stride, Data: m.Data}
					}
					return products.AddDouble(double(c), double(a), double(b))
				})
			})
		})
	}
	one := blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: make([]float32, 1)}
	two := blas32.General{Rows: 2, Cols: 1, Stride: 1, Data: make([]float32, 1)}
	if products.Add(one, one, two) == nil || products.Add(two, two, one) == nil {
		t.Error("sizes that do not fit are taken")
	}
}

// matrix is a matrix of either type, as gonum has it in float32.
type matrix[T float32 | float64] struct {
	Rows, Cols int
	Stride     int
	Data       []T
}

func checkProduct[T float32 | float64](t *rapid.T, add func(c, a, b matrix[T]) error) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	random := func(rows, cols int) matrix[T] {
		m := matrix[T]{Rows: rows, Cols: cols, Stride: cols + rng.IntN(5)}
		for range max(0, rows-1)*m.Stride + cols {
			m.Data = append(m.Data, T(rng.NormFloat64()*math.Exp(rng.NormFloat64())))
		}
		return m
	}
	rows, cols := rapid.IntRange(1, 30).Draw(t, "rows"), rapid.IntRange(1, 100).Draw(t, "columns")
	depth := rapid.SampledFrom([]int{1, 8, 9, 255, 256, 257, 600}).Draw(t, "depth")
	c, a, b := random(rows, cols), random(rows, depth), random(depth, cols)
	want := slices.Clone(c.Data)
	for i := range rows {
		for j := range cols {
			for k := range depth {
				want[i*c.Stride+j] += T(a.Data[i*a.Stride+k] * b.Data[k*b.Stride+j])
			}
		}
	}
	if err := add(c, a, b); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Data, want) {
		t.Fatal("other bits than one by one")
	}
}
