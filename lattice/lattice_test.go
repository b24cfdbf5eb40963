package lattice

// The tests name the checkable facts of HNLQ that they verify: 1 to 3 and 14 to 15 of lattices and limits, 4 to 6 of leaders and
// code books, 7 to 9 of overload, 10 of look-up tables, 11 to 13 of distortion, 17 of rates. Fact 16, on error feedback
// (LDLQ), belongs to the package that does it.

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// skipMonteCarlo skips a test of many samples in -short mode, as under the race detector.
func skipMonteCarlo(t *testing.T) {
	if testing.Short() {
		t.Skip("Monte Carlo test, skipped by -short")
	}
}

var allLattices = []Lattice{Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, D4, E8}

// shell returns the lattice points with integer coordinates of magnitude at most bound and 0 < |p|² <= norm (in squared
// integer units).
func shell(l Lattice, bound int32, norm int32) [][]int32 {
	var points [][]int32
	p := make([]int32, l.Dim())
	var walk func(j int, left int32)
	walk = func(j int, left int32) {
		if j == len(p) {
			if left < norm && l.Contains(p) {
				points = append(points, append([]int32(nil), p...))
			}
			return
		}
		for c := -bound; c <= bound; c++ {
			if c*c <= left {
				p[j] = c
				walk(j+1, left-c*c)
			}
		}
	}
	walk(0, norm)
	return points
}

func norm2(p []int32) int32 {
	var s int32
	for _, c := range p {
		s += c * c
	}
	return s
}

// minimalVectors are the vectors that define the Voronoi cell.
func minimalVectors(l Lattice) [][]int32 {
	switch l {
	case D4:
		return shell(D4, 1, 2)
	case E8:
		return shell(E8, 2, 8)
	}
	return shell(l, 1, 1)
}

func TestParseLattice(t *testing.T) {
	for _, l := range allLattices {
		if got, err := ParseLattice(l.String()); err != nil || got != l {
			t.Errorf("ParseLattice(%q) = %v, %v", l, got, err)
		}
	}
	for _, name := range []string{"", "z0", "z9", "d5", "E8", " d4", "leech", "invalid"} {
		if l, err := ParseLattice(name); err == nil {
			t.Errorf("ParseLattice(%q) = %v, want an error", name, l)
		}
	}
	for _, n := range []int{-1, 0, 9, math.MaxInt} {
		if l, err := Z(n); err == nil {
			t.Errorf("Z(%d) = %v, want an error", n, l)
		}
	}
	if l, err := Z(2); err != nil || l != Z2 {
		t.Errorf("Z(2) = %v, %v", l, err)
	}
}

// Fact 1 of the theory: the theta series.
func TestShells(t *testing.T) {
	count := make(map[int32]int)
	for _, p := range shell(D4, 4, 16) {
		count[norm2(p)]++
	}
	for i, want := range []int{24, 24, 96, 24, 144, 96, 192, 24} {
		if n := int32(2 * (i + 1)); count[n] != want {
			t.Errorf("D4 has %d vectors of squared norm %d, want %d", count[n], n, want)
		}
	}
	clear(count)
	for _, p := range shell(E8, 4, 16) {
		count[norm2(p)]++
	}
	if count[8] != 240 || count[16] != 2160 || len(count) != 2 {
		t.Errorf("E8 shells (doubled norms) are %v, want 240 and 2160", count)
	}
}

// Fact 2: the normalized second moments.
func TestSecondMoment(t *testing.T) {
	skipMonteCarlo(t)
	rng := rand.New(rand.NewPCG(2, 2))
	for _, test := range []struct {
		lattice Lattice
		nsm     float64
		samples int
	}{{Z1, 0.083333, 800_000}, {D4, 0.076603, 200_000}, {E8, 0.071682, 100_000}} {
		l, d := test.lattice, test.lattice.Dim()
		var sum float64
		for i := range test.samples {
			var z [MaxDim]float64
			l.dither(&z, rng.Uint64(), uint64(i))
			for _, c := range z[:d] {
				sum += c * c
			}
		}
		moment := sum / float64(test.samples*d)
		nsm := moment / math.Pow(l.Volume(), 2/float64(d))
		if math.Abs(nsm/test.nsm-1) > 0.005 {
			t.Errorf("%v: normalized second moment %.6f, want %.6f", l, nsm, test.nsm)
		}
		if math.Abs(moment/l.SecondMoment()-1) > 0.005 {
			t.Errorf("%v: second moment %.6f, want %.6f", l, moment, l.SecondMoment())
		}
	}
}

// Fact 3: generators, inverses, volumes.
func TestGenerator(t *testing.T) {
	for _, l := range allLattices {
		d := l.Dim()
		basis := l.Generator()
		m := make([][]float64, d)
		for i, row := range basis {
			if !l.Contains(row) {
				t.Errorf("%v: basis vector %v is not a lattice point", l, row)
			}
			var b, p [MaxDim]int32
			l.Coordinates(b[:], row)
			for j := range d {
				if want := int32(0); b[j] != want && i != j || i == j && b[j] != 1 {
					t.Errorf("%v: digits of basis vector %d are %v", l, i, b[:d])
					break
				}
			}
			l.Point(p[:], b[:])
			for j, c := range row {
				if p[j] != c {
					t.Errorf("%v: G·e_%d = %v, want %v", l, i, p[:d], row)
					break
				}
			}
			m[i] = make([]float64, d)
			for j, c := range row {
				m[i][j] = float64(c) * l.Unit()
			}
		}
		if det := math.Abs(determinant(m)); math.Abs(det-l.Volume()) > 1e-12 {
			t.Errorf("%v: |det G| = %v, want %v", l, det, l.Volume())
		}
	}
}

