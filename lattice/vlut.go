package lattice

import "fmt"

// QueryTable is a one-sided value look-up table (vLUT): the inner products of one real query vector with all leaders, block by
// block. A row of codes is multiplied by look-ups and additions alone:
//
//	<row, query> = step · Σ_groups gain · Σ_blocks (Σ_m q_0·…·q_{m−1} · table[k_m] − <centre, query block>)
//
// It is the reference, in float64, that kernels are compared with.
type QueryTable struct {
	codec  *Codec
	tables []map[int][]float64 // [block of the row] radix → [q^d]
	centre []float64           // [block of the row] <centre, query block>
}

// NewQueryTable builds the tables of query, whose length is that of a coded row, a multiple of GroupSize. Building costs
// q^d·d multiplications per block and radix.
func (c *Codec) NewQueryTable(query []float32) (*QueryTable, error) {
	if len(query)%GroupSize != 0 {
		return nil, fmt.Errorf("lattice: query of %d numbers: want a multiple of %d", len(query), GroupSize)
	}
	t := &QueryTable{
		codec:  c,
		tables: make([]map[int][]float64, len(query)/c.dim),
		centre: make([]float64, len(query)/c.dim),
	}
	for b := range t.tables {
		block := query[b*c.dim : (b+1)*c.dim]
		t.tables[b] = make(map[int][]float64)
		for _, leaders := range c.leaders {
			if t.tables[b][leaders.radix] == nil {
				t.tables[b][leaders.radix] = leaders.products(block)
			}
		}
		for j, x := range block {
			t.centre[b] += float64(float64(x) * float64(c.centre[j]))
		}
	}
	return t, nil
}

// products returns <block, leader> for every class.
func (t *Leaders) products(block []float32) []float64 {
	p := make([]float64, t.Len())
	for k := range p {
		for j, leader := range t.At(k) {
			p[k] += float64(float64(block[j]) * float64(leader))
		}
	}
	return p
}

// Dot returns the inner product of the query with a coded row. It fails when the lengths do not fit. Indices must be those of the
// codec.
func (t *QueryTable) Dot(indices []uint16, gains []uint8, step float32) (float64, error) {
	c := t.codec
	blocks, n := c.Blocks(), c.GroupIndices()
	if len(gains)*blocks != len(t.tables) || len(indices) != len(gains)*n {
		return 0, fmt.Errorf("lattice: dot product of %d query blocks with %d gains and %d indices: lengths do not fit %v",
			len(t.tables), len(gains), len(indices), c)
	}
	var sum float64
	for g, gain := range gains {
		var group float64
		for b := range blocks {
			at := g*blocks + b
			for m, leaders := range c.leaders {
				k := indices[g*n+m*blocks+b]
				group += float64(float64(c.weights[m]) * t.tables[at][leaders.radix][k])
			}
			group -= t.centre[at]
		}
		sum += float64(float64(c.gains[gain]) * group)
	}
	return sum * float64(step), nil
}

// MaxPairs is the largest number of entries of a two-sided table.
const MaxPairs = 1 << 24

// PairTable is a two-sided value look-up table: the inner products of all leaders of one table with all leaders of another, exact
// integers in squared integer coordinates (4 times the real ones for E8).
type PairTable struct {
	columns int
	entries []int32
}

// NewPairTable builds the table of a and b, which must be of the same lattice and have at most MaxPairs pairs: 65536 for D4
// with q = 4 or E8 with q = 2.
func NewPairTable(a, b *Leaders) (*PairTable, error) {
	if a.lattice != b.lattice {
		return nil, fmt.Errorf("lattice: two-sided table of %v and %v: want one lattice", a.lattice, b.lattice)
	}
	if a.Len() > MaxPairs/b.Len() {
		return nil, fmt.Errorf("lattice: two-sided table of %d × %d classes exceeds %d entries", a.Len(), b.Len(), MaxPairs)
	}
	t := &PairTable{columns: b.Len(), entries: make([]int32, a.Len()*b.Len())}
	for i := range a.Len() {
		for k := range b.Len() {
			var dot int32
			for j, x := range a.At(i) {
				dot += x * b.At(k)[j]
			}
			t.entries[i*t.columns+k] = dot
		}
	}
	return t, nil
}

