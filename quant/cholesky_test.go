package quant

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// C·Cᵀ is the matrix, on any number of threads with the same bits; a matrix that is not positive definite has no factor.
func TestCholesky(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 7))
	for _, n := range []int{1, 8, 32, 40, 328} {
		x := general(make([]float64, n*n), n, n)
		for i := range x.Data {
			x.Data[i] = rng.NormFloat64()
		}
		want := make([]float64, n*n)
		for i := range n {
			for j := range n {
				for k := range n {
					want[i*n+j] += x.Data[i*n+k] * x.Data[j*n+k]
				}
			}
			want[i*n+i] += 0.1
		}
		var first []float64
		for threads := range 4 {
			c := slices.Clone(want)
			if ok, err := cholesky(c, n, multiplier{}, threads); !ok {
				t.Fatal("not positive definite", err)
			}
			for i := range n {
				clear(c[i*n+i+1 : (i+1)*n])
			}
			if first == nil {
				first = c
			}
			if !slices.Equal(c, first) {
				t.Errorf("n = %d: other bits on %d threads", n, threads)
			}
		}
		for i := range n {
			for j := range i + 1 {
				var got float64
				for k := range j + 1 {
					got += first[i*n+k] * first[j*n+k]
				}
				if math.Abs(got-want[i*n+j]) > 1e-12*math.Sqrt(want[i*n+i]*want[j*n+j]) {
					t.Fatalf("n = %d: [%d, %d] of C·Cᵀ is %v, want %v", n, i, j, got, want[i*n+j])
				}
			}
		}
		want[n*n-1] = -1e-3
		if ok, err := cholesky(want, n, multiplier{}, 2); ok || err != nil {
			t.Errorf("n = %d: a factor of what is not positive definite (%v)", n, err)
		}
	}
}
