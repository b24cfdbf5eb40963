package rewrite

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// Weight is the constant matrix W [N × K] of Y = A·Wᵀ, as the node sees it: transposed, cast, dequantized and multiplied by
// Gemm's alpha. It is a view of the model's tensors, valid until the model is closed, and safe for concurrent use.
// Sites that multiply by the same matrix hold the same *Weight.
type Weight struct {
	n, k     int
	elements elements
	columns  bool // elements hold Wᵀ [K × N]
	alpha    float32
	root     *onnx.Value
	dtype    onnx.DataType
	recipe   string
	gathered bool // see Gathered
}

// Dims returns the number of rows and of columns.
func (w *Weight) Dims() (n, k int) { return w.n, w.k }

// Name returns the name of the initializer, or of the output of the Constant node, that holds the data.
func (w *Weight) Name() string { return w.root.Name }

// panelRows and panelColumns are the tile in which a matrix stored as [K × N] is turned: 16 rows of the store at a time
// keep both sides of the copy in the first-level cache.
const (
	panelRows    = 64
	panelColumns = 16
)

// Rows writes rows n0 … n1−1 of W to dst, [(n1−n0) × K] row-major.
func (w *Weight) Rows(dst []float32, n0, n1 int) error {
	if n0 < 0 || n1 < n0 || n1 > w.n || len(dst) != (n1-n0)*w.k {
		return fmt.Errorf("rewrite: rows %d to %d of weight %q [%d × %d] asked for into %d numbers", n0, n1, w.Name(), w.n, w.k, len(dst))
	}
	if !w.columns {
		return w.Numbers(dst, int64(n0)*int64(w.k))
	}
	return w.read(dst, func() (err error) {
		for r := n0; r < n1 && err == nil; r += panelRows {
			end := min(r+panelRows, n1)
			err = w.turn(dst[(r-n0)*w.k:(end-n0)*w.k], r, end)
		}
		return err
	})
}

// Columns says whether the model stores W by columns, [K × N].
func (w *Weight) Columns() bool { return w.columns }

// Numbers writes the numbers of W from the given one on to dst, in the order in which the model stores them, which takes less time
// than Rows where that is by columns.
func (w *Weight) Numbers(dst []float32, from int64) error {
	if all := int64(w.n) * int64(w.k); from < 0 || from > all || int64(len(dst)) > all-from {
		return fmt.Errorf("rewrite: %d numbers from %d on of weight %q [%d × %d] asked for", len(dst), from, w.Name(), w.n, w.k)
	}
	return w.read(dst, func() error { return w.elements.read(dst, from) })
}

// read has stored numbers read to dst, and makes them those of W.
func (w *Weight) read(dst []float32, stored func() error) error {
	if err := onnx.Guard(stored); err != nil {
		return fmt.Errorf("rewrite: read weight %q: %w", w.Name(), err)
	}
	if w.alpha != 1 {
		for i := range dst {
			dst[i] *= w.alpha
		}
	}
	return nil
}

// turn reads rows n0 … n1−1, at most panelRows, of a matrix stored as [K × N].
func (w *Weight) turn(dst []float32, n0, n1 int) error {
	rows := n1 - n0
	var panel [panelColumns * panelRows]float32
	for k0 := 0; k0 < w.k; k0 += panelColumns {
		count := min(panelColumns, w.k-k0)
		if err := readRuns(w.elements, panel[:count*rows], int64(k0)*int64(w.n)+int64(n0), int64(rows), int64(w.n)); err != nil {
			return err
		}
		for r := range rows {
			out := dst[r*w.k+k0:][:count]
			for j := range out {
				out[j] = panel[j*rows+r]
			}
		}
	}
	return nil
}

// newWeight views the constant c, [K × N] or, when transposed, [N × K], as W times alpha.
func newWeight(c *constant, transposed bool, alpha float32) *Weight {
	rows, cols, rowStride, colStride := c.dims[1], c.dims[0], c.strides[1], c.strides[0]
	if transposed {
		rows, cols, rowStride, colStride = cols, rows, colStride, rowStride
	}
	w := &Weight{n: int(rows), k: int(cols), alpha: alpha, root: c.root, dtype: c.dtype, elements: c.elements}
	// A matrix that is a permutation of what is stored has strides (K, 1) or (1, N); that of a side 1 long says nothing.
	w.columns = (colStride != 1 && cols != 1) || (rowStride != cols && rows != 1)
	w.recipe = fmt.Sprintf("%s|%d %d %v %x", c.values, rows, cols, w.columns, alpha)
	return w
}
