package quant

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/cosetq/cosetq/lattice"
)

// metric measures the error e of one group: e·M·eᵀ with M [8 × 8]. It holds two
// matrices: the lower C of M = C·Cᵀ, so that e·M·eᵀ = ‖e·C‖², and the part
// below the blocks of d of the block unit-lower factor of M: what the error of
// a block moves the earlier blocks of its group by.
type metric [2 * size * size]float32

// feed is where the second matrix begins.
const feed = size * size

// newMetric factors M for blocks of d places; ok is false if M is not positive definite.
func newMetric(m *[size * size]float64, d int) (mt metric, ok bool) {
	c := *m
	if _, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Lower, N: size, Data: c[:], Stride: size}); !ok {
		return mt, false
	}
	for i := range size {
		for j := range i + 1 {
			mt[i*size+j] = float32(c[i*size+j])
		}
	}
	for k := 0; k+d < size; k += d {
		var t [size * size]float64 // C_kk
		for i := range d {
			copy(t[i*d:(i+1)*d], c[(k+i)*size+k:])
		}
		blas64.Trsm(blas.Right, blas.NoTrans, 1,
			blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: d, Data: t[:], Stride: d},
			blas64.General{Rows: size - k - d, Cols: d, Data: c[(k+d)*size+k:], Stride: size})
		for i := k + d; i < size; i++ {
			for j := k; j < k+d; j++ {
				mt[feed+i*size+j] = float32(c[i*size+j])
			}
		}
	}
	return mt, true
}

// of returns e·M·eᵀ.
func (m *metric) of(e *[size]float32) float32 { return m.columns(e, 0, size) }

// columns returns the part of ‖e·C‖² in some columns, which reads e from the first of them on.
func (m *metric) columns(e *[size]float32, from, to int) float32 {
	var s float32
	for j := from; j < to; j++ {
		var y float32
		for i := j; i < size; i++ {
			y += float32(e[i] * m[i*size+j])
		}
		s += float32(y * y)
	}
	return s
}

// maxIndices is the largest number of class indices of a group.
const maxIndices = lattice.MaxLevels * size

// groupCoder codes groups of one row in a metric.
type groupCoder struct {
	codec *lattice.Codec
	step  float32
	all   lattice.Encoder
	one   [lattice.MaxGains]lattice.Encoder // of one gain each
	gains int
	trial []uint16
}

// setStep prepares for a row. single is the codec without gains.
func (c *groupCoder) setStep(codec, single *lattice.Codec, step float32) error {
	var err error
	c.codec, c.step = codec, step
	if c.all, err = codec.Encoder(step); err != nil {
		return err
	}
	gains := codec.Gains()
	c.gains = len(gains)
	for i, g := range gains {
		if c.one[i], err = single.Encoder(step * float32(g)); err != nil {
			return err
		}
	}
	if c.trial == nil {
		c.trial = make([]uint16, codec.GroupIndices())
	}
	return nil
}

// farSteps is the largest magnitude, in steps, that feedback may push a weight to; the encoder takes up to 2^40.
const farSteps = 1 << 36

// reaches reports whether x is finite and near enough to be coded.
func (c *groupCoder) reaches(x *[size]float32) bool {
	far := float32(farSteps * c.step)
	for _, v := range x {
		if !(v <= far && v >= -far) {
			return false
		}
	}
	return true
}

// code codes x, writes the class indices and the weights w, and returns the
// gain with the least loss (x − w)·M·(x − w)ᵀ, and that loss. With each gain,
// blocks are coded last to first, the error of one moving the earlier ones. A
// gain is given up once the blocks coded so far lose too much.
func (c *groupCoder) code(indices []uint16, w, x *[size]float32, m *metric) (gain uint8, loss float32) {
	loss = float32(math.Inf(1))
	blocks := c.codec.Blocks()
	d := size / blocks
	for g := range c.gains {
		y := *x
		var v, e [size]float32
		var kept [maxIndices]uint16
		var l float32
		for b := blocks - 1; b >= 0 && l < loss; b-- {
			c.one[g].EncodeGroup(c.trial, &y)
			c.one[g].DecodeGroup(&v, c.trial, 0)
			for i := b; i < len(c.trial); i += blocks {
				kept[i] = c.trial[i]
			}
			for i := b * d; i < (b+1)*d; i++ {
				e[i] = x[i] - v[i]
			}
			l += m.columns(&e, b*d, (b+1)*d)
			for i := b * d; i < (b+1)*d; i++ {
				for j := range b * d {
					y[j] += float32(e[i] * m[feed+i*size+j])
				}
			}
		}
		if l >= loss {
			continue
		}
		loss, gain = l, uint8(g)
		copy(indices, kept[:len(c.trial)])
		for i := range w {
			w[i] = x[i] - e[i]
		}
	}
	return gain, loss
}
