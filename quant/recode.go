package quant

import (
	"fmt"
	"math"
	"slices"

	"github.com/x448/float16"

	"github.com/cosetq/cosetq/lattice"
)

// Recoder codes a weight again and again as training moves it: every group to the nearest code of its row, gains included,
// with the lattice, the layout, the rotation and the sharing of scales of the matrix it was made from. The scales can be moved
// too.
//
// Different rows may be coded from different goroutines, each with a [RecodeScratch] of its own.
type Recoder struct {
	matrix  Matrix // without codes and gains
	coder   lattice.RowCoder
	layout  *Layout
	tables  [][]float32 // by level: leaders times the level's weight, [classes × d]
	indices []uint16    // [N][G][level][block]
	gains   []uint8     // [N][G]
	scale   []float32   // of every entry, 2^e included
}

// RecodeScratch is the working memory of one goroutine.
type RecodeScratch struct {
	grouped, steps, turned []float32
	sse                    []float64
}

// NewRecoder returns a recoder that starts from the codes of m. coder, if not nil, codes in the place of m.Codec with the same
// results.
func NewRecoder(m *Matrix, coder lattice.RowCoder) (*Recoder, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if coder == nil {
		coder = m.Codec
	}
	r := &Recoder{matrix: *m, coder: coder, layout: LayoutOf(m.Codec)}
	r.matrix.Codes, r.matrix.Gains = nil, nil
	r.matrix.Scales = slices.Clone(m.Scales)
	r.matrix.ScaleIndex = slices.Clone(m.ScaleIndex)
	for level := range m.Codec.Levels() {
		leaders := m.Codec.Leaders(level)
		var table []float32
		for k := range leaders.Len() {
			for _, x := range leaders.At(k) {
				table = append(table, float32(r.layout.LevelWeights[level]*float32(x)))
			}
		}
		r.tables = append(r.tables, table)
	}
	r.indices = make([]uint16, m.N*m.Groups*m.Codec.GroupIndices())
	r.gains = make([]uint8, m.N*m.Groups)
	m.unpack(r.layout, r.indices, r.gains)
	r.scale = make([]float32, len(m.Scales))
	for i := range m.Scales {
		r.scale[i] = m.entryScale(i)
	}
	return r, nil
}

// unpack reads the digits [N][G][level][block] and gain indices [N][G] of all rows: what putRows stored.
func (m *Matrix) unpack(l *Layout, indices []uint16, gains []uint8) {
	slots := len(l.Slots)
	for row := range m.N {
		for g := range m.Groups {
			at := (row*m.Groups + g)
			for s, slot := range l.Slots {
				indices[at*slots+s] = uint16(m.stored(m.element(l, row, g, slot.Element), l.ElementBytes) / slot.Divisor % slot.Modulus)
			}
			if len(l.GainDivisors) > 1 {
				b, place := m.gainByte(l, row, g)
				gains[at] = uint8(int(m.Gains[b]) / int(l.GainDivisors[place]) % len(l.GainValues))
			}
		}
	}
}

// Dims returns N and K.
func (r *Recoder) Dims() (n, k int) { return r.matrix.N, r.matrix.K }

// Scales returns the number of scales that can be moved, and Entry which of them a row uses.
func (r *Recoder) Scales() int { return len(r.scale) }

// Entry returns the number of the scale of a row.
func (r *Recoder) Entry(row int) int { return r.matrix.entry(row) }

// Scale returns scale i, 2^e included.
func (r *Recoder) Scale(i int) float32 { return r.scale[i] }

// The least and the largest float16 above zero.
const leastFloat16, largestFloat16 = 0x0001, 0x7bff

// SetScale moves scale i to the float16 value nearest to s ≥ 0, and returns it: whatever the scale was before, so that a training
// that is resumed has the scales of one that was not stopped. A scale that is zero stays so, and one that is not never becomes
// zero or infinite.
func (r *Recoder) SetScale(i int, s float32) float32 {
	if r.scale[i] == 0 {
		return 0
	}
	h := float16.Fromfloat32(float32(math.Ldexp(float64(s), -r.matrix.Exponent)))
	r.matrix.Scales[i] = min(max(uint16(h), leastFloat16), largestFloat16)
	r.scale[i] = r.matrix.entryScale(i)
	return r.scale[i]
}

// NewScratch returns working memory for stretches of at most rows rows.
func (r *Recoder) NewScratch(rows int) *RecodeScratch {
	return &RecodeScratch{
		grouped: make([]float32, rows*r.matrix.Groups*lattice.GroupSize), steps: make([]float32, rows),
		turned: make([]float32, r.matrix.K), sse: make([]float64, rows),
	}
}

