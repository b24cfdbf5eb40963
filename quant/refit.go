package quant

import "slices"

// outcome is what the coding of a row lost, from which follows what it would lose at another scale.
type outcome struct {
	scale          uint16
	nearest        float64 // E·H·Eᵀ of rounding to nearest
	loss           float64 // E·H·Eᵀ
	energy         float64 // W·H·Wᵀ
	cross          float64 // E·H·Ŵᵀ
	squares        float64 // |E|²
	crossSquares   float64 // E·Ŵᵀ
	decodedSquares float64 // |Ŵ|²
	mean           float64 // E·E[x]
	decodedMean    float64 // Ŵ·E[x]
}

// decodedEnergy is Ŵ·H·Ŵᵀ.
func (o *outcome) decodedEnergy() float64 { return o.energy - o.loss - 2*o.cross }

// rescale multiplies Ŵ by 1+d.
func (o *outcome) rescale(d float64) {
	a := o.decodedEnergy()
	o.loss += d * (d*a - 2*o.cross)
	o.cross = (1 + d) * (o.cross - d*a)
	o.squares += d * (d*o.decodedSquares - 2*o.crossSquares)
	o.mean -= d * o.decodedMean
}

// measure fills in what row r lost; c.grad must be E·H'.
func (c *chunk) measure(o *outcome, code *coding, r int, mean []float64) {
	n := c.f.places
	o.scale, o.loss = code.scales[r], code.loss[r]
	for p := range n {
		e, g := float64(code.errs[r*n+p]), float64(c.grad[r*n+p])
		v := float64(c.w[r*n+p]) - e
		g -= c.f.excess[p] * e // E·H
		o.cross += v * g
		o.squares += e * e
		o.crossSquares += e * v
		o.decodedSquares += v * v
		if mean != nil {
			o.mean += e * mean[p]
			o.decodedMean += v * mean[p]
		}
	}
}

// mostRefit bounds the factor of a scale, unless the squared error is the better for more. Those of weights that H knows all about lie
// between 0.93 and 1.05, even at 2 bits. Of a row with its weights in columns that are dead, or nearly, H knows but what its zeros in
// the other columns became, and would shrink it to nothing.
const mostRefit = 1.25

// refit moves every scale to the multiple of it that loses least over the rows
// that use it, 1 + Σ E·H·Ŵᵀ / Σ Ŵ·H·Ŵᵀ, where that is better after rounding to
// float16.
func (t *scales) refit(lost []outcome) {
	users := make(map[uint16][]int, len(t.entries)) // rows by scale
	for r := range lost {
		users[lost[r].scale] = append(users[lost[r].scale], r)
	}
	old := slices.Clone(t.entries)
	for i, h := range old {
		if i > 0 && h == old[i-1] {
			t.entries[i] = t.entries[i-1]
			continue
		}
		t.entries[i] = t.refitScale(lost, h, users[h])
	}
	if t.entries == nil {
		for r := range lost {
			t.refitScale(lost, lost[r].scale, []int{r})
		}
	}
	slices.Sort(t.entries)
}

// refitScale moves the scale h of some rows, and returns where to.
func (t *scales) refitScale(lost []outcome, h uint16, users []int) uint16 {
	var cross, energy, crossSquares, squares float64
	for _, r := range users {
		cross += lost[r].cross
		energy += lost[r].decodedEnergy()
		crossSquares += lost[r].crossSquares
		squares += lost[r].decodedSquares
	}
	if h == 0 || !(energy > 0) || !(cross > -energy) {
		return h
	}
	to := t.half(float32(float64(t.step(h)) * (1 + cross/energy)))
	d := float64(t.step(to))/float64(t.step(h)) - 1
	if d*(d*energy-2*cross) >= 0 {
		return h
	}
	if (1+d > mostRefit || 1+d < 1/mostRefit) && d*(d*squares-2*crossSquares) > 0 {
		return h
	}
	for _, r := range users {
		lost[r].rescale(d)
		lost[r].scale = to
	}
	return to
}
