package lattice

import "math/rand/v2"

// offset returns what is added to a scaled vector before rounding: the centre of the code, and the dither of the vector's
// index.
func (q *Quantizer) offset(index uint64) [MaxDim]float64 {
	var offset [MaxDim]float64
	if q.config.Dither {
		q.config.Lattice.dither(&offset, q.config.Seed, index)
	}
	for j, c := range q.centre {
		offset[j] += c
	}
	return offset
}

// dither writes to z[:d] a vector uniform on the Voronoi cell of 0, in real coordinates: a vector uniform on the fundamental
// parallelepiped less its nearest lattice point.
func (l Lattice) dither(z *[MaxDim]float64, seed, index uint64) {
	rng := rand.New(rand.NewPCG(seed, index))
	var v [MaxDim]int32
	for _, row := range l.Generator() {
		u := rng.Float64() * l.Unit()
		for j, c := range row {
			z[j] += float64(u * float64(c))
		}
	}
	l.Nearest(v[:], z[:])
	for j := range l.Dim() {
		z[j] -= float64(v[j]) * l.Unit()
	}
}

// meanPairs is the number of pairs of classes from which the mean of a large code is estimated.
const meanPairs = 1 << 15

// leaderMean returns the mean of the leaders for radix q, in integer coordinates. Without a table it is estimated from a fixed
// sample of pairs of opposite classes, whose leaders cancel exactly unless they are tie-broken.
func (l Lattice) leaderMean(q int, table *Leaders) []float64 {
	if table != nil {
		return table.mean()
	}
	d := l.Dim()
	mean := make([]float64, d)
	rng := rand.New(rand.NewPCG(TieRuleVersion, uint64(q)))
	classes, _ := l.classes(q, maxQuantizerClasses)
	var p, leader, opposite [MaxDim]int32
	for range meanPairs {
		k := uint32(rng.Uint64N(classes))
		l.leaderOf(leader[:], k, q)
		for j := range d {
			p[j] = -leader[j]
		}
		l.leaderOf(opposite[:], l.Class(p[:], q), q)
		for j := range d {
			mean[j] += float64(leader[j] + opposite[j])
		}
	}
	for j := range mean {
		mean[j] /= 2 * meanPairs
	}
	return mean
}
