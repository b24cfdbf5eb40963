package lattice

import (
	"fmt"
	"math"
)

// Encoder codes groups of one row: a codec with a step. It is a small value, safe for concurrent use.
//
// The encoder's arithmetic is specified, so that another implementation gives the same bits. All operations are float32,
// rounded one by one to nearest even, never fused.
//
//  1. inverse_g = (1/step)/gain_g, two divisions. y_j = x_j·inverse_g + centre_j, for each block of d coordinates.
//  2. The nearest point v of a block and its squared error e. With f_j = y_j rounded half to even and r_j = y_j − f_j:
//     Z^n: v = f, e = Σ r_j². D_n: if Σ f_j is even, v = f and e = Σ r_j²; otherwise the coordinate with the largest
//     |r_j|, the lowest such j, moves by +1 if r_j ≥ 0, else by −1, and e = Σ r_j² + (1 − 2·|r_j|).
//     E8: the D8 problem for y/2, and that for y/2 − ½, the first unless the second's e is smaller; e is then multiplied
//     by 4. Sums are ((0+1)+(2+3)) + ((4+5)+(6+7)), with 0 for absent terms.
//  3. The digits of v by exact integer division by the leaders. A block whose quotient does not end at 0 overloads.
//  4. The error of a gain is gain²·(e of block 0 + e of block 1 + …), added in this order, gain² exact.
//  5. Gains are tried from the largest to the smallest, until two of them had a block that overloads, and one is taken if
//     its error is not above the best so far. Before an overloading block is clamped its e is replaced by reach.bound if
//     that is larger, and the gain is skipped if the error then exceeds the best so far. Else each overloading block is
//     clamped (see Codec.clamp).
type Encoder struct {
	codec   *Codec
	step    float32
	inverse [MaxGains]float32
}

// Encoder returns the encoder of a row with the given step, which must be finite and positive and have a finite reciprocal; or
// 0, for a row that is to decode to zeros.
func (c *Codec) Encoder(step float32) (Encoder, error) {
	e := Encoder{codec: c, step: step}
	if step == 0 {
		return e, nil
	}
	inverse := 1 / step
	if !(step > 0) || math.IsInf(float64(step), 1) || math.IsInf(float64(inverse), 1) {
		return e, fmt.Errorf("lattice: step %v is out of range: want 0, or a positive number with a finite reciprocal", step)
	}
	for g, gain := range c.gains {
		e.inverse[g] = inverse / float32(gain)
	}
	return e, nil
}

// maxOverloads is the number of overloading gains after which smaller ones are not tried. On N(0,1), against trying all,
// it costs no d4 codec anything and e8:2,2 about 1 %.
const maxOverloads = 2

// block is one coded block: its class indices, finest level first, and its squared error in squared integer units.
type block struct {
	class [MaxLevels]uint16
	err   float32
}

// EncodeGroup codes the group x, writes its class indices to indices[level·Blocks + block], level 0 being the finest,
// and returns the gain index and the squared error in units of step². The magnitudes of x must be finite and below
// 2^40 steps (EncodeRow checks that). indices must have GroupIndices entries.
func (e *Encoder) EncodeGroup(indices []uint16, x *[GroupSize]float32) (gain uint8, sqErr float32) {
	c := e.codec
	if c.packed != nil {
		return e.encodeGroupD4(indices, x)
	}
	return e.encodeGroup(indices, x)
}

// encodeGroup is EncodeGroup for any codec.
func (e *Encoder) encodeGroup(indices []uint16, x *[GroupSize]float32) (gain uint8, sqErr float32) {
	c := e.codec
	d, blocks := c.dim, c.Blocks()
	best := float32(math.Inf(1))
	var y [GroupSize][MaxDim]float32
	var code [GroupSize]block
	var overload [GroupSize]bool
	for g, overloads := len(c.gains)-1, 0; g >= 0 && overloads < maxOverloads; g-- {
		square := float32(c.gains[g] * c.gains[g])
		var sum float32
		for b := range blocks {
			for j := range d {
				y[b][j] = float32(x[b*d+j]*e.inverse[g]) + c.centre[j]
			}
			var v [MaxDim]int32
			code[b].err = c.nearest(&v, &y[b])
			overload[b] = c.reach.beyond(&y[b], d)
			if !overload[b] {
				code[b].err = c.nearest(&v, &y[b])
				overload[b] = !c.digits(&code[b].class, &v)
			}
			bound := code[b].err
			if overload[b] {
				bound = max(bound, c.reach.bound(&y[b], d))
			}
			sum += bound
		}
		if overload != [GroupSize]bool{} {
			overloads++
		}
		if float32(square*sum) > best {
			continue
		}
		sum = 0
		for b := range blocks {
			if overload[b] {
				c.clamp(&code[b], &y[b])
			}
			sum += code[b].err
		}
		if err := float32(square * sum); err <= best {
			best, gain = err, uint8(g)
			for b := range blocks {
				for m := range c.leaders {
					indices[m*blocks+b] = code[b].class[m]
				}
			}
		}
	}
	return gain, best
}

// nearest finds the nearest lattice point v to y by the encoder's arithmetic and returns the squared error, both in
// integer coordinates.
func (c *Codec) nearest(v *[MaxDim]int32, y *[MaxDim]float32) float32 {
	switch c.lattice {
	case D4:
		return nearestD32(v, y, 4)
	case E8:
		return nearestE832(v, y)
	}
	return nearestZ32(v, y, c.dim)
}

// digits writes the class index of v at every level, finest first, and reports whether v is a point of the code.
func (c *Codec) digits(class *[MaxLevels]uint16, v *[MaxDim]int32) bool {
	g := *v
	for m, t := range c.leaders {
		k := c.lattice.Class(g[:], t.radix)
		class[m] = uint16(k)
		for j, leader := range t.At(int(k)) {
			g[j] = (g[j] - leader) / int32(t.radix)
		}
	}
	return g == [MaxDim]int32{}
}

// Points writes to v the integer coordinates of a coded group.
func (c *Codec) Points(v *[GroupSize]int32, indices []uint16) { c.coarsePoints(v, indices, 0) }

// coarsePoints is Points from the levels at and above from.
func (c *Codec) coarsePoints(v *[GroupSize]int32, indices []uint16, from int) {
	d, blocks := c.dim, c.Blocks()
	*v = [GroupSize]int32{}
	for m := from; m < len(c.leaders); m++ {
		for b := range blocks {
			for j, leader := range c.leaders[m].At(int(indices[m*blocks+b])) {
				v[b*d+j] += c.weights[m] * leader
			}
		}
	}
}

// DecodeGroup writes to w the weights of a coded group: (step·gain)·(v_j − centre_j), in float32.
// Indices and gain must be those of the codec: class indices below q^d, the gain index below the number of gains.
func (e *Encoder) DecodeGroup(w *[GroupSize]float32, indices []uint16, gain uint8) {
	e.DecodeGroupCoarse(w, indices, gain, 0)
}

// DecodeGroupCoarse is DecodeGroup from the coarse levels alone (successive refinement): the indices of the levels below from,
// which must be in 0 … Levels, are not read, and each such level counts with its mean.
func (e *Encoder) DecodeGroupCoarse(w *[GroupSize]float32, indices []uint16, gain uint8, from int) {
	c := e.codec
	var v [GroupSize]int32
	c.coarsePoints(&v, indices, from)
	scale := float32(e.step * float32(c.gains[gain]))
	centre := c.centres[from]
	for j := range w {
		w[j] = float32(scale * float32(float32(v[j])-centre[j%c.dim]))
	}
}
