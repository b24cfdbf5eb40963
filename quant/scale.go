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

// smallestStep keeps steps, their reciprocals and the level weights in float32's normal range. Rows with weights so small
// (10^-29 and less) add nothing that float32 activations could carry.
const smallestStep = 0x1p-100

// searchSteps sets steps to those of least squared error for rows in group
// order: first on a coarse grid around the nominal step and on a sample of
// groups, then on neighbouring grid points and the whole row.
func (q *run) searchSteps(steps []float32, rows lattice.RowBatch, energy []float64) error {
	s := newSearch(q.coder(), len(steps))
	nominal := float64(q.opt.Codec.NominalStep())
	for i := range s.rows {
		if step := nominal * math.Sqrt(energy[i]/float64(q.k)); step >= smallestStep {
			s.rows[i] = descent{nominal: step}
		} // else the row decodes to zeros
	}
	sample := rows
	if q.groups > coarseGroups {
		sample = lattice.RowBatch{Width: coarseGroups * lattice.GroupSize}
		for r := range steps {
			for i := range coarseGroups {
				g := r*rows.Width + i*q.groups/coarseGroups*lattice.GroupSize
				sample.Weights = append(sample.Weights, rows.Weights[g:g+lattice.GroupSize]...)
			}
		}
	}
	if err := s.descend(sample, coarseStride); err != nil {
		return err
	}
	if err := s.descend(rows, 1); err != nil {
		return err
	}
	for i := range steps {
		steps[i] = s.rows[i].step(s.rows[i].best)
	}
	return nil
}

// search looks for the best steps of many rows at once.
type search struct {
	coder lattice.RowCoder
	rows  []descent
	at    []int32   // rows that ask for a value
	steps []float32 // at which step
	sse   []float64 // and the value
}

func newSearch(coder lattice.RowCoder, rows int) *search {
	return &search{
		coder: coder, rows: make([]descent, rows),
		at: make([]int32, 0, rows), steps: make([]float32, 0, rows), sse: make([]float64, rows),
	}
}

// descend takes every row to a local minimum on a grid of the given stride.
func (s *search) descend(rows lattice.RowBatch, stride int) error {
	for i := range s.rows {
		s.rows[i].begin(stride)
	}
	for {
		s.at, s.steps = s.at[:0], s.steps[:0]
		for i := range s.rows {
			if d := &s.rows[i]; !d.done {
				s.at, s.steps = append(s.at, int32(i)), append(s.steps, d.step(d.at))
			}
		}
		if len(s.at) == 0 {
			return nil
		}
		rows.At, rows.Steps = s.at, s.steps
		if err := s.coder.Distortions(s.sse[:len(s.at)], rows); err != nil {
			return err
		}
		for i, r := range s.at {
			s.rows[r].tell(s.sse[i])
		}
	}
}

// descent walks from a point of a grid in strides to a local minimum, at most
// 24 strides away: up while that is better, else down.
type descent struct {
	nominal     float64 // the step at 0; 0 for a row that needs no step
	start, best int
	at          int // where a value is asked for
	dir, stride int // dir is 0 until the value at start is known
	least       float64
	done        bool
}

// step returns the step at a point of the grid.
func (d *descent) step(i int) float32 { return float32(d.nominal * math.Pow(stepRatio, float64(i))) }

// begin starts a walk where the last one ended.
func (d *descent) begin(stride int) {
	d.start, d.at, d.dir, d.stride, d.done = d.best, d.best, 0, stride, d.nominal == 0
}

// tell takes the value asked for.
func (d *descent) tell(v float64) {
	switch {
	case d.dir == 0:
		d.least, d.dir = v, d.stride
	case v < d.least:
		d.best, d.least = d.at, v
	case d.dir > 0 && d.best == d.start:
		d.dir = -d.stride
	default:
		d.done = true
	}
	d.at = d.best + d.dir
	if d.at > d.start+24*d.stride || d.at < d.start-24*d.stride {
		d.done = true
	}
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
	count = min(count, len(pts))
	for i := range count {
		centres = append(centres, pts[(2*i+1)*len(pts)/(2*count)].x)
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

// choose sets chosen to the scales for rows whose best steps are known: of the
// two shared scales around a step, the one with the smaller error on the row.
func (t *scales) choose(chosen []uint16, coder lattice.RowCoder, rows lattice.RowBatch) error {
	trial := lattice.RowBatch{Weights: rows.Weights, Width: rows.Width, ID: rows.ID}
	var pairs [][2]uint16
	for r, step := range rows.Steps {
		lo, hi := t.between(step)
		chosen[r] = hi
		if lo != hi {
			pairs = append(pairs, [2]uint16{lo, hi})
			trial.At = append(trial.At, int32(r), int32(r))
			trial.Steps = append(trial.Steps, t.step(lo), t.step(hi))
		}
	}
	if pairs == nil {
		return nil
	}
	sse := make([]float64, len(trial.At))
	if err := coder.Distortions(sse, trial); err != nil {
		return err
	}
	for i, pair := range pairs {
		if sse[2*i] < sse[2*i+1] {
			chosen[trial.At[2*i]] = pair[0]
		}
	}
	return nil
}

// between returns the scales around a step that a row may use, twice the same if there is only one.
func (t *scales) between(step float32) (lo, hi uint16) {
	want := t.half(step)
	if t.entries == nil || step == 0 {
		return want, want
	}
	i, exact := slices.BinarySearch(t.entries, want)
	switch {
	case exact:
		return want, want
	case i == len(t.entries):
		return t.entries[i-1], t.entries[i-1]
	case i == 0 || t.entries[i-1] == 0:
		return t.entries[i], t.entries[i]
	}
	return t.entries[i-1], t.entries[i]
}

// fadingRatio is how many times too large a scale is for a row that counts as faded: nearly all of it rounds to one codeword.
const fadingRatio = 4

// faded counts the rows with some energy whose scale is far too large for them, or that have none.
func (t *scales) faded(chosen []uint16, steps []float32, energy []float64) int {
	count := 0
	for r, h := range chosen {
		if energy[r] > 0 && (steps[r] == 0 || t.step(h) > fadingRatio*steps[r]) {
			count++
		}
	}
	return count
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
