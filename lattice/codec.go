package lattice

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// GroupSize is the number of consecutive weights that share one gain index.
	GroupSize = 8
	// MaxLevels is the largest number of radices of a codec.
	MaxLevels = 8
	// MaxGains is the largest number of gains of a codec.
	MaxGains = 16
	// MaxGain is the largest gain.
	MaxGain = 127
	// maxLeader is the largest coordinate of a leader: codebooks hold them in int8.
	maxLeader = 127
	// maxRadixProduct bounds q_0·q_1·…; it keeps every point of a code, and every intermediate of the encoder, in 15 bits.
	maxRadixProduct = 1 << 12
)

// Codec is a fixed-length code of rows of float32 weights: a lattice whose dimension divides GroupSize, radices from
// the finest level to the coarsest, and gains. It is immutable and safe for concurrent use.
//
// A group of GroupSize weights is coded as GroupSize/d blocks of d weights, each with one class index per level, and one
// gain index for the group. With the integer coordinates v of a block (see Points),
//
//	weight_j = step · gain · (v_j − centre_j),    v = Σ_m q_0·…·q_{m−1} · leader_m[k_m]
type Codec struct {
	lattice Lattice
	radices []int
	gains   []int
	leaders []*Leaders
	weights []int32     // Π of the radices below each level
	centre  []float32   // [d], integer coordinates
	centres [][]float32 // [level][d]: the centre of the levels from this one up, the last being 0
	dim     int
	reach   reach
	packed  *packedD4 // the fast path, nil when it does not apply
	nominal func() float64
}

// NewCodec returns the codec of a lattice, radices (finest level first) and gains (ascending; none means a single gain
// 1). It fails when the lattice dimension does not divide GroupSize, a table of leaders would exceed MaxClasses, the
// radices multiply to more than 4096, a leader has a coordinate beyond int8, or the gains are not distinct, ascending and
// in 1 … MaxGain.
func NewCodec(l Lattice, radices, gains []int) (*Codec, error) {
	if !l.valid() || GroupSize%l.Dim() != 0 {
		return nil, fmt.Errorf("lattice: codec lattice %v does not tile a group of %d weights: want z1, z2, z4, z8, d4 or e8",
			l, GroupSize)
	}
	if len(radices) == 0 || len(radices) > MaxLevels {
		return nil, fmt.Errorf("lattice: codec has %d radices: want 1 to %d", len(radices), MaxLevels)
	}
	if err := checkGains(gains); err != nil {
		return nil, err
	}
	if len(gains) == 0 {
		gains = []int{1}
	}
	c := &Codec{
		lattice: l,
		radices: slices.Clone(radices),
		gains:   slices.Clone(gains),
		dim:     l.Dim(),
	}
	product := 1
	for _, q := range radices {
		if err := l.checkRadix(q, MaxClasses); err != nil {
			return nil, err
		}
		if q > maxRadixProduct/product {
			return nil, fmt.Errorf("lattice: codec radices %v multiply to more than %d", radices, maxRadixProduct)
		}
		t, err := l.Leaders(q)
		if err != nil {
			return nil, err
		}
		c.leaders = append(c.leaders, t)
		c.weights = append(c.weights, int32(product))
		one, two := t.maxAbs()
		if one > maxLeader {
			return nil, fmt.Errorf("lattice: codec radix %d of %v is too large: its leaders reach %d, and codebooks hold %d at most; split it over levels", q, l, one, maxLeader)
		}
		c.reach.one += float32(product) * float32(one)
		c.reach.two += float32(product) * float32(two)
		product *= q
	}
	c.setCentres()
	if !c.holdsCentre() {
		return nil, fmt.Errorf("lattice: codec of %v with radices %v does not hold the point nearest to its centre", l, radices)
	}
	c.packed = newPackedD4(c)
	c.nominal = sync.OnceValue(c.nominalStep)
	return c, nil
}

// setCentres sums the means of the leaders from the coarsest level down.
func (c *Codec) setCentres() {
	c.centres = make([][]float32, len(c.leaders)+1)
	sum := make([]float64, c.dim)
	for m := len(c.leaders); ; m-- {
		c.centres[m] = make([]float32, c.dim)
		for j, x := range sum {
			c.centres[m][j] = float32(x)
		}
		if m == 0 {
			break
		}
		for j, x := range c.leaders[m-1].mean() {
			sum[j] += float64(float64(c.weights[m-1]) * x)
		}
	}
	c.centre = c.centres[0]
}

// holdsCentre reports whether the point nearest to the centre is in the code, as clamp relies on.
func (c *Codec) holdsCentre() bool {
	var y [MaxDim]float32
	var v [MaxDim]int32
	var class [MaxLevels]uint16
	copy(y[:], c.centre)
	c.nearest(&v, &y)
	return c.digits(&class, &v)
}