func determinant(m [][]float64) float64 {
	det := 1.0
	for i := range m {
		pivot := i
		for r := i; r < len(m); r++ {
			if math.Abs(m[r][i]) > math.Abs(m[pivot][i]) {
				pivot = r
			}
		}
		if pivot != i {
			m[i], m[pivot] = m[pivot], m[i]
			det = -det
		}
		det *= m[i][i]
		for r := i + 1; r < len(m); r++ {
			f := m[r][i] / m[i][i]
			for j := i; j < len(m); j++ {
				m[r][j] -= f * m[i][j]
			}
		}
	}
	return det
}

func drawVector(t *rapid.T, d int, bound float64) []float64 {
	return rapid.SliceOfN(rapid.Float64Range(-bound, bound), d, d).Draw(t, "x")
}

// drawPoint draws a lattice point by its digits.
func drawPoint(t *rapid.T, l Lattice, bound int32) []int32 {
	b := rapid.SliceOfN(rapid.Int32Range(-bound, bound), l.Dim(), l.Dim()).Draw(t, "digits")
	p := make([]int32, l.Dim())
	l.Point(p, b)
	return p
}

func distance2(l Lattice, p []int32, x []float64) float64 {
	var s float64
	for j, c := range x {
		e := c - float64(p[j])*l.Unit()
		s += e * e
	}
	return s
}

// Fact 3: the nearest point beats every neighbour, and lies within the covering radius.
func TestNearest(t *testing.T) {
	for _, l := range allLattices {
		minimal := minimalVectors(l)
		t.Run(l.String(), rapid.MakeCheck(func(t *rapid.T) {
			x := drawVector(t, l.Dim(), 20)
			p := make([]int32, l.Dim())
			l.Nearest(p, x)
			if !l.Contains(p) {
				t.Fatalf("nearest %v is not a lattice point", p)
			}
			near := distance2(l, p, x)
			if r := l.CoveringRadius(); near > r*r+1e-12 {
				t.Fatalf("distance² %v exceeds the covering radius", near)
			}
			q := make([]int32, len(p))
			for _, m := range minimal {
				for j := range q {
					q[j] = p[j] + m[j]
				}
				if d := distance2(l, q, x); d < near-1e-12 {
					t.Fatalf("%v at %v is nearer than %v at %v", q, d, p, near)
				}
			}
		}))
	}
}

// Fact 3: Q agrees with brute force over {-2 … 2}^d for a point near the origin.
func TestNearestBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, l := range []Lattice{Z2, Z4, D4, E8} {
		bound := int32(2 / l.Unit())
		if l == E8 {
			bound = 3
		}
		points := append(shell(l, bound, 4*int32(l.Dim())), make([]int32, l.Dim()))
		for range 200 {
			x := make([]float64, l.Dim())
			for j := range x {
				x[j] = 2*rng.Float64() - 1
			}
			if l == E8 {
				for j := range x {
					x[j] /= 2
				}
			}
			p := make([]int32, l.Dim())
			l.Nearest(p, x)
			near := distance2(l, p, x)
			for _, q := range points {
				if d := distance2(l, q, x); d < near-1e-12 {
					t.Fatalf("%v: %v is nearer to %v than %v", l, q, x, p)
				}
			}
		}
	}
}

// Fact 3: Q(λ) = λ, and the digits give λ back.
func TestPoints(t *testing.T) {
	for _, l := range allLattices {
		t.Run(l.String(), rapid.MakeCheck(func(t *rapid.T) {
			p := drawPoint(t, l, 1000)
			if !l.Contains(p) {
				t.Fatalf("G·b = %v is not a lattice point", p)
			}
			x := make([]float64, len(p))
			for j, c := range p {
				x[j] = float64(c) * l.Unit()
			}
			near, back, b := make([]int32, len(p)), make([]int32, len(p)), make([]int32, len(p))
			l.Nearest(near, x)
			l.Coordinates(b, p)
			l.Point(back, b)
			for j := range p {
				if near[j] != p[j] || back[j] != p[j] {
					t.Fatalf("Q(%v) = %v, G·G⁻¹ of it = %v", p, near, back)
				}
			}
			p[0]++
			if !l.isZ() && l.Contains(p) {
				t.Fatalf("%v is a lattice point", p)
			}
		}))
	}
}

// The float32 search of the encoder finds the points of the float64 one where both are exact, ties included.
func TestNearest32(t *testing.T) {
	for _, s := range []string{"z1:4", "z8:2", "d4:4", "e8:2"} {
		c := mustCodec(t, s)
		t.Run(s, rapid.MakeCheck(func(t *rapid.T) {
			eighths := rapid.SliceOfN(rapid.IntRange(-200, 200), c.dim, c.dim).Draw(t, "eighths")
			var y [MaxDim]float32
			x := make([]float64, c.dim)
			for j, e := range eighths {
				y[j] = float32(e) / 8
				x[j] = float64(y[j]) * c.lattice.Unit()
			}
			var got, want [MaxDim]int32
			err := c.nearest(&got, &y)
			c.lattice.Nearest(want[:], x)
			if got != want {
				t.Fatalf("float32 finds %v, float64 %v", got, want)
			}
			unit := c.lattice.Unit()
			if d := distance2(c.lattice, got[:], x); float64(err)*unit*unit != d {
				t.Fatalf("float32 error %v, want %v", err, d/unit/unit)
			}
		}))
	}
}
