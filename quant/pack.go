package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/x448/float16"

	"github.com/cosetq/cosetq/lattice"
)

// packer writes rows of digits and gain indices to the bytes of a matrix.
// Different rows may be put from different goroutines: a row shares no byte
// with another.
type packer struct {
	m      *Matrix
	layout *Layout
	shift  []uint8 // of each slot in its element
	offset []int   // of the element of each slot in those of a group
}

// packedGroups is how many groups of several rows are stored at a time: rows are stored side by side, so that a cache holds what
// they write to.
const packedGroups = 8

func newPacker(m *Matrix) *packer {
	l := LayoutOf(m.Codec)
	codes, gains := m.sizes(l)
	m.Codes, m.Gains = make([]byte, codes), make([]byte, gains)
	p := &packer{m: m, layout: l}
	for _, s := range l.Slots {
		p.shift = append(p.shift, uint8(math.Log2(float64(s.Divisor))))
		p.offset = append(p.offset, s.Element*m.Tile)
	}
	return p
}

// element returns the index in Codes, in elements, of element e of group g of row r.
func (m *Matrix) element(l *Layout, r, g, e int) int {
	return ((r/m.Tile*m.Groups+g)*l.Elements+e)*m.Tile + r%m.Tile
}

// gainByte returns the index in Gains of the byte that holds the gain of group g of row r, and its place in the byte.
func (m *Matrix) gainByte(l *Layout, r, g int) (at, place int) {
	per := len(l.GainDivisors)
	return (r/m.Tile*l.GainBytes(m.Groups)+g/per)*m.Tile + r%m.Tile, g % per
}

// putRows stores the digits [count][G][level][block] and the gain indices [count][G] of rows from first on.
func (p *packer) putRows(first, count int, indices []uint16, gains []uint8) {
	l, m := p.layout, p.m
	slots, per, step := len(l.Slots), len(l.GainDivisors), l.Elements*m.Tile
	offset, shift := p.offset[:slots], p.shift[:slots]
	for g0 := 0; g0 < m.Groups; g0 += packedGroups {
		n := min(packedGroups, m.Groups-g0)
		for i := range count {
			at := m.element(l, first+i, g0, 0)
			digits := indices[(i*m.Groups+g0)*slots:][:n*slots]
			switch {
			case l.ElementBytes > 1:
				for ; len(digits) > 0; digits, at = digits[slots:], at+step {
					for s, d := range digits[:slots] {
						to := m.Codes[2*(at+offset[s]):]
						binary.LittleEndian.PutUint16(to, binary.LittleEndian.Uint16(to)|d<<(shift[s]&15))
					}
				}
			case slots == l.Elements: // one digit in each
				for _, d := range digits {
					m.Codes[at] = byte(d)
					at += m.Tile
				}
			default:
				for ; len(digits) > 0; digits, at = digits[slots:], at+step {
					for s, d := range digits[:slots] {
						m.Codes[at+offset[s]] |= byte(d << (shift[s] & 15))
					}
				}
			}
			if per == 1 {
				continue
			}
			byteAt, place := m.gainByte(l, first+i, g0)
			for _, gain := range gains[i*m.Groups+g0:][:n] {
				m.Gains[byteAt] |= gain << (8 / per * place)
				if place++; place == per {
					byteAt, place = byteAt+m.Tile, 0
				}
			}
		}
	}
}

// DecodeRows writes the weights of rows n0 … n1−1, [(n1−n0) × K] row-major, turned back if they were coded under a rotation.
func (m *Matrix) DecodeRows(dst []float32, n0, n1 int) error {
	if n0 < 0 || n1 < n0 || n1 > m.N || len(dst) != (n1-n0)*m.K {
		return fmt.Errorf("quant: decode rows %d to %d of %d into %d numbers, want %d", n0, n1, m.N, len(dst), (n1-n0)*m.K)
	}
	l := LayoutOf(m.Codec)
	var w [lattice.GroupSize]float32
	for r := n0; r < n1; r++ {
		scale := m.Scale(r)
		row := dst[(r-n0)*m.K:][:m.K]
		for g := range m.Groups {
			m.decodeGroup(&w, l, r, g)
			for j, v := range w {
				if c := j*m.Groups + g; c < m.K {
					row[c] = float32(scale * v)
				}
			}
		}
		if m.Rotation != nil {
			m.Rotation.invert(row)
		}
	}
	return nil
}

