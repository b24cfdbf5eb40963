package quant

import (
	"fmt"

	"github.com/cosetq/cosetq/lattice"
)

// Matrix is one coded weight W [N × K] in the byte layout of docs/format.md:
// what the file holds and the kernels read. It is immutable once built.
type Matrix struct {
	N, K  int
	Codec *lattice.Codec
	// Tile is T, the rows stored side by side; Groups is G = ⌈K/8⌉.
	Tile, Groups int
	// Codes holds the digits, [Tiles()][Groups][Layout().Elements][Tile]
	// elements of Layout().ElementBytes bytes, little endian.
	Codes []byte
	// Gains holds the packed gain indices, [Tiles()][⌈Groups/perByte⌉][Tile],
	// or one zero byte for a codec with a single gain.
	Gains []byte
	// Scales are float16 bit patterns: 16 of them with a 4-bit ScaleIndex per
	// row, or one per row with ScaleIndex a single zero byte.
	Scales     []uint16
	ScaleIndex []byte
	// Exponent is e: every scale is multiplied by 2^e.
	Exponent int
	// Rotation is what W was turned by before it was coded; nil for nothing.
	Rotation *Rotation
	// Release, if set, lets the system take back the memory of Codes and Gains,
	// which lie in a file, until they are read again.
	Release func() `json:"-"`
}

// Tiles returns the number of row tiles, ⌈N/Tile⌉.
func (m *Matrix) Tiles() int { return (m.N + m.Tile - 1) / m.Tile }

// Bytes returns what the matrix takes in a file: codes, gains, scales, indices,
// the signs of a rotation and the byte of its exponent. The codebook, shared by all matrices of one
// codec, is counted once per model by the caller (Layout.Codebook).
func (m *Matrix) Bytes() int64 {
	bytes := int64(len(m.Codes)) + int64(len(m.Gains)) + 2*int64(len(m.Scales)) + int64(len(m.ScaleIndex)) + 1
	if m.Rotation != nil {
		bytes += int64(len(m.Rotation.Signs))
	}
	return bytes
}

// BitsPerWeight is 8·Bytes/(N·K): everything stored for this matrix, padding
// included, the shared codebook left out.
func (m *Matrix) BitsPerWeight() float64 {
	return 8 * float64(m.Bytes()) / (float64(m.N) * float64(m.K))
}

// sizes are the bytes of Codes and Gains.
func (m *Matrix) sizes(l *Layout) (codes, gains int) {
	codes, gains = m.Tiles()*m.Groups*l.Elements*l.ElementBytes*m.Tile, 1
	if len(l.GainValues) > 1 {
		gains = m.Tiles() * l.GainBytes(m.Groups) * m.Tile
	}
	return codes, gains
}

// Validate checks that the sizes of all parts agree.
func (m *Matrix) Validate() error {
	if m.N <= 0 || m.K <= 0 || m.Codec == nil {
		return fmt.Errorf("quant: matrix %d×%d without a codec", m.N, m.K)
	}
	if m.Tile < 1 || m.Tile > maxTile || m.Groups != groupsOf(m.K) {
		return fmt.Errorf("quant: tile %d (1..%d) or groups %d (want %d) do not fit K=%d", m.Tile, maxTile, m.Groups, groupsOf(m.K), m.K)
	}
	l := LayoutOf(m.Codec)
	codes, gains := m.sizes(l)
	if len(m.Codes) != codes {
		return fmt.Errorf("quant: %d bytes of codes, want %d for %d×%d", len(m.Codes), codes, m.N, m.K)
	}
	if len(m.Gains) != gains {
		return fmt.Errorf("quant: %d bytes of gains, want %d", len(m.Gains), gains)
	}
	indexed := len(m.Scales) == scaleTable && len(m.ScaleIndex) == (m.N+1)/2
	direct := len(m.Scales) == m.N && len(m.ScaleIndex) == 1
	if !indexed && !direct {
		return fmt.Errorf("quant: %d scales with %d index bytes fit neither the indexed nor the direct form of %d rows", len(m.Scales), len(m.ScaleIndex), m.N)
	}
	if m.Rotation != nil {
		return m.Rotation.validate(m.K)
	}
	return nil
}

const (
	maxTile    = 64
	scaleTable = 16
)

func groupsOf(k int) int { return (k + lattice.GroupSize - 1) / lattice.GroupSize }

// tileFor returns the largest tile of at most 64 rows that wastes at most
// 0.2 % of the rows, else the one that wastes least.
func tileFor(n int) int {
	best, waste := 1, n
	for t := min(n, maxTile); t >= 1; t-- {
		w := (n+t-1)/t*t - n
		if w*500 <= n {
			return t
		}
		if w < waste {
			best, waste = t, w
		}
	}
	return best
}
