package lattice

import "math"

// packedD4 is the fast path of the group encoder: the same results as encodeGroup, bit for bit, for D4 with up to four radices
// that are powers of two. The four coordinates of a point are kept in one uint64, 16 bits each, the first lowest, with a bias
// of packedBias that keeps them positive, so that adding, subtracting and exact dividing by a power of two never carry
// from one coordinate into the next.
type packedD4 struct {
	levels []packedLevel
}

type packedLevel struct {
	leaders []uint64 // Σ_j leader_j·2^(16j), modulo 2^64
	mask    uint64   // q − 1
	shift   uint     // log2 q
	zero    uint64   // the biased origin after division by q
}

const (
	packedBias   = 1 << 14
	packedOnes   = 0x0001_0001_0001_0001
	packedLevels = 4
	// packedRound rounds like roundBias and leaves the biased integer in the low 16 bits of the float.
	packedRound = roundBias + packedBias
)

// newPackedD4 returns the fast path of c, or nil when it does not apply. The bias stays a multiple of every radix since the
// product of the radices is at most maxRadixProduct.
func newPackedD4(c *Codec) *packedD4 {
	if c.lattice != D4 || len(c.radices) > packedLevels {
		return nil
	}
	t := new(packedD4)
	zero := uint64(packedBias * packedOnes)
	for m, q := range c.radices {
		if q&(q-1) != 0 {
			return nil
		}
		level := packedLevel{leaders: make([]uint64, c.leaders[m].Len()), mask: uint64(q - 1)}
		for 1<<level.shift < q {
			level.shift++
		}
		zero >>= level.shift
		level.zero = zero
		for k := range level.leaders {
			for j, leader := range c.leaders[m].At(k) {
				level.leaders[k] += uint64(int64(leader)) << (16 * j)
			}
		}
		t.levels = append(t.levels, level)
	}
	return t
}

// digits returns the class indices of a packed point, level m in bits 16m and up, and whether the point is in the code.
func (t *packedD4) digits(point uint64) (classes uint64, ok bool) {
	for m := range t.levels {
		level := &t.levels[m]
		mask, shift := level.mask, level.shift&15 // the mask spares the shifts their overflow checks
		// b = G⁻¹·p mod q (see Coordinates); the bias vanishes modulo q.
		half := point * packedOnes >> 49
		x3 := point >> 48
		b0, b1, b2, b3 := -half&mask, (point-half)&mask, -(point>>32+x3)&mask, -x3&mask
		k := b0 | b1<<shift | b2<<(2*shift&63) | b3<<(3*shift&63)
		point = (point - level.leaders[k]) >> shift
		classes |= k << (16 * uint(m) & 63)
	}
	return classes, point == t.levels[len(t.levels)-1].zero
}

// residualKey orders coordinates by the magnitude of a residual, the lowest coordinate first among equals, and carries the
// coordinate and the sign.
func residualKey(r float32, j uint64) uint64 {
	bits := uint64(math.Float32bits(r))
	return bits&^(1<<31)<<3 | (3-j)<<1 | bits>>31
}

// keyStep returns the packed step of one, in the residual's direction, in the key's coordinate.
func keyStep(key uint64) uint64 { return (1 - 2*(key&1)) << (16 * (3 - key>>1&3) & 63) }

// keySize returns the magnitude of the key's residual.
func keySize(key uint64) float32 { return math.Float32frombits(uint32(key >> 3)) }

// nearestPackedD4 is nearestD32 for n = 4 on a packed point, without branches.
func nearestPackedD4(y0, y1, y2, y3 float32) (point uint64, err float32) {
	t0, t1, t2, t3 := y0+packedRound, y1+packedRound, y2+packedRound, y3+packedRound
	r0, r1, r2, r3 := y0-(t0-packedRound), y1-(t1-packedRound), y2-(t2-packedRound), y3-(t3-packedRound)
	b0, b1 := uint64(math.Float32bits(t0)), uint64(math.Float32bits(t1))
	b2, b3 := uint64(math.Float32bits(t2)), uint64(math.Float32bits(t3))
	point = b0&0xffff | b1&0xffff<<16 | b2&0xffff<<32 | b3<<48
	err = (float32(r0*r0) + float32(r1*r1)) + (float32(r2*r2) + float32(r3*r3))
	odd := -((b0 ^ b1 ^ b2 ^ b3) & 1)
	worst := max(residualKey(r0, 0), residualKey(r1, 1), residualKey(r2, 2), residualKey(r3, 3))
	point += keyStep(worst) & odd
	extra := 1 - float32(2*keySize(worst))
	return point, err + math.Float32frombits(math.Float32bits(extra)&uint32(odd))
}

// blockD4 is one block of a group in the fast path.
type blockD4 struct {
	classes  uint64
	err      float32
	overload bool
}

