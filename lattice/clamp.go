package lattice

// reach bounds the points of a code: no coordinate exceeds one in magnitude, and no two coordinates' magnitudes sum to
// more than two.
type reach struct{ one, two float32 }

// bound returns a lower bound on the squared distance from y[:d] to a point of the code, from the two coordinates of
// largest magnitude.
func (r reach) bound(y *[MaxDim]float32, d int) float32 {
	one, two := r.excess(y, d)
	return max(float32(one*one), float32(float32(two*two)*0.5))
}

// excess returns by how much y exceeds the reach, 0 where it does not.
func (r reach) excess(y *[MaxDim]float32, d int) (one, two float32) {
	var first, second float32
	for _, c := range y[:d] {
		if a := abs32(c); a > first {
			first, second = a, first
		} else if a > second {
			second = a
		}
	}
	return max(first-r.one, 0), max(first+second-r.two, 0)
}

// clamp codes a block that overloads.
func (c *Codec) clamp(code *block, y *[MaxDim]float32) {
	d := c.dim
	var u [MaxDim]float32
	var v [MaxDim]int32
	shrink := float32(1)
	one, two := c.reach.excess(y, d)
	if one > 0 {
		shrink = min(shrink, c.reach.one/(c.reach.one+one))
	}
	if two > 0 && d > 1 {
		shrink = min(shrink, c.reach.two/(c.reach.two+two))
	}
	for {
		for j := range d {
			u[j] = float32(shrink*(y[j]-c.centre[j])) + c.centre[j]
		}
		c.nearest(&v, &u)
		if c.digits(&code.class, &v) {
			break
		}
		shrink *= 0.9375
	}
	var square [MaxDim]float32
	for j := range d {
		r := y[j] - float32(v[j])
		square[j] = float32(r * r)
	}
	code.err = sum32(&square)
}
