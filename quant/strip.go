package quant

import "github.com/cosetq/cosetq/lattice"

// strip is one group of each of some rows of a chunk, on its way through the coder: all rows share a metric.
type strip struct {
	rows []int // of the chunk
	lattice.MetricGroups
}

func newStrip(c *lattice.Codec) *strip {
	return &strip{
		rows: make([]int, 0, chunkRows),
		MetricGroups: lattice.MetricGroups{
			X: make([]float32, chunkRows*size), Weights: make([]float32, chunkRows*size),
			Steps: make([]float32, chunkRows), Losses: make([]float32, chunkRows),
			Indices: make([]uint16, chunkRows*c.GroupIndices()), Gains: make([]uint8, chunkRows),
		},
	}
}

// add takes in a row, to be coded with step, and returns its group.
func (s *strip) add(row int, step float32) *[size]float32 {
	i := len(s.rows)
	s.rows = append(s.rows, row)
	s.Steps[i] = step
	return (*[size]float32)(s.X[i*size:])
}

// weights returns what the code of the i-th row stands for, and indices its code.
func (s *strip) weights(i int) *[size]float32 { return (*[size]float32)(s.Weights[i*size:]) }

func (s *strip) indices(i int) []uint16 {
	slots := len(s.Indices) / chunkRows
	return s.Indices[i*slots : (i+1)*slots]
}

// encode codes all rows of the strip in a metric.
func (c *chunk) encode(m *metric) error {
	s := c.strip
	n := len(s.rows)
	if c.groups == nil {
		for i, r := range s.rows {
			s.Gains[i], s.Losses[i] = c.coders[r].code(s.indices(i), s.weights(i), (*[size]float32)(s.X[i*size:]), m)
		}
		return nil
	}
	return c.groups.EncodeInMetric(lattice.MetricGroups{
		X: s.X[:n*size], Steps: s.Steps[:n], Metric: m[:], Indices: s.Indices[:n*len(s.Indices)/chunkRows],
		Gains: s.Gains[:n], Weights: s.Weights[:n*size], Losses: s.Losses[:n],
	})
}