// At returns the inner product of leader i of the first table with leader k of the second.
func (t *PairTable) At(i, k int) int32 { return t.entries[i*t.columns+k] }

// Entries returns all entries, row-major with the first table's classes as rows. The slice must not be written.
func (t *PairTable) Entries() []int32 { return t.entries }

// PairTables multiplies rows coded by one codec with each other by look-ups alone: M² of them per pair of blocks.
type PairTables struct {
	codec  *Codec
	pairs  [][]*PairTable // [level][level]
	centre [][]float64    // [level][class] <centre, leader>
	square float64        // |centre|²
}

// NewPairTables builds the two-sided tables of the codec. It fails when one would exceed MaxPairs entries.
func (c *Codec) NewPairTables() (*PairTables, error) {
	t := &PairTables{codec: c, pairs: make([][]*PairTable, len(c.leaders)), centre: make([][]float64, len(c.leaders))}
	for m, a := range c.leaders {
		for _, b := range c.leaders {
			p, err := NewPairTable(a, b)
			if err != nil {
				return nil, err
			}
			t.pairs[m] = append(t.pairs[m], p)
		}
		t.centre[m] = a.products(c.centre)
	}
	for _, x := range c.centre {
		t.square += float64(float64(x) * float64(x))
	}
	return t, nil
}

// DotPoints returns <v_a, v_b> of two coded groups, v being the integer points before centring and gain. The result is exact.
func (t *PairTables) DotPoints(a, b []uint16) int64 {
	c := t.codec
	blocks := c.Blocks()
	var sum int64
	for i, wa := range c.weights {
		for k, wb := range c.weights {
			for p := range blocks {
				sum += int64(wa) * int64(wb) * int64(t.pairs[i][k].At(int(a[i*blocks+p]), int(b[k*blocks+p])))
			}
		}
	}
	return sum
}

// CodedRow is a row of codes with its step.
type CodedRow struct {
	Indices []uint16
	Gains   []uint8
	Step    float32
}

// Dot returns the inner product of the weights of two coded rows of the same length:
//
//	step_a·step_b · Σ_groups gain_a·gain_b · (<v_a, v_b> − <centre, v_a> − <centre, v_b> + |centre|²)
//
// It fails when the lengths do not fit. Indices must be those of the codec.
func (t *PairTables) Dot(a, b CodedRow) (float64, error) {
	c := t.codec
	n := c.GroupIndices()
	if len(a.Gains) != len(b.Gains) || len(a.Indices) != len(a.Gains)*n || len(b.Indices) != len(b.Gains)*n {
		return 0, fmt.Errorf("lattice: dot product of rows of %d and %d groups with %d and %d indices: lengths do not fit %v",
			len(a.Gains), len(b.Gains), len(a.Indices), len(b.Indices), c)
	}
	var sum float64
	for g := range a.Gains {
		ia, ib := a.Indices[g*n:(g+1)*n], b.Indices[g*n:(g+1)*n]
		dot := float64(t.DotPoints(ia, ib)) - t.dotCentre(ia) - t.dotCentre(ib) + float64(c.Blocks())*t.square
		sum += float64(float64(c.gains[a.Gains[g]]*c.gains[b.Gains[g]]) * dot)
	}
	return sum * float64(a.Step) * float64(b.Step), nil
}

// dotCentre returns <centre, v> summed over the blocks of a coded group.
func (t *PairTables) dotCentre(indices []uint16) float64 {
	blocks := t.codec.Blocks()
	var sum float64
	for m, w := range t.codec.weights {
		for b := range blocks {
			sum += float64(float64(w) * t.centre[m][indices[m*blocks+b]])
		}
	}
	return sum
}
