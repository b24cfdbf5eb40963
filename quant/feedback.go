package quant

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/cosetq/cosetq/lattice"
)

const (
	// chunkRows is how many rows one goroutine codes together: they share each read of H and L.
	chunkRows = 64
	// batchGroups is the number of groups whose feedback from later batches is one matrix product.
	batchGroups = 16
)

// coding is a set of codes of the rows of a chunk, in position order.
type coding struct {
	indices []uint16  // [rows][position][level][block]
	gains   []uint8   // [rows][position]
	errs    []float32 // E = W − Ŵ, [rows × P]
	scales  []uint16  // float16 scale of each row
	loss    []float64 // E·H·Eᵀ of each row
}

func newCoding(c *lattice.Codec, places int) *coding {
	groups := places / size
	return &coding{
		indices: make([]uint16, chunkRows*groups*c.GroupIndices()), gains: make([]uint8, chunkRows*groups),
		errs: make([]float32, chunkRows*places), scales: make([]uint16, chunkRows), loss: make([]float64, chunkRows),
	}
}

// copyRow copies row r.
func (c *coding) copyRow(from *coding, r int) {
	copyRow(c.indices, from.indices, r)
	copyRow(c.gains, from.gains, r)
	copyRow(c.errs, from.errs, r)
	c.scales[r], c.loss[r] = from.scales[r], from.loss[r]
}

func copyRow[T any](dst, src []T, r int) {
	n := len(dst) / chunkRows
	copy(dst[r*n:(r+1)*n], src[r*n:(r+1)*n])
}

// chunk is the scratch of one goroutine: some rows in position order.
type chunk struct {
	f           *factors
	codec       *lattice.Codec
	single      *lattice.Codec      // without gains
	rows        lattice.RowCoder    // codes rows by squared error
	groups      lattice.MetricCoder // codes groups in a metric; nil for coders
	products    Multiplier
	count       int          // rows in use
	w           []float32    // [rows × P]
	product     []float32    // [rows × 8·batchGroups]
	grad        []float32    // E·H', [rows × P]
	coders      []groupCoder // of each row
	strip       *strip       // at work
	moved       []float32    // what errors of other rows move the rows by, [rows × P]; nil for nothing
	best, trial *coding
	device      lattice.FeedbackCoder // that does what ldlq does; nil for this processor
	steps       []float32             // of the rows
}

func (q *run) newChunk(f *factors, single *lattice.Codec) *chunk {
	codec := q.opt.Codec
	return &chunk{
		f: f, codec: codec, single: single, rows: q.coder(), groups: q.opt.Groups, products: q.opt.multiplier(), strip: newStrip(codec),
		w: make([]float32, chunkRows*f.places), product: make([]float32, chunkRows*batchGroups*size),
		grad: make([]float32, chunkRows*f.places), coders: make([]groupCoder, chunkRows),
		best: newCoding(codec, f.places), trial: newCoding(codec, f.places), steps: make([]float32, chunkRows),
	}
}

// setRow sets a row from one in group order, divided by unit.
func (c *chunk) setRow(r int, grouped []float32, unit float64) {
	for k, g := range c.f.order {
		for j, v := range grouped[g*size : (g+1)*size] {
			c.w[r*c.f.places+k*size+j] = float32(float64(v) / unit)
		}
	}
}

// putRow stores the codes of row r of the chunk as row at of the matrix; indices and gains are scratch.
func (c *chunk) putRow(p *packer, at int, code *coding, r int, indices []uint16, gains []uint8) {
	slots, groups := c.codec.GroupIndices(), len(c.f.order)
	for k, g := range c.f.order {
		copy(indices[g*slots:(g+1)*slots], code.indices[(r*groups+k)*slots:])
		gains[g] = code.gains[r*groups+k]
	}
	p.putRows(at, 1, indices, gains)
}

// setSteps prepares all rows for their scales.
func (c *chunk) setSteps(scales []uint16, step func(h uint16) float32) error {
	for r := range c.count {
		c.steps[r] = step(scales[r])
		if err := c.coders[r].setStep(c.codec, c.single, c.steps[r]); err != nil {
			return err
		}
	}
	return nil
}

