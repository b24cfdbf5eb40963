package quant

import (
	"gonum.org/v1/gonum/blas"
)

// leastGain is the relative drop of a group's loss for which it changes: more than what rounding in float32 feigns.
const leastGain = 1e-5

// gradient computes E·H' of every row.
func (c *chunk) gradient(errs []float32) {
	n := c.f.places
	if c.f.h == nil {
		for r := range c.count {
			for p, e := range errs[r*n:][:n] {
				m := &c.f.own[p/size]
				v := m.chol[p%size*(size+1)]
				c.grad[r*n+p] = e * v * v
			}
		}
		return
	}
	clear(c.grad[:c.count*n])
	for q := 0; q < n; q += 2 * panel {
		for p := 0; p < n; p += panel {
			gemm.Sgemm(blas.NoTrans, blas.NoTrans, c.count, min(2*panel, n-q), min(panel, n-p), 1, errs[p:], n,
				c.f.h[p*n+q:], n, 1, c.grad[q:], n)
		}
	}
}

// refine codes every group once more, all others kept: the best place for a
// group is Ŵ_k + (E·H')_k·H'_kk⁻¹, and the metric around it is H'_kk. A new
// code is taken if the loss drops. c.grad must be that of out.errs, and is kept up
// to date.
func (c *chunk) refine(out *coding, step func(h uint16) float32) error {
	n := c.f.places
	groups, slots := n/size, c.codec.GroupIndices()
	indices := make([]uint16, slots)
	for r := range c.count {
		if err := c.coders[r].setStep(c.codec, c.single, step(out.scales[r])); err != nil {
			return err
		}
	}
	for k := groups - 1; k >= 0; k-- {
		m, solve := &c.f.own[k], &c.f.solve[k]
		for r := range c.count {
			coder := &c.coders[r]
			at := r*n + k*size
			grad, f := c.grad[at:][:size], out.errs[at:][:size]
			var x, v, e [size]float32
			for j := range e {
				for i, g := range grad {
					e[j] += float32(g * solve[i*size+j])
				}
				x[j] = c.w[at+j] - f[j] + e[j]
			}
			if !coder.reaches(&x) {
				continue
			}
			gain, after := coder.code(indices, &v, &x, m)
			before := m.of(&e)
			if !(after < before*(1-leastGain)) {
				continue
			}
			g := r*groups + k
			out.gains[g] = gain
			copy(out.indices[g*slots:], indices)
			for j := range v {
				now := c.w[at+j] - v[j]
				d := now - f[j]
				f[j] = now
				if d != 0 {
					gemm.Saxpy(n, d, c.f.h[(k*size+j)*n:], 1, c.grad[r*n:], 1)
				}
			}
		}
	}
	return nil
}
