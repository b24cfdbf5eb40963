package quant

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"
)

// Multiplier adds a·b to c. Every entry of c takes its products in the order of a's columns, each rounded before it is added:
// whoever does it, and on however many threads, gives the same bits.
type Multiplier interface {
	Add(c, a, b blas32.General) error
	AddDouble(c, a, b blas64.General) error
}

// multiplier is gonum.
type multiplier struct{}

// panelDepth and panelWidth bound a product: that much of b stays in the first-level cache, and with the rows of a chunk gonum
// computes it on the calling goroutine.
const panelDepth, panelWidth = 64, 128

func (multiplier) Add(c, a, b blas32.General) error {
	var blas3 gonum.Implementation
	for q := 0; q < c.Cols; q += panelWidth {
		for p := 0; p < a.Cols; p += panelDepth {
			blas3.Sgemm(blas.NoTrans, blas.NoTrans, c.Rows, min(panelWidth, c.Cols-q), min(panelDepth, a.Cols-p), 1, a.Data[p:], a.Stride,
				b.Data[p*b.Stride+q:], b.Stride, 1, c.Data[q:], c.Stride)
		}
	}
	return nil
}

func (multiplier) AddDouble(c, a, b blas64.General) error {
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, a, b, 1, c)
	return nil
}

// matrix is a row-major matrix, all of data.
func matrix(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// part is rows [row, row + rows) and columns [col, col + cols) of m.
func part(m blas32.General, row, rows, col, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: m.Stride, Data: m.Data[row*m.Stride+col:]}
}