// Encode codes rows n0 … n1−1 from their weights [(n1−n0) × K] and writes what the codes decode to, of the same shape, to
// values. Weights must be finite. Rows with a scale of zero decode to zeros.
func (r *Recoder) Encode(values, weights []float32, n0, n1 int, s *RecodeScratch) error {
	m := &r.matrix
	count, width := n1-n0, m.Groups*lattice.GroupSize
	if n0 < 0 || n1 < n0 || n1 > m.N || len(weights) != count*m.K || len(values) != len(weights) || len(s.steps) < count {
		return fmt.Errorf("quant: recode rows %d to %d of %d from %d weights", n0, n1, m.N, len(weights))
	}
	grouped := s.grouped[:count*width]
	for row := range count {
		s.steps[row] = r.scale[m.entry(n0+row)]
		w := weights[row*m.K:][:m.K]
		if m.Rotation != nil {
			copy(s.turned, w)
			w = s.turned
			apply(m.Rotation, w)
		}
		group(grouped[row*width:][:width], w, m.Groups)
	}
	slots := m.Codec.GroupIndices()
	indices, gains := r.indices[n0*m.Groups*slots:n1*m.Groups*slots], r.gains[n0*m.Groups:n1*m.Groups]
	b := lattice.RowBatch{Weights: grouped, Width: width, Steps: s.steps[:count]}
	if err := r.coder.EncodeRows(indices, gains, s.sse[:count], b); err != nil {
		return err
	}
	r.decode(values, n0, n1)
	return nil
}

// group puts a row [K] into group order, zeros in the place of columns past K.
func group(dst, row []float32, groups int) {
	if len(row) == lattice.GroupSize*groups {
		r0, r1, r2, r3 := row[:groups], row[groups:][:groups], row[2*groups:][:groups], row[3*groups:][:groups]
		r4, r5, r6, r7 := row[4*groups:][:groups], row[5*groups:][:groups], row[6*groups:][:groups], row[7*groups:][:groups]
		for i := range groups {
			*(*[lattice.GroupSize]float32)(dst[i*lattice.GroupSize:]) = [...]float32{r0[i], r1[i], r2[i], r3[i], r4[i], r5[i], r6[i], r7[i]}
		}
		return
	}
	for j := range lattice.GroupSize {
		part := row[min(j*groups, len(row)):min((j+1)*groups, len(row))]
		for i, v := range part {
			dst[i*lattice.GroupSize+j] = v
		}
		for i := len(part); i < groups; i++ {
			dst[i*lattice.GroupSize+j] = 0
		}
	}
}

// Values writes what rows n0 … n1−1 decode to, [(n1−n0) × K].
func (r *Recoder) Values(values []float32, n0, n1 int) { r.decode(values, n0, n1) }

// decode does what Matrix.DecodeRows does, with the same rounding.
func (r *Recoder) decode(values []float32, n0, n1 int) {
	m, l := &r.matrix, r.layout
	d, blocks, levels := l.Dim, lattice.GroupSize/l.Dim, len(r.tables)
	slots := blocks * levels
	var w [lattice.GroupSize]float32
	for row := n0; row < n1; row++ {
		scale := r.scale[m.entry(row)]
		out := values[(row-n0)*m.K:][:m.K]
		for g := range m.Groups {
			at := row*m.Groups + g
			digits := r.indices[at*slots:][:slots]
			gain := l.GainValues[r.gains[at]]
			for b := range blocks {
				p := w[b*d:][:d]
				first := r.tables[0][int(digits[b])*d:][:d]
				for j := range p {
					p[j] = first[j] - l.Centre[j]
				}
				for level := 1; level < levels; level++ {
					entry := r.tables[level][int(digits[level*blocks+b])*d:][:d]
					for j := range p {
						p[j] += entry[j]
					}
				}
			}
			for j, c := 0, g; j < lattice.GroupSize && c < m.K; j, c = j+1, c+m.Groups {
				out[c] = float32(scale * float32(w[j]*gain))
			}
		}
		if m.Rotation != nil {
			m.Rotation.invert(out)
		}
	}
}

// Matrix returns the weight as it is coded now.
func (r *Recoder) Matrix() *Matrix {
	m := r.matrix
	m.Scales, m.ScaleIndex = slices.Clone(m.Scales), slices.Clone(m.ScaleIndex)
	p := newPacker(&m)
	p.putRows(0, m.N, r.indices, r.gains)
	return &m
}
