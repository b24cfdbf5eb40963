package lattice

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
)

// TieRuleVersion numbers the rule by which a class with several shortest points picks its leader (see the package
// comment). A change of the rule changes the meaning of stored codes and needs a new number.
const TieRuleVersion = 1

// MaxClasses is the largest q^d for which a table of leaders is made.
const MaxClasses = 1 << 16

// tieBreak is the ε of tie rule 1: 1e-7·(frac(√p_j) − 0.47) for the first eight primes p_j. It is far below the
// smallest distance to a cell boundary that is not a tie (order 1/q²) and far above the rounding of float64.
var tieBreak = [MaxDim]float64{
	-5.578643762690482e-09,
	2.6205080756887722e-08,
	-2.3393202250021016e-08,
	1.7575131106459074e-08,
	-1.5337520964460017e-08,
	1.3555127546398915e-08,
	-3.468943743823394e-08,
	-1.1110105645932599e-08,
}

// Leaders is the table of coset leaders of Λ/qΛ: for every class index k the point of the class that lies in q·V, V the
// Voronoi cell of 0. It is read-only and shared.
type Leaders struct {
	lattice Lattice
	radix   int
	points  []int32 // [q^d][d], integer coordinates
	crc     uint32
}

type leadersKey struct {
	lattice Lattice
	radix   int
}

var leadersCache sync.Map // leadersKey → func() *Leaders

// Leaders returns the table for radix q, building it on first use. It fails when q < 2 or q^d exceeds MaxClasses.
func (l Lattice) Leaders(q int) (*Leaders, error) {
	if err := l.checkRadix(q, MaxClasses); err != nil {
		return nil, err
	}
	build, _ := leadersCache.LoadOrStore(leadersKey{l, q}, sync.OnceValue(func() *Leaders { return buildLeaders(l, q) }))
	return build.(func() *Leaders)(), nil
}

// checkRadix fails unless q >= 2 and q^d <= limit.
func (l Lattice) checkRadix(q int, limit uint64) error {
	if !l.valid() {
		return fmt.Errorf("lattice: no lattice given: want z1 to z8, d4 or e8")
	}
	if q < 2 {
		return fmt.Errorf("lattice: radix %d of %v is too small: want 2 or more", q, l)
	}
	if _, ok := l.classes(q, limit); !ok {
		return fmt.Errorf("lattice: radix %d of %v is too large: %d^%d classes exceed %d", q, l, q, l.Dim(), limit)
	}
	return nil
}

// classes returns q^d, or false when it exceeds limit.
func (l Lattice) classes(q int, limit uint64) (uint64, bool) {
	n := uint64(1)
	for range l.Dim() {
		if n > limit/uint64(q) {
			return 0, false
		}
		n *= uint64(q)
	}
	return n, true
}

func buildLeaders(l Lattice, q int) *Leaders {
	d := l.Dim()
	classes, _ := l.classes(q, MaxClasses)
	t := &Leaders{lattice: l, radix: q, points: make([]int32, int(classes)*d)}
	sum := crc32.NewIEEE()
	bytes := make([]byte, 4*d)
	for k := range t.Len() {
		leader := t.At(k)
		l.leaderOf(leader, uint32(k), q)
		for j, c := range leader {
			binary.LittleEndian.PutUint32(bytes[4*j:], uint32(c))
		}
		sum.Write(bytes)
	}
	t.crc = sum.Sum32()
	return t
}

// leaderOf writes to dst[:d] the leader of class k by the tie rule: p − q·Q(p/q + ε), p = G·digits(k).
func (l Lattice) leaderOf(dst []int32, k uint32, q int) {
	d := l.Dim()
	var b, p, v [MaxDim]int32
	var x [MaxDim]float64
	l.Digits(b[:], k, q)
	l.Point(p[:], b[:])
	for j := range d {
		x[j] = float64(p[j])*l.Unit()/float64(q) + tieBreak[j]
	}
	l.Nearest(v[:], x[:])
	for j := range d {
		dst[j] = p[j] - int32(q)*v[j]
	}
}

// Lattice returns the lattice of the table.
func (t *Leaders) Lattice() Lattice { return t.lattice }

// Radix returns q.
func (t *Leaders) Radix() int { return t.radix }

// Len returns the number of classes, q^d.
func (t *Leaders) Len() int { return len(t.points) / t.lattice.Dim() }

// At returns the leader of class k, [d] integer coordinates. The slice is a view of the table and must not be written.
func (t *Leaders) At(k int) []int32 {
	d := t.lattice.Dim()
	return t.points[k*d : (k+1)*d : (k+1)*d]
}

// CRC32 returns the IEEE CRC-32 of the table as little-endian int32 in class order: the fingerprint of the tie rule.
func (t *Leaders) CRC32() uint32 { return t.crc }

// mean returns the mean of all leaders, [d] integer coordinates. It is not 0 when ties are broken one way.
func (t *Leaders) mean() []float64 {
	d := t.lattice.Dim()
	mean := make([]float64, d)
	for i, c := range t.points {
		mean[i%d] += float64(c)
	}
	for j := range mean {
		mean[j] /= float64(t.Len())
	}
	return mean
}

// maxAbs returns the largest magnitude of a coordinate, and of the sum of two coordinates' magnitudes, of any leader.
func (t *Leaders) maxAbs() (one, two int32) {
	for k := range t.Len() {
		var first, second int32
		for _, c := range t.At(k) {
			if c = max(c, -c); c > first {
				first, second = c, first
			} else if c > second {
				second = c
			}
		}
		one, two = max(one, first), max(two, first+second)
	}
	return one, two
}
