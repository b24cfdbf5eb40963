package models

import "math/rand/v2"

// random draws numbers that are the same on every machine: it uses integer arithmetic and exactly rounded operations
// only, where the standard library's normal numbers go through exp and log, which differ between processors.
type random struct{ pcg *rand.PCG }

func newRandom(seed, stream uint64) random { return random{rand.NewPCG(seed, stream)} }

// unit is uniform in [0, 1).
func (r random) unit() float64 { return float64(r.pcg.Uint64()>>11) / (1 << 53) }

// between is uniform in [lo, hi).
func (r random) between(lo, hi float64) float64 { return lo + float64((hi-lo)*r.unit()) }

// below is uniform in 0 … n-1, for small n.
func (r random) below(n int) int { return int(r.pcg.Uint64() >> 33 % uint64(n)) }

// normal is near enough to N(0, 1): the sum of four uniform numbers, scaled to variance one. It stays within ±3.5.
func (r random) normal() float64 {
	const scale = 1.7320508075688772 // √3, as four uniform numbers have the variance 1/3
	bits := r.pcg.Uint64()
	sum := bits&0xffff + bits>>16&0xffff + bits>>32&0xffff + bits>>48
	return float64(scale * (float64(sum)/(1<<16) - 2))
}