func (e *Encoder) encodeGroupD4(indices []uint16, x *[GroupSize]float32) (gain uint8, sqErr float32) {
	c := e.codec
	t := c.packed
	centre := (*[4]float32)(c.centre)
	best := float32(math.Inf(1))
	var classes [2]uint64
	for g, overloads := len(c.gains)-1, 0; g >= 0 && overloads < maxOverloads; g-- {
		square, inverse := float32(c.gains[g]*c.gains[g]), e.inverse[g]
		var code [2]blockD4
		var y [2][MaxDim]float32
		var sum float32
		for b := range code {
			y0 := float32(x[4*b]*inverse) + centre[0]
			y1 := float32(x[4*b+1]*inverse) + centre[1]
			y2 := float32(x[4*b+2]*inverse) + centre[2]
			y3 := float32(x[4*b+3]*inverse) + centre[3]
			if max(abs32(y0), abs32(y1), abs32(y2), abs32(y3)) < c.reach.one+2 {
				point, err := nearestPackedD4(y0, y1, y2, y3)
				classes, ok := t.digits(point)
				code[b] = blockD4{classes, err, !ok}
			} else {
				code[b].overload = true
			}
			bound := code[b].err
			if code[b].overload {
				y[b] = [MaxDim]float32{y0, y1, y2, y3}
				bound = max(bound, c.reach.bound(&y[b], 4))
			}
			sum += bound
		}
		if code[0].overload || code[1].overload {
			overloads++
			if float32(square*sum) > best {
				continue
			}
			for b := range code {
				if code[b].overload {
					code[b].classes, code[b].err = c.clampD4(&y[b])
				}
			}
			sum = code[0].err + code[1].err
		}
		if err := float32(square * sum); err <= best {
			best, gain = err, uint8(g)
			classes = [2]uint64{code[0].classes, code[1].classes}
		}
	}
	for m := range t.levels {
		indices[2*m], indices[2*m+1] = uint16(classes[0]>>(16*m)), uint16(classes[1]>>(16*m))
	}
	return gain, best
}

// clampD4 is clamp on a packed point.
func (c *Codec) clampD4(y *[MaxDim]float32) (classes uint64, err float32) {
	centre := (*[4]float32)(c.centre)
	var point uint64
	for s, ok := c.reach.shrink(y, 4), false; !ok; s = float32(s * rayShrink) {
		point, _ = nearestPackedD4(
			float32(s*(y[0]-centre[0]))+centre[0],
			float32(s*(y[1]-centre[1]))+centre[1],
			float32(s*(y[2]-centre[2]))+centre[2],
			float32(s*(y[3]-centre[3]))+centre[3])
		classes, ok = c.packed.digits(point)
	}
	for moves := 0; ; moves++ {
		r0 := y[0] - float32(int32(point&0xffff)-packedBias)
		r1 := y[1] - float32(int32(point>>16&0xffff)-packedBias)
		r2 := y[2] - float32(int32(point>>32&0xffff)-packedBias)
		r3 := y[3] - float32(int32(point>>48)-packedBias)
		key := [4]uint64{residualKey(r0, 0), residualKey(r1, 1), residualKey(r2, 2), residualKey(r3, 3)}
		moved, ok := uint64(0), false
		if moves < maxRefinements {
			moved, ok = c.packed.refine(&classes, point, &key)
		}
		if !ok {
			return classes, (float32(r0*r0) + float32(r1*r1)) + (float32(r2*r2) + float32(r3*r3))
		}
		point = moved
	}
}

// refine is Codec.refine on a packed point with the keys of its residuals, which it sorts.
func (t *packedD4) refine(classes *uint64, point uint64, key *[4]uint64) (moved uint64, ok bool) {
	k0, k1 := max(key[0], key[1]), min(key[0], key[1])
	k2, k3 := max(key[2], key[3]), min(key[2], key[3])
	k1, k2, k0, k3 = max(k1, k3), min(k0, k2), max(k0, k2), min(k1, k3)
	*key = [4]uint64{k0, max(k1, k2), min(k1, k2), k3}
	for i := range 3 {
		for j := i + 1; j < 4; j++ {
			if keySize(key[i])+keySize(key[j]) <= 1 {
				break
			}
			moved = point + keyStep(key[i]) + keyStep(key[j])
			if k, in := t.digits(moved); in {
				*classes = k
				return moved, true
			}
		}
	}
	for i := range 3 {
		for j := 3; j > i; j-- {
			if keySize(key[i])-keySize(key[j]) <= 1 {
				break
			}
			moved = point + keyStep(key[i]) - keyStep(key[j])
			if k, in := t.digits(moved); in {
				*classes = k
				return moved, true
			}
		}
	}
	return point, false
}
