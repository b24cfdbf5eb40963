package quant


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
	Centre       [groupSize]float32
	// Codebook is [entries × Dim] row-major: the coset leaders of every
	// distinct radix, one table after the other.
	Codebook []int8
	Dim      int
	// GainValues lists the gains; GainDivisors unpacks an index from its byte.
	GainValues, GainDivisors []float32
}

// Slot locates one digit: element/divisor mod modulus + base is its row of the
// codebook.
type Slot struct{ Element, Divisor, Modulus, Base int }

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
