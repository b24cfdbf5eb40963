package lattice

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
)

// Codes holds the codes of a matrix of [Rows, Cols] weights, Cols a multiple of GroupSize.
type Codes struct {
	Rows, Cols int
	// Indices holds the class indices, [Rows][Cols/GroupSize][level][block], level 0 being the finest.
	Indices []uint16
	// Gains holds the gain indices, [Rows][Cols/GroupSize].
	Gains []uint8
}

// maxBytes bounds the codes of a matrix, well below what Go panics at: user space is 2^47 bytes on x86-64.
const maxBytes = min(1<<47, math.MaxInt)

// NewCodes returns zeroed codes for a matrix of [rows, cols] weights. cols must be a multiple of GroupSize.
func (c *Codec) NewCodes(rows, cols int) (*Codes, error) {
	if rows < 0 || cols < 0 || cols%GroupSize != 0 {
		return nil, fmt.Errorf("lattice: matrix of %d × %d: the columns must be a multiple of %d", rows, cols, GroupSize)
	}
	if rows > 0 && cols/GroupSize > maxBytes/(2*c.GroupIndices()+1)/rows {
		return nil, fmt.Errorf("lattice: matrix of %d × %d: its codes are larger than the address space", rows, cols)
	}
	groups := rows * (cols / GroupSize)
	return &Codes{
		Rows: rows, Cols: cols,
		Indices: make([]uint16, groups*c.GroupIndices()),
		Gains:   make([]uint8, groups),
	}, nil
}

// Row returns the class indices and gain indices of a row, as views.
func (m *Codes) Row(row int) (indices []uint16, gains []uint8) {
	groups := m.Cols / GroupSize
	if len(m.Gains) == 0 {
		return nil, nil
	}
	n := len(m.Indices) / len(m.Gains) * groups
	return m.Indices[row*n : (row+1)*n], m.Gains[row*groups : (row+1)*groups]
}

// maxSteps bounds the magnitude of a weight in steps, so that no error overflows float32.
const maxSteps = 1 << 40

// ErrRange says that a weight is not finite, or too large for the step.
var ErrRange = errors.New("want a finite number of at most 2^40 steps")

// EncodeRow codes a row with the given step. indices has len(row)/GroupSize·GroupIndices entries, gains len(row)/GroupSize.
// It returns the sum of squared errors. It fails, with nothing written, when the lengths do not fit, the step is not one that
// Encoder accepts, or a weight is not finite or exceeds 2^40 steps.
func (c *Codec) EncodeRow(indices []uint16, gains []uint8, row []float32, step float32) (sse float64, err error) {
	e, err := c.rowEncoder(row, step)
	if err != nil {
		return 0, err
	}
	n := c.GroupIndices()
	if groups := len(row) / GroupSize; len(indices) != groups*n || len(gains) != groups {
		return 0, fmt.Errorf("lattice: encode row of %d weights: want %d indices and %d gains, have %d and %d",
			len(row), groups*n, groups, len(indices), len(gains))
	}
	for i := range gains {
		gain, sqErr := e.EncodeGroup(indices[i*n:(i+1)*n], (*[GroupSize]float32)(row[i*GroupSize:]))
		gains[i] = gain
		sse += float64(sqErr)
	}
	if step == 0 {
		return sumSquares(row), nil
	}
	return sse * float64(step) * float64(step), nil
}

// Distortion returns the sum of squared errors that EncodeRow returns, without keeping the codes: the objective of a
// search for the step.
func (c *Codec) Distortion(row []float32, step float32) (float64, error) {
	e, err := c.rowEncoder(row, step)
	if err != nil {
		return 0, err
	}
	if step == 0 {
		return sumSquares(row), nil
	}
	var indices [MaxLevels * GroupSize]uint16
	var sse float64
	for i := 0; i < len(row); i += GroupSize {
		_, sqErr := e.EncodeGroup(indices[:c.GroupIndices()], (*[GroupSize]float32)(row[i:]))
		sse += float64(sqErr)
	}
	return sse * float64(step) * float64(step), nil
}

func sumSquares(row []float32) float64 {
	var s float64
	for _, x := range row {
		s += float64(float64(x) * float64(x))
	}
	return s
}

