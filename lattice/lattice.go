package lattice

import (
	"fmt"
	"math"
	"strings"
)

// Lattice names one of the lattices of the package. The zero value is no lattice.
type Lattice uint8

// The lattices: the integers Z^n, n = 1 … 8, the checkerboard lattice D4 (integer points of even sum) and the Gosset
// lattice E8 (D8 and D8 + ½).
const (
	Z1 Lattice = 1 + iota
	Z2
	Z3
	Z4
	Z5
	Z6
	Z7
	Z8
	D4
	E8
)

// MaxDim is the largest dimension of a lattice of this package.
const MaxDim = 8

// Z returns the integer lattice Z^n, n in 1 … 8.
func Z(n int) (Lattice, error) {
	if n < 1 || n > MaxDim {
		return 0, fmt.Errorf("lattice: Z^%d is out of range: the dimension must be 1 to %d", n, MaxDim)
	}
	return Z1 + Lattice(n-1), nil
}

// ParseLattice reads the name of a lattice: z1 … z8, d4 or e8.
func ParseLattice(name string) (Lattice, error) {
	for l := Z1; l <= E8; l++ {
		if name == l.String() {
			return l, nil
		}
	}
	if lower := strings.ToLower(strings.TrimSpace(name)); lower != name {
		if l, err := ParseLattice(lower); err == nil {
			return 0, fmt.Errorf("lattice: unknown lattice %q: did you mean %q?", name, l)
		}
	}
	return 0, fmt.Errorf("lattice: unknown lattice %q: want z1 to z8, d4 or e8", name)
}

// valid reports whether l is one of the lattices of the package.
func (l Lattice) valid() bool { return l >= Z1 && l <= E8 }

// String returns the name that ParseLattice reads.
func (l Lattice) String() string {
	switch {
	case l.isZ():
		return fmt.Sprintf("z%d", l.Dim())
	case l == D4:
		return "d4"
	case l == E8:
		return "e8"
	}
	return "invalid"
}

func (l Lattice) isZ() bool { return l >= Z1 && l <= Z8 }

// Dim returns the dimension d, 0 for the zero value.
func (l Lattice) Dim() int {
	switch {
	case l.isZ():
		return int(l-Z1) + 1
	case l == D4:
		return 4
	case l == E8:
		return 8
	}
	return 0
}

// Unit returns the real length of one integer coordinate: ½ for E8, whose points are stored doubled, 1 for the others.
func (l Lattice) Unit() float64 {
	if l == E8 {
		return 0.5
	}
	return 1
}

// Volume returns |det G|, the volume of a Voronoi cell in real coordinates: 2 for D4, 1 for Z^n and E8.
func (l Lattice) Volume() float64 {
	if l == D4 {
		return 2
	}
	return 1
}

// CoveringRadius returns the largest distance from a point of space to the lattice, in real coordinates.
func (l Lattice) CoveringRadius() float64 {
	if l.isZ() {
		return math.Sqrt(float64(l.Dim())) / 2
	}
	return 1
}

// SecondMoment returns the mean squared error per dimension of a source that is uniform over a Voronoi cell, in real
// coordinates: G(Λ)·Volume^(2/d) with the normalized second moment G(Λ) = 1/12 (Z^n), 13/(120·√2) (D4), 929/12960 (E8).
func (l Lattice) SecondMoment() float64 {
	switch l {
	case D4:
		return 13.0 / 120
	case E8:
		return 929.0 / 12960
	}
	return 1.0 / 12
}

// Nearest writes to dst[:d] the integer coordinates of the lattice point nearest to x[:d], which is in real
// coordinates of magnitude below 2^29. Among several nearest points it takes one by a fixed rule (rounding half to
// even, then the lowest coordinate, then the integer half of E8); no code depends on that choice.
func (l Lattice) Nearest(dst []int32, x []float64) {
	switch {
	case l == D4:
		nearestD(dst[:4], x[:4])
	case l == E8:
		nearestE8(dst, x)
	default:
		d := l.Dim()
		nearestZ(dst[:d], x[:d])
	}
}

// Contains reports whether the integer coordinates p[:d] are those of a lattice point.
func (l Lattice) Contains(p []int32) bool {
	switch {
	case l == D4:
		return (p[0]+p[1]+p[2]+p[3])&1 == 0
	case l == E8:
		var sum int32
		for _, c := range p[:8] {
			if (c^p[0])&1 != 0 {
				return false
			}
			sum += c
		}
		return sum&3 == 0
	}
	return l.isZ()
}
