package lattice

import (
	"fmt"
	"math"
)

// RowBatch is work for a [RowCoder]: item i is a row of weights to be coded with Steps[i].
type RowBatch struct {
	// Weights holds rows of Width weights, Width a multiple of GroupSize.
	Weights []float32
	Width   int
	// At holds the row of every item; nil means row i.
	At    []int32
	Steps []float32
	// ID, if not 0, names what Weights and Width are: batches of one ID have the same, so that a coder with memory of its own
	// copies them there once.
	ID uint64
}

// RowCoder codes many rows at once. A *Codec is one, and says what the results of any other must be, bit for bit.
type RowCoder interface {
	// Distortions sets sse to what Codec.Distortion returns for every item, +Inf where it fails. It fails when lengths do not fit.
	Distortions(sse []float64, b RowBatch) error
	// EncodeRows does what Codec.EncodeRow does for every item, one after the other in indices, gains and sse.
	EncodeRows(indices []uint16, gains []uint8, sse []float64, b RowBatch) error
}

// Len returns the number of items.
func (b *RowBatch) Len() int { return len(b.Steps) }

// Row returns the row of item i.
func (b *RowBatch) Row(i int) []float32 {
	if b.At != nil {
		i = int(b.At[i])
	}
	return b.Weights[i*b.Width : (i+1)*b.Width]
}

// Item returns item i as a batch of its own.
func (b *RowBatch) Item(i int) RowBatch {
	return RowBatch{Weights: b.Row(i), Width: b.Width, Steps: b.Steps[i : i+1]}
}

// Check fails unless all items have a row, and there is one sum of squared errors for each.
func (b *RowBatch) Check(sse []float64) error {
	n := len(b.Steps)
	if b.Width <= 0 || b.Width%GroupSize != 0 || len(b.Weights)%b.Width != 0 || len(sse) != n || (b.At != nil && len(b.At) != n) {
		return fmt.Errorf("lattice: batch of %d steps, %d rows of %d among %d weights and %d results: lengths do not fit",
			n, len(b.At), b.Width, len(b.Weights), len(sse))
	}
	rows := len(b.Weights) / b.Width
	if b.At == nil && n > rows {
		return fmt.Errorf("lattice: batch of %d steps for %d rows", n, rows)
	}
	for _, r := range b.At {
		if r < 0 || int(r) >= rows {
			return fmt.Errorf("lattice: batch asks for row %d of %d", r, rows)
		}
	}
	return nil
}

// CheckCodes fails unless the codes of all items fit, and like Check.
func (b *RowBatch) CheckCodes(c *Codec, indices []uint16, gains []uint8, sse []float64) error {
	if err := b.Check(sse); err != nil {
		return err
	}
	if groups := b.Len() * b.Width / GroupSize; len(indices) != groups*c.GroupIndices() || len(gains) != groups {
		return fmt.Errorf("lattice: batch of %d groups: want %d indices and %d gains, have %d and %d",
			groups, groups*c.GroupIndices(), groups, len(indices), len(gains))
	}
	return nil
}

// Distortions makes a codec a [RowCoder].
func (c *Codec) Distortions(sse []float64, b RowBatch) error {
	if err := b.Check(sse); err != nil {
		return err
	}
	for i, step := range b.Steps {
		d, err := c.Distortion(b.Row(i), step)
		if err != nil {
			d = math.Inf(1)
		}
		sse[i] = d
	}
	return nil
}

// EncodeRows makes a codec a [RowCoder].
func (c *Codec) EncodeRows(indices []uint16, gains []uint8, sse []float64, b RowBatch) error {
	if err := b.CheckCodes(c, indices, gains, sse); err != nil {
		return err
	}
	slots := b.Width / GroupSize
	for i, step := range b.Steps {
		d, err := c.EncodeRow(indices[i*slots*c.GroupIndices():][:slots*c.GroupIndices()], gains[i*slots:][:slots], b.Row(i), step)
		if err != nil {
			return err
		}
		sse[i] = d
	}
	return nil
}