// rowEncoder returns the encoder for a row, having checked that the row can be coded with the step.
func (c *Codec) rowEncoder(row []float32, step float32) (Encoder, error) {
	e, err := c.Encoder(step)
	if err != nil {
		return e, err
	}
	if len(row)%GroupSize != 0 {
		return e, fmt.Errorf("lattice: encode row of %d weights: want a multiple of %d", len(row), GroupSize)
	}
	limit := float32(maxFinite)
	if step != 0 {
		limit = min(limit, step*maxSteps)
	}
	for j, x := range row {
		if !(abs32(x) <= limit) {
			return e, fmt.Errorf("lattice: encode row: weight %d is %v: %w of %v", j, x, ErrRange, step)
		}
	}
	return e, nil
}

const maxFinite = 0x1p127 * (1 + (1 - 0x1p-23))

// DecodeRow writes to row the weights of a coded row. It fails when the lengths do not fit or an index is out of range.
func (c *Codec) DecodeRow(row []float32, indices []uint16, gains []uint8, step float32) error {
	e, err := c.Encoder(step)
	if err != nil {
		return err
	}
	n, blocks := c.GroupIndices(), c.Blocks()
	if groups := len(row) / GroupSize; len(row)%GroupSize != 0 || len(indices) != groups*n || len(gains) != groups {
		return fmt.Errorf("lattice: decode row of %d weights from %d indices and %d gains: lengths do not fit %v",
			len(row), len(indices), len(gains), c)
	}
	for i, gain := range gains {
		group := indices[i*n : (i+1)*n]
		if int(gain) >= len(c.gains) {
			return fmt.Errorf("lattice: decode group %d: gain index %d of %d gains", i, gain, len(c.gains))
		}
		for p, k := range group {
			if t := c.leaders[p/blocks]; int(k) >= t.Len() {
				return fmt.Errorf("lattice: decode group %d: class index %d of %d classes", i, k, t.Len())
			}
		}
		e.DecodeGroup((*[GroupSize]float32)(row[i*GroupSize:]), group, gain)
	}
	return nil
}

// EncodeMatrix codes w, [rows, cols] row-major, with one step per row, on the given number of threads (0: one per CPU).
// It returns the codes and the sum of squared errors of every row. The result does not depend on threads.
func (c *Codec) EncodeMatrix(w []float32, rows, cols int, steps []float32, threads int) (*Codes, []float64, error) {
	codes, err := c.NewCodes(rows, cols)
	if err != nil {
		return nil, nil, err
	}
	if len(w) != rows*cols || len(steps) != rows {
		return nil, nil, fmt.Errorf("lattice: encode matrix of %d × %d: have %d weights and %d steps", rows, cols, len(w), len(steps))
	}
	sse := make([]float64, rows)
	err = parallel("row", rows, threads, func(r int) (err error) {
		indices, gains := codes.Row(r)
		sse[r], err = c.EncodeRow(indices, gains, w[r*cols:(r+1)*cols], steps[r])
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return codes, sse, nil
}

// DecodeMatrix writes to w, [Rows, Cols] row-major, the weights of coded rows with one step per row, on the given number
// of threads (0: one per CPU).
func (c *Codec) DecodeMatrix(w []float32, codes *Codes, steps []float32, threads int) error {
	rows, cols := codes.Rows, codes.Cols
	groups := rows * (cols / GroupSize)
	if len(w) != rows*cols || len(steps) != rows || len(codes.Gains) != groups || len(codes.Indices) != groups*c.GroupIndices() {
		return fmt.Errorf("lattice: decode matrix of %d × %d with %v: have %d weights, %d steps, %d gains and %d indices",
			rows, cols, c, len(w), len(steps), len(codes.Gains), len(codes.Indices))
	}
	return parallel("row", rows, threads, func(r int) error {
		indices, gains := codes.Row(r)
		return c.DecodeRow(w[r*cols:(r+1)*cols], indices, gains, steps[r])
	})
}

// parallel calls do(0) … do(n−1) on several goroutines (0: one per CPU) and returns the error of the lowest that failed,
// saying what it is.
func parallel(what string, n, threads int, do func(i int) error) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(threads, n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = do(i)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s %d: %w", what, i, err)
		}
	}
	return nil
}
