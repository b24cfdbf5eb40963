package quant

// leastGain is the relative drop of a group's loss for which it changes: more than what rounding in float32 feigns.
const leastGain = 1e-5

// gradient computes E·H' of every row.
func (c *chunk) gradient(errs []float32) error {
	n := c.f.places
	if c.f.h == nil {
		for r := range c.count {
			for p, e := range errs[r*n:][:n] {
				m := &c.f.own[p/size]
				v := m[p%size*(size+1)]
				c.grad[r*n+p] = e * v * v
			}
		}
		return nil
	}
	clear(c.grad[:c.count*n])
	return c.products.Add(matrix(c.grad, c.count, n), matrix(errs, c.count, n), matrix(c.f.h, n, n))
}

// refine codes every group once more, all others kept: the best place for a
// group is Ŵ_k + (E·H')_k·H'_kk⁻¹, and the metric around it is H'_kk. A new
// code is taken if the loss drops. c.grad must be that of out.errs, and is kept up
// to date.
func (c *chunk) refine(out *coding, step func(h uint16) float32) error {
	n := c.f.places
	groups := n / size
	if err := c.setSteps(out.scales, step); err != nil {
		return err
	}
	h, grad := matrix(c.f.h, n, n), matrix(c.grad, c.count, n)
	apart := make([]float32, c.count*size)                    // from the code to the best place
	d := matrix(make([]float32, c.count*size), c.count, size) // what the rows change by
	changed := make([]int, 0, c.count)
	for k := groups - 1; k >= 0; k-- {
		clear(apart)
		if err := c.products.Add(matrix(apart, c.count, size), part(grad, 0, c.count, k*size, size), matrix(c.f.solve[k][:], size, size)); err != nil {
			return err
		}
		c.strip.rows = c.strip.rows[:0]
		for r := range c.count {
			var x [size]float32
			at := r*n + k*size
			for j, e := range apart[r*size:][:size] {
				x[j] = c.w[at+j] - out.errs[at+j] + e
			}
			if c.coders[r].reaches(&x) {
				*c.strip.add(r, c.steps[r]) = x
			}
		}
		if err := c.encode(&c.f.own[k]); err != nil {
			return err
		}
		changed = changed[:0]
		for i, r := range c.strip.rows {
			before := c.f.own[k].of((*[size]float32)(apart[r*size:]))
			if !(c.strip.Losses[i] < before*(1-leastGain)) {
				continue
			}
			changed = append(changed, r)
			out.set(r*groups+k, c.strip, i)
			at := r*n + k*size
			for j, v := range c.strip.weights(i) {
				now := c.w[at+j] - v
				d.Data[r*size+j] = now - out.errs[at+j]
				out.errs[at+j] = now
			}
		}
		for i := 0; i < len(changed); { // neighbours together
			first, rows := changed[i], 1
			for i+rows < len(changed) && changed[i+rows] == first+rows {
				rows++
			}
			if err := c.products.Add(part(grad, first, rows, 0, n), part(d, first, rows, 0, size), part(h, k*size, size, 0, n)); err != nil {
				return err
			}
			i += rows
		}
	}
	return nil
}
