package quant

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/cosetq/cosetq/lattice"
)

const (
	// chunkRows is how many rows one goroutine codes together: they share each read of H and L.
	chunkRows = 64
	// batchGroups is the number of groups whose feedback from later batches is one matrix product.
	batchGroups = 16
	// panel is the inner length of a product: panel × 128 float32 of L stay in the first-level cache.
	panel = 64
)

// gemm is used for products of at most 64 × 128, which gonum computes on the calling goroutine and in a fixed order.
var gemm gonum.Implementation

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
	single      *lattice.Codec // without gains
	count       int            // rows in use
	w           []float32      // [rows × P]
	product     []float32      // [rows × 8·batchGroups]
	grad        []float32      // E·H', [rows × P]
	coders      []groupCoder   // of each row
	best, trial *coding
	device      lattice.FeedbackCoder // that does what ldlq does; nil for this processor
	steps       []float32             // of the rows, for the device
}

func newChunk(f *factors, codec, single *lattice.Codec) *chunk {
	return &chunk{
		f: f, codec: codec, single: single,
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
	p.putRow(at, indices, gains)
}

// feedback runs through the positions last to first. At each, visit gets the
// position, the row and what the errors of all later positions move it by, and
// sets the errors of the row at this position.
func (c *chunk) feedback(errs []float32, visit func(k, r int, moved *[size]float32)) {
	n := c.f.places
	groups := n / size
	for hi := groups; hi > 0; hi -= batchGroups {
		lo := max(0, hi-batchGroups)
		width := (hi - lo) * size
		product := c.product[:c.count*width]
		clear(product)
		if c.f.l != nil {
			for p := hi * size; p < n; p += panel {
				gemm.Sgemm(blas.NoTrans, blas.NoTrans, c.count, width, min(panel, n-p), 1, errs[p:], n,
					c.f.l[p*n+lo*size:], n, 1, product, width)
			}
		}
		for r := range c.count {
			row := product[r*width:][:width]
			for k := hi - 1; k >= lo; k-- {
				at := (k - lo) * size
				visit(k, r, (*[size]float32)(row[at:]))
				if c.f.l == nil || at == 0 {
					continue
				}
				for p := k * size; p < (k+1)*size; p++ {
					if e := errs[r*n+p]; e != 0 {
						gemm.Saxpy(at, e, c.f.l[p*n+lo*size:], 1, row, 1)
					}
				}
			}
		}
	}
}

// lossOf computes E·H·Eᵀ of every row of errs [rows × P].
func (c *chunk) lossOf(loss []float64, errs []float32) {
	n := c.f.places
	clear(loss)
	c.feedback(errs, func(k, r int, moved *[size]float32) {
		for j, e := range errs[r*n+k*size:][:size] {
			moved[j] += e
		}
		loss[r] += float64(c.f.conditional[k].of(moved))
	})
	c.subtractExcess(loss, errs)
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
	for r := range c.count {
		if err := c.coders[r].setStep(c.codec, c.single, step(out.scales[r])); err != nil {
			return err
		}
		c.steps[r] = step(out.scales[r])
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
	c.feedback(out.errs, func(k, r int, moved *[size]float32) {
		coder := &c.coders[r]
		var x, v [size]float32
		at, g := r*n+k*size, r*groups+k
		for j := range x {
			x[j] = c.w[at+j] + moved[j]
		}
		if !coder.reaches(&x) {
			out.loss[r] = math.Inf(1)
			x = [size]float32(c.w[at:])
		}
		var l float32
		out.gains[g], l = coder.code(out.indices[g*slots:][:slots], &v, &x, &c.f.conditional[k])
		out.loss[r] += float64(l)
		for j := range v {
			out.errs[at+j] = c.w[at+j] - v[j]
		}
	})
	c.subtractExcess(out.loss[:c.count], out.errs)
	return nil
}

// nearest codes all rows with the steps given, rounding to nearest.
func (c *chunk) nearest(out *coding, step func(h uint16) float32) error {
	n := c.f.places
	groups, slots := n/size, c.codec.GroupIndices()
	for r := range c.count {
		coder := &c.coders[r]
		if err := coder.setStep(c.codec, c.single, step(out.scales[r])); err != nil {
			return err
		}
		for k := range groups {
			var v [size]float32
			at, g := r*n+k*size, r*groups+k
			out.gains[g] = coder.nearest(out.indices[g*slots:][:slots], &v, (*[size]float32)(c.w[at:]))
			for j := range v {
				out.errs[at+j] = c.w[at+j] - v[j]
			}
		}
	}
	c.lossOf(out.loss[:c.count], out.errs)
	return nil
}
