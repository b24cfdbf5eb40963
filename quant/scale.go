package quant

import (
	"math"
	"slices"

	"github.com/x448/float16"

	"github.com/cosetq/cosetq/lattice"
)

const (
	// stepRatio is the grid of the step search: neighbours differ by 6 %, which costs at most 0.2 % of the error.
	stepRatio = 1.06
	// coarseStride is the grid distance of the first pass, coarseGroups the groups that pass looks at.
	coarseStride, coarseGroups = 3, 32
)

// searchStep returns the step of least squared error for a row in group order:
// first on a coarse grid around the nominal step and on a sample of groups,
// then on neighbouring grid points and the whole row.
func (q *run) searchStep(row []float32, energy float64) float32 {
	if energy == 0 {
		return 0
	}
	nominal := float64(q.opt.Codec.NominalStep()) * math.Sqrt(energy/float64(q.k))
	at := func(i int) float32 { return float32(nominal * math.Pow(stepRatio, float64(i))) }
	sample := row
	if q.groups > coarseGroups {
		sample = make([]float32, 0, coarseGroups*lattice.GroupSize)
		for i := range coarseGroups {
			g := i * q.groups / coarseGroups * lattice.GroupSize
			sample = append(sample, row[g:g+lattice.GroupSize]...)
		}
	}
	best := descend(func(i int) float64 { return q.distortion(sample, at(i)) }, 0, coarseStride)
	best = descend(func(i int) float64 { return q.distortion(row, at(i)) }, best, 1)
	return at(best)
}

// distortion is the squared error of a row at a step, +Inf where the step cannot code it.
func (q *run) distortion(row []float32, step float32) float64 {
	d, err := q.opt.Codec.Distortion(row, step)
	if err != nil {
		return math.Inf(1)
	}
	return d
}

// descend walks from start in strides to a local minimum of f, at most 24 strides away.
func descend(f func(int) float64, start, stride int) int {
	best, least := start, f(start)
	for _, dir := range []int{stride, -stride} {
		moved := false
		for i := best + dir; i <= start+24*stride && i >= start-24*stride; i += dir {
			v := f(i)
			if !(v < least) {
				break
			}
			best, least, moved = i, v, true
		}
		if moved {
			break
		}
	}
	return best
}

// scales is the set of float16 scales that the rows of a matrix may use, and
// their common power of two.
type scales struct {
	exponent int
	// entries are ascending float16 patterns; nil when every row has its own.
	entries []uint16
}

// newScaleTable chooses between 16 shared scales and one per row, and places
// the shared ones: Lloyd's algorithm on log(step), rows weighted by energy,
// since the error of a row grows with its energy and with the square of the
// relative change of its step. A row of zeros needs an entry 0.
func newScaleTable(steps []float32, energy []float64, k int) *scales {
	t := &scales{exponent: exponentFor(steps)}
	if !sharesScales(len(steps), k) {
		return t
	}
	type point struct{ x, w float64 }
	var pts []point
	zero := false
	for i, s := range steps {
		if s == 0 {
			zero = true
			continue
		}
		pts = append(pts, point{math.Log(float64(s)), energy[i]})
	}
	slices.SortFunc(pts, func(a, b point) int {
		switch {
		case a.x < b.x:
			return -1
		case a.x > b.x:
			return 1
		}
		return 0
	})
	count := scaleTable
	if zero {
		count--
	}
	centres := make([]float64, 0, count)
	for i := range min(count, len(pts)) {
		centres = append(centres, pts[(2*i+1)*len(pts)/(2*count)%len(pts)].x)
	}
	for range 50 {
		sum, weight := make([]float64, len(centres)), make([]float64, len(centres))
		j := 0
		for _, p := range pts {
			for j+1 < len(centres) && math.Abs(p.x-centres[j+1]) <= math.Abs(p.x-centres[j]) {
				j++
			}
			sum[j] += p.x * p.w
			weight[j] += p.w
		}
		for j := range centres {
			if weight[j] > 0 {
				centres[j] = sum[j] / weight[j]
			}
		}
		slices.Sort(centres)
	}
	t.entries = make([]uint16, 0, scaleTable)
	if zero {
		t.entries = append(t.entries, 0)
	}
	for _, c := range centres {
		t.entries = append(t.entries, t.half(float32(math.Exp(c))))
	}
	for len(t.entries) < scaleTable {
		t.entries = append(t.entries, t.entries[len(t.entries)-1])
	}
	return t
}

// sharesScales reports whether the rows of an n × k matrix share 16 scales: when that is smaller and a scale of its own would
// cost a row more than directBits per weight.
func sharesScales(n, k int) bool { return 16*n > 16*scaleTable+4*n && 16 > directBits*float64(k) }

// directBits is the cost in bits per weight up to which every row has a float16 scale of its own.
const directBits = 0.01

// exponentFor returns e such that the largest step is 2^e times a number in [2^7, 2^8).
// Float16 stays normal for steps 2^21 times smaller.
func exponentFor(steps []float32) int {
	largest := slices.Max(steps)
	if largest == 0 {
		return 0
	}
	_, e := math.Frexp(float64(largest))
	return e - 8
}

// half rounds a step to the float16 scale that stands for it; a step that is not zero never becomes zero.
func (t *scales) half(step float32) uint16 {
	h := float16.Fromfloat32(float32(math.Ldexp(float64(step), -t.exponent)))
	if h == 0 && step > 0 {
		h = 1
	}
	return uint16(h)
}

// step returns the step of a float16 scale.
func (t *scales) step(h uint16) float32 {
	return float32(math.Ldexp(float64(float16.Frombits(h).Float32()), t.exponent))
}

// choose returns the scale for a row whose best step is known: of the two
// shared scales around it, the one with the smaller error on the row.
func (t *scales) choose(c *lattice.Codec, row []float32, step float32) (uint16, error) {
	want := t.half(step)
	if t.entries == nil || step == 0 {
		return want, nil
	}
	hi, exact := slices.BinarySearch(t.entries, want)
	if exact {
		return want, nil
	}
	lo := hi - 1
	if hi == len(t.entries) {
		return t.entries[lo], nil
	}
	if lo < 0 || t.entries[lo] == 0 {
		return t.entries[hi], nil
	}
	a, err := c.Distortion(row, t.step(t.entries[lo]))
	if err != nil {
		return 0, err
	}
	b, err := c.Distortion(row, t.step(t.entries[hi]))
	if err != nil {
		return 0, err
	}
	if a < b {
		return t.entries[lo], nil
	}
	return t.entries[hi], nil
}

// store writes the scales of all rows to the matrix.
func (t *scales) store(m *Matrix, chosen []uint16) {
	if t.entries == nil {
		m.Scales, m.ScaleIndex = chosen, []byte{0}
		return
	}
	m.Scales = t.entries
	m.ScaleIndex = make([]byte, (m.N+1)/2)
	for r, h := range chosen {
		i, _ := slices.BinarySearch(t.entries, h)
		m.ScaleIndex[r/2] |= byte(i) << (4 * (r % 2))
	}
}
