package grad

import (
	"math"
	"slices"
)

// places lists the places of a kernel.
func places(kernel []int64) [][]int64 {
	all := [][]int64{nil}
	for _, k := range kernel {
		var longer [][]int64
		for _, at := range all {
			for i := range k {
				longer = append(longer, append(slices.Clone(at), i))
			}
		}
		all = longer
	}
	return all
}

// tap is what a place of the kernel meets in the padded input, one number per output.
func (s *step) tap(w window, padded *Value, at []int64) *Value {
	for i, k := range at {
		from := k * w.dilations[i]
		padded = s.g.sliceStep(padded, 2+i, from, from+(s.y(0).Shape[2+i]-1)*w.strides[i]+1, w.strides[i])
	}
	return padded
}

// spread is the adjoint of tap: it puts d, one number per output, where that place of the kernel lies in the input.
func (s *step) spread(w window, d *Value, at []int64) *Value {
	g, x := s.g, s.x(0)
	for i := range w.kernel {
		a := 2 + i
		if stride := w.strides[i]; stride > 1 { // zeros between
			wide := g.padAxis(g.reshape(d, slices.Insert(slices.Clone(d.Shape), a+1, 1)...), a+1, 0, stride-1)
			shape := slices.Clone(d.Shape)
			shape[a] *= stride
			d = g.reshape(wide, shape...)
		}
		from := at[i]*w.dilations[i] - w.before[i]
		d = g.padAxis(d, a, from, x.Shape[a]-from-d.Shape[a])
	}
	return d
}

// spreadAll sums spread over the kernel.
func (s *step) spreadAll(w window, at [][]int64, d []*Value) {
	sum := s.spread(w, d[0], at[0])
	for i := 1; i < len(at); i++ {
		sum = s.g.add(sum, s.spread(w, d[i], at[i]))
	}
	s.give(0, sum)
}

func globalAveragePoolRule(s *step) error {
	x := s.x(0)
	s.give(0, s.g.expand(s.g.scale(s.dy(0), float64(s.dy(0).Count())/float64(x.Count())), x.Shape))
	return nil
}

func globalMaxPoolRule(s *step) error {
	g := s.g
	attained := g.cast(g.not(g.compare("Less", s.x(0), s.y(0))), s.x(0).Type)
	share := g.div(s.dy(0), g.reduce("ReduceSum", attained, sequence(s.x(0).rank())[2:]...))
	s.give(0, g.mul(attained, share))
	return nil
}

func averagePoolRule(s *step) error {
	w := s.window(s.n.Ints("kernel_shape"))
	g, x := s.g, s.x(0)
	at := places(w.kernel)
	// As many places as lie within the input, or its padding where that counts: what ceil_mode lets a window reach beyond never does.
	inside, before, after := slices.Concat([]int64{1, 1}, x.Shape[2:]), slices.Clone(w.before), slices.Clone(w.after)
	if s.n.Int("count_include_pad", 0) != 0 {
		for i, behind := range w.behind {
			inside[2+i] += before[i] + behind
			before[i], after[i] = 0, after[i]-behind
		}
	}
	ones := g.pad(g.number(x.Type, 1, inside...), spatial(before, 1), spatial(after, 1), 0)
	counts := s.tap(w, ones, at[0])
	for _, a := range at[1:] {
		counts = g.add(counts, s.tap(w, ones, a))
	}
	s.spreadAll(w, at, slices.Repeat([]*Value{g.div(s.dy(0), counts)}, len(at)))
	return nil
}

// maxPoolRule shares the gradient of a window among the places that attain its maximum.
func maxPoolRule(s *step) error {
	w := s.window(s.n.Ints("kernel_shape"))
	g, x := s.g, s.x(0)
	padded := g.padWindow(x, w, -math.MaxFloat32)
	at := places(w.kernel)
	var attained []*Value
	for _, a := range at {
		attained = append(attained, g.cast(g.not(g.compare("Less", s.tap(w, padded, a), s.y(0))), x.Type))
	}
	count := attained[0]
	for _, a := range attained[1:] {
		count = g.add(count, a)
	}
	share := g.div(s.dy(0), count)
	for i, a := range attained {
		attained[i] = g.mul(a, share)
	}
	s.spreadAll(w, at, attained)
	return nil
}