func checkGains(gains []int) error {
	if len(gains) > MaxGains {
		return fmt.Errorf("lattice: codec has %d gains: want at most %d", len(gains), MaxGains)
	}
	if len(gains) == 1 && gains[0] != 1 {
		return fmt.Errorf("lattice: the single gain %d only rescales the step: leave the gains out", gains[0])
	}
	for i, g := range gains {
		if g < 1 || g > MaxGain {
			return fmt.Errorf("lattice: gain %d is out of range: want 1 to %d", g, MaxGain)
		}
		if i > 0 && g <= gains[i-1] {
			return fmt.Errorf("lattice: gains %v are not ascending", gains)
		}
	}
	return nil
}

// ParseCodec reads a codec as String writes it: lattice, radices from the finest level to the coarsest, and optionally
// the gains, as in "d4:4,4:g3,4,5,7", "e8:2,2" or "z1:16".
func ParseCodec(s string) (*Codec, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, fmt.Errorf("lattice: codec %q: want LATTICE:RADICES[:gGAINS], as in d4:4,4:g3,4,5,7", s)
	}
	l, err := ParseLattice(parts[0])
	if err != nil {
		return nil, fmt.Errorf("codec %q: %w", s, err)
	}
	radices, err := parseInts(parts[1])
	if err != nil {
		return nil, fmt.Errorf("lattice: codec %q: radices: %w", s, err)
	}
	var gains []int
	if len(parts) == 3 {
		list, ok := strings.CutPrefix(parts[2], "g")
		if !ok {
			return nil, fmt.Errorf("lattice: codec %q: gains %q do not begin with g, as in g3,4,5,7", s, parts[2])
		}
		if gains, err = parseInts(list); err != nil {
			return nil, fmt.Errorf("lattice: codec %q: gains: %w", s, err)
		}
	}
	c, err := NewCodec(l, radices, gains)
	if err != nil {
		return nil, fmt.Errorf("codec %q: %w", s, err)
	}
	return c, nil
}

// parseInts reads decimal numbers, without sign or leading zeros, separated by commas.
func parseInts(s string) ([]int, error) {
	var ints []int
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || strconv.Itoa(n) != field {
			return nil, fmt.Errorf("%q is not a number", field)
		}
		ints = append(ints, n)
	}
	return ints, nil
}

// Preset returns the codec of a number of bits per weight, 2, 3 or 4 (and a quarter for the gains).
func Preset(bits int) (*Codec, error) {
	switch bits {
	case 2:
		return ParseCodec("d4:4:g3,4,5,7")
	case 3:
		return ParseCodec("d4:2,4:g3,4,5,7")
	case 4:
		return ParseCodec("d4:4,4:g3,4,5,6")
	}
	return nil, fmt.Errorf("lattice: no preset for %d bits: want 2, 3 or 4", bits)
}

// String returns the form that ParseCodec reads; a single gain is left out.
func (c *Codec) String() string {
	s := c.lattice.String() + ":" + joinInts(c.radices)
	if len(c.gains) > 1 {
		s += ":g" + joinInts(c.gains)
	}
	return s
}

func joinInts(ints []int) string {
	fields := make([]string, len(ints))
	for i, n := range ints {
		fields[i] = strconv.Itoa(n)
	}
	return strings.Join(fields, ",")
}

// Lattice returns the lattice of the codec.
func (c *Codec) Lattice() Lattice { return c.lattice }

// Radices returns a copy of the radices, finest level first.
func (c *Codec) Radices() []int { return slices.Clone(c.radices) }

// Gains returns a copy of the gains, ascending; [1] when the codec has none.
func (c *Codec) Gains() []int { return slices.Clone(c.gains) }

// Levels returns M, the number of radices.
func (c *Codec) Levels() int { return len(c.radices) }

// Blocks returns the number of lattice points in a group, GroupSize / d.
func (c *Codec) Blocks() int { return GroupSize / c.dim }

// GroupIndices returns the number of class indices of a group, Levels · Blocks.
func (c *Codec) GroupIndices() int { return c.Levels() * c.Blocks() }

// Leaders returns the table of leaders of a level, 0 being the finest.
func (c *Codec) Leaders(level int) *Leaders { return c.leaders[level] }

// LevelWeight returns q_0·…·q_{level−1}, the factor of a level's leaders in a point.
func (c *Codec) LevelWeight(level int) int { return int(c.weights[level]) }

// Centre returns a copy of the mean of all points of the code, [d] in integer coordinates, rounded to float32.
func (c *Codec) Centre() []float32 { return slices.Clone(c.centre) }

// MaxAbs returns a bound, attained, on the magnitude of an integer coordinate of a point: times the largest gain it says
// whether decoded weights fit in int8.
func (c *Codec) MaxAbs() int { return int(c.reach.one) }
