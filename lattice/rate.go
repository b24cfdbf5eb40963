package lattice

import (
	"math"
	"math/bits"
)

// Rate returns the ideal bits per weight: Σ_m log2 q_m, plus log2(number of gains) per group of GroupSize weights. The row
// step is not counted. d4:4,4 with four gains has 4.25.
func (c *Codec) Rate() float64 {
	var r float64
	for _, q := range c.radices {
		r += math.Log2(float64(q))
	}
	return r + math.Log2(float64(len(c.gains)))/GroupSize
}

// IndexBits returns the whole bits that store one class index of a level, ⌈log2 q^d⌉: 8 for d4 with q = 4, 13 for e8
// with q = 3 (whose ideal is 12.68).
func (c *Codec) IndexBits(level int) int { return bits.Len(uint(c.leaders[level].Len() - 1)) }

// gainBits returns the whole bits that store one gain index, ⌈log2(number of gains)⌉; 0 for a single gain.
func (c *Codec) gainBits() int { return bits.Len(uint(len(c.gains) - 1)) }

// StoredBits returns the bits of one group of GroupSize weights with every index stored in whole bits.
func (c *Codec) StoredBits() int {
	n := c.gainBits()
	for m := range c.leaders {
		n += c.Blocks() * c.IndexBits(m)
	}
	return n
}
