package lattice

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Of gains that err alike the smallest is taken, by the general path and by the fast one: so it says step 5 of the encoder's
// arithmetic, and other implementations give the same bytes.
func TestGainsThatErrAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 1))
	for _, s := range []string{"d4:2,4:g1,2", "z1:3:g1,2,4"} {
		c := mustCodec(t, s)
		single, err := NewCodec(c.Lattice(), c.Radices(), nil)
		if err != nil {
			t.Fatal(err)
		}
		e := mustEncoder(t, c, 1)
		ties := 0
		for range 200000 {
			var x [GroupSize]float32
			for j := range x { // in places where errors are exact in float32
				x[j] = float32(rng.IntN(65)-32) / 8
			}
			best, want, tie := float32(math.Inf(1)), uint8(0), false
			var indices [MaxLevels * GroupSize]uint16
			for g := len(c.gains) - 1; g >= 0; g-- {
				alone := mustEncoder(t, single, float32(c.gains[g]))
				_, sqErr := alone.EncodeGroup(indices[:], &x)
				sqErr *= float32(c.gains[g] * c.gains[g])
				tie = sqErr == best || tie && sqErr > best
				if sqErr <= best {
					best, want = sqErr, uint8(g)
				}
			}
			if !tie {
				continue
			}
			if ties++; ties == 200 {
				break
			}
			if gain, sqErr := e.EncodeGroup(indices[:], &x); gain != want || sqErr != best {
				t.Fatalf("%v of %v: gain %d with error %v, want %d with %v", c, x, gain, sqErr, want, best)
			}
			if gain, _ := e.encodeGroup(indices[:], &x); gain != want {
				t.Fatalf("%v of %v by the general path: gain %d, want %d", c, x, gain, want)
			}
		}
		if ties < 20 {
			t.Errorf("%v: only %d ties", c, ties)
		}
	}
}

// A move of the search that follows clamping shortens the way to the point by a minimal vector and stays in the code; where there is
// none, none of those that are tried would have.
func TestRefine(t *testing.T) {
	rng := rand.New(rand.NewPCG(18, 2))
	for _, s := range []string{"z1:16", "z4:5", "d4:4,4", "d4:3", "e8:2,2", "e8:3", "e8:4"} {
		c := mustCodec(t, s)
		d := c.dim
		moved := 0
		for range 20000 {
			indices := make([]uint16, c.GroupIndices())
			for i := range indices {
				indices[i] = uint16(rng.IntN(c.leaders[i/c.Blocks()].Len()))
			}
			var points [GroupSize]int32
			c.Points(&points, indices)
			var v, before [MaxDim]int32
			var y [MaxDim]float32
			for j := range d {
				v[j] = points[j]
				y[j] = float32(v[j]) + float32(rng.IntN(257)-128)/64
			}
			before = v
			var code block
			distance := func(v [MaxDim]int32) (sum float64) {
				for j := range d {
					r := float64(y[j]) - float64(v[j])
					sum += r * r
				}
				return sum
			}
			if c.refine(&code, &v, &y) {
				moved++
				var class [MaxLevels]uint16
				var w [MaxDim]int32
				for j := range d {
					w[j] = v[j] - before[j]
				}
				if distance(v) >= distance(before) || !c.digits(&class, &v) || class != code.class || !c.lattice.Contains(w[:]) {
					t.Fatalf("%v: %v to %v, towards %v, from %v to %v", c, before[:d], v[:d], y[:d], distance(before), distance(v))
				}
				continue
			}
			for _, w := range c.tried(before, y) {
				var class [MaxLevels]uint16
				if distance(w) < distance(before) && c.digits(&class, &w) {
					t.Fatalf("%v: stays at %v, and %v is nearer to %v", c, before[:d], w[:d], y[:d])
				}
			}
		}
		if moved < 1000 {
			t.Errorf("%v: only %d moves", c, moved)
		}
	}
}

// tried lists the points that refine may move v to.
func (c *Codec) tried(v [MaxDim]int32, y [MaxDim]float32) (all [][MaxDim]int32) {
	step := int32(1 / c.lattice.Unit())
	for i := range c.dim {
		for _, a := range []int32{-step, step} {
			w := v
			w[i] += a
			if c.lattice.isZ() {
				all = append(all, w)
				continue
			}
			for j := range i {
				for _, b := range []int32{-step, step} {
					w[j] = v[j] + b
					all = append(all, w)
				}
				w[j] = v[j]
			}
		}
	}
	if c.lattice != E8 {
		return all
	}
	half, sum, last := v, int32(0), 0 // the best of all with halves
	for j := range half {
		s := int32(1)
		if y[j] < float32(v[j]) {
			s = -1
		}
		half[j] += s
		sum += s
		if abs32(y[j]-float32(v[j])) <= abs32(y[last]-float32(v[last])) {
			last = j
		}
	}
	if sum&3 != 0 {
		half[last] = 2*v[last] - half[last]
	}
	return append(all, half)
}

// A vector from far outside is clamped to the rim of the code, not to its middle: a code of D4 with radices 4 and 4 holds all points
// within 16·(1 − ¼) times the half least distance, 1/√2, of 0.
func TestClampedFarVector(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 3))
	q := mustQuantizer(t, Config{Lattice: D4, Radices: Uniform(4, 2), DisableScaling: true})
	for range 200 {
		x, back := make([]float64, 4), make([]float64, 4)
		for j := range x {
			x[j] = rng.NormFloat64() * (1 << 20)
		}
		code, err := q.Encode(x)
		if err == nil {
			err = q.Decode(back, code)
		}
		var xx, xb, bb float64
		for j := range x {
			xx += x[j] * x[j]
			xb += x[j] * back[j]
			bb += back[j] * back[j]
		}
		if err != nil || !code.Overload || math.Sqrt(bb) < 7 || xb < 0.9*math.Sqrt(xx*bb) {
			t.Fatalf("%v is clamped to %v: %+v, %v", x, back, code, err)
		}
	}
}
