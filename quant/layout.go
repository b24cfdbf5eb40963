package quant

import (
	"slices"

	"github.com/cosetq/cosetq/lattice"
)

// Layout says how the digits of one group of 8 weights are read back: the
// content of the op's attributes (docs/format.md), derived from a codec alone.
type Layout struct {
	// Elements is E, the stored elements per group; ElementBytes is 1 or 2.
	Elements, ElementBytes int
	// Slots has one entry per (level, block), level by level from the finest.
	Slots []Slot
	// LevelWeights is Q_m and Centre the mean of the code at each of the 8
	// places of a group, both in the lattice's integer units (without 2^e).
	LevelWeights []float32
	Centre       [lattice.GroupSize]float32
	// Codebook is [entries × Dim] row-major: the coset leaders of every
	// distinct radix, one table after the other.
	Codebook []int8
	Dim      int
	// GainValues lists the gains, the last one repeated up to 2, 4 or 16 so that every stored index has one; GainDivisors
	// unpacks an index from its byte.
	GainValues, GainDivisors []float32
}

// Slot locates one digit: element/divisor mod modulus + base is its row of the
// codebook.
type Slot struct{ Element, Divisor, Modulus, Base int }

// LayoutOf returns the layout of a codec.
func LayoutOf(c *lattice.Codec) *Layout {
	l := &Layout{ElementBytes: 1, Dim: c.Lattice().Dim()}
	blocks := c.Blocks()
	for m := range c.Levels() {
		if digitBits(c.Leaders(m).Len()) > 8 {
			l.ElementBytes = 2
		}
	}
	var seen []int // radices in the codebook
	var bases []int
	for m := range c.Levels() {
		table := c.Leaders(m)
		bits := digitBits(table.Len())
		per := min(8*l.ElementBytes/bits, blocks)
		modulus := table.Len() // whatever is stored, the row lies within the table
		if per > 1 {
			modulus = 1 << bits
		}
		at := slices.Index(seen, table.Radix())
		if at < 0 {
			at = len(seen)
			seen = append(seen, table.Radix())
			bases = append(bases, len(l.Codebook)/l.Dim)
			l.Codebook = slices.Grow(l.Codebook, modulus*l.Dim)
			for k := range table.Len() {
				for _, v := range table.At(k) {
					l.Codebook = append(l.Codebook, int8(v))
				}
			}
			if per > 1 { // a digit is then masked, not reduced: pad to every value it can have
				l.Codebook = append(l.Codebook, make([]int8, (modulus-table.Len())*l.Dim)...)
			}
		}
		for b := range blocks {
			l.Slots = append(l.Slots, Slot{
				Element: l.Elements + b/per, Divisor: 1 << (b % per * bits), Modulus: modulus, Base: bases[at],
			})
		}
		l.Elements += (blocks + per - 1) / per
		l.LevelWeights = append(l.LevelWeights, float32(c.LevelWeight(m)))
	}
	centre := c.Centre()
	for j := range l.Centre {
		l.Centre[j] = centre[j%l.Dim]
	}
	for _, g := range c.Gains() {
		l.GainValues = append(l.GainValues, float32(g))
	}
	l.GainDivisors = []float32{1}
	if n := len(l.GainValues); n > 1 {
		bits := gainBits(n)
		for b := bits; b < 8; b += bits {
			l.GainDivisors = append(l.GainDivisors, float32(int(1)<<b))
		}
		for len(l.GainValues) < 1<<bits {
			l.GainValues = append(l.GainValues, l.GainValues[n-1])
		}
	}
	return l
}

// GainBytes returns the gain bytes per row for the given number of groups.
func (l *Layout) GainBytes(groups int) int {
	per := len(l.GainDivisors)
	return (groups + per - 1) / per
}

// digitBits returns the storage width of a digit with the given number of
// classes: the next of 1, 2, 4, 8, 16 bits, or 0 if none fits.
func digitBits(classes int) int {
	for _, b := range []int{1, 2, 4, 8, 16} {
		if classes <= 1<<b {
			return b
		}
	}
	return 0
}

// gainBits returns the storage width of a gain index.
func gainBits(gains int) int {
	switch {
	case gains <= 2:
		return 1
	case gains <= 4:
		return 2
	}
	return 4
}