// Scale returns the scale of row r, 2^e included.
func (m *Matrix) Scale(r int) float32 { return m.entryScale(m.entry(r)) }

// entry returns the place in Scales of the scale of row r.
func (m *Matrix) entry(r int) int {
	if len(m.Scales) != m.N || len(m.ScaleIndex) != 1 {
		return int(m.ScaleIndex[r/2]>>(4*(r%2))) & 15
	}
	return r
}

func (m *Matrix) entryScale(i int) float32 {
	return float32(math.Ldexp(float64(float16.Frombits(m.Scales[i]).Float32()), m.Exponent))
}

// stored returns element i of Codes.
func (m *Matrix) stored(i, bytes int) int {
	if bytes == 1 {
		return int(m.Codes[i])
	}
	return int(binary.LittleEndian.Uint16(m.Codes[2*i:]))
}

// decodeGroup writes gain·(v − centre) of group g of row r.
func (m *Matrix) decodeGroup(w *[lattice.GroupSize]float32, l *Layout, r, g int) {
	for j := range w {
		w[j] = -l.Centre[j]
	}
	blocks := lattice.GroupSize / l.Dim
	for s, slot := range l.Slots {
		v := m.stored(m.element(l, r, g, slot.Element), l.ElementBytes)
		entry := l.Codebook[(v/slot.Divisor%slot.Modulus+slot.Base)*l.Dim:][:l.Dim]
		level, block := s/blocks, s%blocks
		for j, x := range entry {
			w[block*l.Dim+j] += float32(l.LevelWeights[level] * float32(x))
		}
	}
	at, place, gain := 0, 0, l.GainValues[0]
	if len(l.GainDivisors) > 1 {
		at, place = m.gainByte(l, r, g)
		gain = l.GainValues[int(m.Gains[at])/int(l.GainDivisors[place])%len(l.GainValues)]
	}
	for j := range w {
		w[j] = float32(w[j] * gain)
	}
}

// Placeholder returns a matrix of the size that the code of a weight of n × k will have, which decodes to nothing of use.
// Whether a matrix has a row of zeros or not does not matter. r may be nil. Placeholders share their bytes, which are not to be written.
func Placeholder(c *lattice.Codec, n, k int, r *Rotation) *Matrix {
	m := &Matrix{N: n, K: k, Codec: c, Tile: tileFor(n), Groups: groupsOf(k), Rotation: r}
	codes, gains := m.sizes(LayoutOf(c))
	m.Codes, m.Gains = zeros(codes), zeros(gains)
	m.Scales, m.ScaleIndex = make([]uint16, n), []byte{0}
	if sharesScales(n, k) {
		m.Scales, m.ScaleIndex = make([]uint16, scaleTable), make([]byte, (n+1)/2)
	}
	return m
}

// places is how many placeholders begin at different bytes, since what begins at the same one is taken for the same data.
const places = 1 << 20

// nothing is what placeholders share: memory that is never touched.
var nothing struct {
	sync.Mutex
	bytes []byte
	next  int // place
}

func zeros(n int) []byte {
	nothing.Lock()
	defer nothing.Unlock()
	if len(nothing.bytes) < n+places {
		nothing.bytes = make([]byte, n+places)
	}
	nothing.next = (nothing.next + 1) % places
	return nothing.bytes[nothing.next:][:n:n]
}

// PlannedBytes returns what Matrix.Bytes will be for a weight of n × k without a rotation, before it is coded.
func PlannedBytes(c *lattice.Codec, n, k int) int64 { return Placeholder(c, n, k, nil).Bytes() }
