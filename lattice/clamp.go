package lattice

// reach bounds the points of a code: no coordinate exceeds one in magnitude, and no two coordinates' magnitudes sum to
// more than two. Each is the sum over the levels of q_0·…·q_{m−1} times the largest value that a leader has.
type reach struct{ one, two float32 }

// excess returns by how much y[:d] exceeds the reach: its largest magnitude less one, and the sum of its two largest
// magnitudes less two, or 0 where that is negative.
func (r reach) excess(y *[MaxDim]float32, d int) (one, two float32) {
	var first, second float32
	for _, c := range y[:d] {
		a := abs32(c)
		second = max(second, min(a, first))
		first = max(first, a)
	}
	return max(first-r.one, 0), max(first+second-r.two, 0)
}

// beyond reports whether y[:d] is so far out that the nearest lattice point is certainly not in the code, and the bound
// certainly larger than the distance to it.
func (r reach) beyond(y *[MaxDim]float32, d int) bool {
	for _, c := range y[:d] {
		if abs32(c) >= r.one+2 {
			return true
		}
	}
	return false
}

// bound returns a lower bound on the squared distance from y[:d] to the code: max(e², f²/2) with the excesses e and f.
func (r reach) bound(y *[MaxDim]float32, d int) float32 {
	one, two := r.excess(y, d)
	return max(float32(one*one), float32(float32(two*two)*0.5))
}

// shrink returns the factor that brings y[:d] within the reach as seen from 0, at most 1: the smaller of one/(one + e) and
// two/(two + f) with the excesses e and f; the former alone if d = 1.
func (r reach) shrink(y *[MaxDim]float32, d int) float32 {
	one, two := r.excess(y, d)
	s := r.one / (r.one + one)
	if d > 1 {
		s = min(s, r.two/(r.two+two))
	}
	return s
}

const (
	// rayShrink is the ratio of successive trials along the ray.
	rayShrink = 0.875
	// maxRefinements bounds the moves of the search that follows; about one in 10^6 blocks would make more.
	maxRefinements = 16
)

// clamp codes a block y that overloads. It shrinks y towards the centre of the code, u = s·(y − centre) + centre with s =
// reach.shrink(y), s·rayShrink, …, until the point nearest to u is in the code; then it moves from that point v to
// better ones, one minimal vector of the lattice at a time (see refine); the error is Σ (y_j − v_j)².
func (c *Codec) clamp(code *block, y *[MaxDim]float32) {
	d := c.dim
	var u [MaxDim]float32
	var v [MaxDim]int32
	for s := c.reach.shrink(y, d); ; s = float32(s * rayShrink) {
		for j := range d {
			u[j] = float32(s*(y[j]-c.centre[j])) + c.centre[j]
		}
		c.nearest(&v, &u)
		if c.digits(&code.class, &v) {
			break
		}
	}
	for range maxRefinements {
		if !c.refine(code, &v, y) {
			break
		}
	}
	var square [MaxDim]float32
	for j := range d {
		r := y[j] - float32(v[j])
		square[j] = float32(r * r)
	}
	code.err = sum32(&square)
}

// refine moves v by one minimal vector that brings it nearer to y and keeps it in the code, if there is one. With the
// coordinates in descending order of |r_j|, r = y − v (lowest j first among equals), the vectors are tried in this order,
// each only if it shortens r:
//
//	Z^n: one coordinate by 1 in the direction of its r_j: the first, the second, …
//	D4: two coordinates by 1 in the direction of their r_j: first and second, first and third, …, second and third, …;
//	then one in that direction and a later one against it: first and last, first and last but one, …, second and last, …
//	E8 (doubled): all coordinates by 1, the last one against r_j if the sum of the steps is not 0 mod 4; then two
//	coordinates by 2, as in D4.
func (c *Codec) refine(code *block, v *[MaxDim]int32, y *[MaxDim]float32) bool {
	d := c.dim
	var size [MaxDim]float32
	var sign [MaxDim]int32
	var order [MaxDim]int
	for j := range d {
		r := y[j] - float32(v[j])
		size[j], sign[j] = abs32(r), 1
		if r < 0 {
			sign[j] = -1
		}
		i := j
		for ; i > 0 && size[order[i-1]] < size[j]; i-- {
			order[i] = order[i-1]
		}
		order[i] = j
	}
	try := func(w [MaxDim]int32) bool {
		var class [MaxLevels]uint16
		if !c.digits(&class, &w) {
			return false
		}
		code.class, *v = class, w
		return true
	}
	switch {
	case c.lattice.isZ():
		for _, j := range order[:d] {
			if size[j] <= 0.5 {
				return false
			}
			w := *v
			w[j] += sign[j]
			if try(w) {
				return true
			}
		}
		return false
	case c.lattice == E8:
		w, sum, last := *v, int32(0), order[d-1]
		for j := range w {
			w[j] += sign[j]
			sum += sign[j]
		}
		total := sum32(&size)
		if sum&3 != 0 {
			w[last] -= 2 * sign[last]
			total -= float32(2 * size[last])
		}
		if total > 4 && try(w) {
			return true
		}
	}
	step := int32(1 / c.lattice.Unit())
	for n, i := range order[:d] {
		for _, j := range order[n+1 : d] {
			if size[i]+size[j] <= float32(step) {
				break
			}
			w := *v
			w[i] += step * sign[i]
			w[j] += step * sign[j]
			if try(w) {
				return true
			}
		}
	}
	for n, i := range order[:d] {
		for m := d - 1; m > n; m-- {
			j := order[m]
			if size[i]-size[j] <= float32(step) {
				break
			}
			w := *v
			w[i] += step * sign[i]
			w[j] -= step * sign[j]
			if try(w) {
				return true
			}
		}
	}
	return false
}
