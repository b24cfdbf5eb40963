package quant

import (
	"math"
	"runtime"
	"sync"

	"gonum.org/v1/gonum/blas/blas64"
)

const (
	// stripColumns is the number of columns of a factor that are finished together.
	stripColumns = 32
	// bandRows is the least number of rows that are worth a goroutine.
	bandRows = 128
)

// cholesky replaces the lower half of the positive definite a [n × n] by its factor C, a = C·Cᵀ; ok is false where there is none.
// What is above the diagonal is left undefined. The order of all sums is fixed, the number of threads does not matter.
//
// Strip by strip, what the finished columns contribute is taken away in one product, and the strip is factored by itself.
func cholesky(a []float64, n int, m Multiplier, threads int) (ok bool, err error) {
	for first := 0; first < n; first += stripColumns {
		last := min(first+stripColumns, n)
		if first > 0 {
			if err := subtractFinished(a, n, first, last, m, threads); err != nil {
				return false, err
			}
		}
		for i := first; i < n; i++ {
			row := a[i*n+first : i*n+last]
			for j := range min(i+1, last) - first {
				pivot := a[(first+j)*n+first:][:j+1]
				s := row[j]
				for k, v := range pivot[:j] {
					s -= float64(row[k] * v)
				}
				switch {
				case first+j < i:
					row[j] = s / pivot[j]
				case s > 0:
					row[j] = math.Sqrt(s)
				default:
					return false, nil
				}
			}
		}
	}
	return true, nil
}

// subtractFinished takes C_i·C_jᵀ over the first columns away from columns [first, last) of the rows i from first on.
func subtractFinished(a []float64, n, first, last int, m Multiplier, threads int) error {
	width := last - first
	turned := blas64.General{Rows: first, Cols: width, Stride: width, Data: make([]float64, first*width)} // −C_jᵀ
	for j := range width {
		for k, v := range a[(first+j)*n:][:first] {
			turned.Data[k*width+j] = -v
		}
	}
	part := func(row, rows, col, cols int) blas64.General {
		return blas64.General{Rows: rows, Cols: cols, Stride: n, Data: a[row*n+col:]}
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	bands := min(threads, max(1, (n-first)/bandRows))
	errs := make([]error, bands)
	var wg sync.WaitGroup
	for b := range bands {
		wg.Go(func() {
			top, bottom := first+b*(n-first)/bands, first+(b+1)*(n-first)/bands
			errs[b] = m.AddDouble(part(top, bottom-top, first, width), part(top, bottom-top, 0, first), turned)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