// feedback runs through the positions last to first. At each, visit gets the
// position and what the errors of all later positions move the rows by, [rows × 8],
// and sets the errors of all rows at this position.
func (c *chunk) feedback(errs []float32, visit func(k int, moved blas32.General) error) error {
	n := c.f.places
	e, l := matrix(errs, c.count, n), matrix(c.f.l, n, n)
	for hi := n / size; hi > 0; hi -= batchGroups {
		lo := max(0, hi-batchGroups)
		product := matrix(c.product, c.count, (hi-lo)*size)
		clear(product.Data[:c.count*product.Cols])
		if later := n - hi*size; c.f.l != nil && later > 0 {
			if err := c.products.Add(product, part(e, 0, c.count, hi*size, later), part(l, hi*size, later, lo*size, product.Cols)); err != nil {
				return err
			}
		}
		for k := hi - 1; k >= lo; k-- {
			at := (k - lo) * size
			if err := visit(k, part(product, 0, c.count, at, size)); err != nil {
				return err
			}
			if c.f.l == nil || at == 0 {
				continue
			}
			if err := c.products.Add(part(product, 0, c.count, 0, at), part(e, 0, c.count, k*size, size), part(l, k*size, size, lo*size, at)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lossOf computes E·H·Eᵀ of every row of errs [rows × P].
func (c *chunk) lossOf(loss []float64, errs []float32) error {
	n := c.f.places
	clear(loss)
	err := c.feedback(errs, func(k int, moved blas32.General) error {
		for r := range loss {
			e := *(*[size]float32)(errs[r*n+k*size:])
			for j, v := range moved.Data[r*moved.Stride:][:size] {
				e[j] += v
			}
			loss[r] += float64(c.f.conditional[k].of(&e))
		}
		return nil
	})
	c.subtractExcess(loss, errs)
	return err
}

// subtractExcess turns losses in H' into losses in H.
func (c *chunk) subtractExcess(loss []float64, errs []float32) {
	n := c.f.places
	for r := range loss {
		for p, e := range errs[r*n:][:n] {
			loss[r] -= c.f.excess[p] * float64(e) * float64(e)
		}
		loss[r] = max(0, loss[r])
	}
}

// ldlq codes all rows with the steps given, rounding errors fed back (BlockLDLQ
// of QuIP#, arXiv 2402.04396). A row that runs away has a loss of +Inf.
func (c *chunk) ldlq(out *coding, step func(h uint16) float32) error {
	n := c.f.places
	groups, slots := n/size, c.codec.GroupIndices()
	if err := c.setSteps(out.scales, step); err != nil {
		return err
	}
	if c.device != nil {
		err := c.device.CodeRows(lattice.FeedbackRows{
			Indices: out.indices[:c.count*groups*slots], Gains: out.gains[:c.count*groups],
			Errors: out.errs[:c.count*n], Losses: out.loss[:c.count],
		}, c.w[:c.count*n], c.steps[:c.count])
		c.subtractExcess(out.loss[:c.count], out.errs)
		return err
	}
	clear(out.loss[:c.count])
	err := c.feedback(out.errs, func(k int, moved blas32.General) error {
		c.strip.rows = c.strip.rows[:0]
		for r := range c.count {
			x, w := c.strip.add(r, c.steps[r]), (*[size]float32)(c.w[r*n+k*size:])
			for j, v := range moved.Data[r*moved.Stride:][:size] {
				x[j] = w[j] + v
			}
			if !c.coders[r].reaches(x) {
				out.loss[r] = math.Inf(1)
				*x = *w
			}
		}
		if err := c.encode(&c.f.conditional[k]); err != nil {
			return err
		}
		for r := range c.count {
			out.set(r*groups+k, c.strip, r)
			out.loss[r] += float64(c.strip.Losses[r])
			at := r*n + k*size
			for j, v := range c.strip.weights(r) {
				out.errs[at+j] = c.w[at+j] - v
			}
		}
		return nil
	})
	c.subtractExcess(out.loss[:c.count], out.errs)
	return err
}

// set takes over the code of the i-th row of a strip as group g.
func (c *coding) set(g int, s *strip, i int) {
	c.gains[g] = s.Gains[i]
	indices := s.indices(i)
	copy(c.indices[g*len(indices):], indices)
}

// nearest codes all rows with the steps given, rounding to nearest.
func (c *chunk) nearest(out *coding, step func(h uint16) float32) error {
	n := c.f.places
	groups, slots := n/size, c.codec.GroupIndices()
	if err := c.setSteps(out.scales, step); err != nil {
		return err
	}
	indices, gains := out.indices[:c.count*groups*slots], out.gains[:c.count*groups]
	rows := lattice.RowBatch{Weights: c.w[:c.count*n], Width: n, Steps: c.steps[:c.count]}
	if err := c.rows.EncodeRows(indices, gains, out.loss[:c.count], rows); err != nil {
		return err
	}
	var v [size]float32
	for g := range gains {
		c.coders[g/groups].all.DecodeGroup(&v, indices[g*slots:][:slots], gains[g])
		for j, x := range v {
			out.errs[g*size+j] = c.w[g*size+j] - x
		}
	}
	return c.lossOf(out.loss[:c.count], out.errs)
}
