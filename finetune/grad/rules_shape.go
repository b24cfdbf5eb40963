package grad

import (
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// reshapeRule is for operators that keep the elements in their order.
func reshapeRule(s *step) error {
	s.give(0, s.g.reshape(s.dy(0), s.x(0).Shape...))
	return nil
}

func transposeRule(s *step) error {
	perm := s.n.Ints("perm")
	if perm == nil {
		perm = sequence(s.x(0).rank())
		slices.Reverse(perm)
	}
	back := make([]int64, len(perm))
	for i, p := range perm {
		back[p] = int64(i)
	}
	s.give(0, s.g.transpose(s.dy(0), back...))
	return nil
}

// give sums what was repeated.
func expandRule(s *step) error {
	s.give(0, s.dy(0))
	return nil
}

func tileRule(s *step) error {
	x := s.x(0)
	var split, axes []int64
	for i, d := range x.Shape {
		axes = append(axes, int64(len(split)))
		split = append(split, s.dy(0).Shape[i]/max(d, 1), d)
	}
	s.give(0, s.g.reshape(s.g.reduce("ReduceSum", s.g.reshape(s.dy(0), split...), axes...), x.Shape...))
	return nil
}

// axis returns a possibly negative axis as a place.
func axis(a int64, rank int) int {
	if a < 0 {
		a += int64(rank)
	}
	return int(a)
}

func sliceRule(s *step) error {
	x, d := s.x(0), s.dy(0)
	starts, ends, axes, steps := s.n.Ints("starts"), s.n.Ints("ends"), s.n.Ints("axes"), []int64(nil)
	if s.g.opset >= 10 {
		for i, list := range []*[]int64{&starts, &ends, &axes, &steps} {
			if s.x(i+1) == nil {
				continue
			}
			var err error
			if *list, err = s.ints(i + 1); err != nil {
				return err
			}
		}
	}
	for i, from := range starts {
		a, by := i, int64(1)
		if axes != nil {
			a = axis(axes[i], x.rank())
		}
		if steps != nil {
			by = steps[i]
		}
		n := x.Shape[a]
		if from < 0 {
			from += n
		}
		if by < 0 {
			from = min(max(from, 0), n-1)
		} else {
			from = min(max(from, 0), n)
		}
		count := d.Shape[a]
		if by == 1 {
			d = s.g.padAxis(d, a, from, n-from-count)
			continue
		}
		places := make([]int64, count)
		for j := range places {
			places[j] = from + int64(j)*by
		}
		d = s.g.scatter(d, s.g.integers(places...), a, n)
	}
	s.give(0, d)
	return nil
}

// scatter adds the places of an axis of d to zeros, of size n along it, at the given indices: a product with a one-hot matrix.
func (g *Graph) scatter(d, indices *Value, a int, n int64) *Value {
	outer, inner := product(d.Shape[:a]), product(d.Shape[a+1:])
	flat := g.reshape(d, outer, d.Shape[a], inner)
	hot := g.oneHot(indices, n, d.Type)
	shape := slices.Clone(d.Shape)
	shape[a] = n
	return g.reshape(g.matMul(hot, flat), shape...)
}

func concatRule(s *step) error {
	a := axis(s.n.Int("axis", 0), s.y(0).rank())
	from := int64(0)
	for i := range s.n.Inputs {
		to := from + s.x(i).Shape[a]
		if s.wants(i) {
			s.give(i, s.g.slice(s.dy(0), a, from, to))
		}
		from = to
	}
	return nil
}

func splitRule(s *step) error {
	a := axis(s.n.Int("axis", 0), s.x(0).rank())
	var parts []*Value
	for i := range s.n.Outputs {
		d := s.dy(i)
		if d == nil {
			d = s.g.zeros(s.y(i).Type, s.y(i).Shape)
		}
		parts = append(parts, d)
	}
	s.give(0, s.g.concat(a, parts...))
	return nil
}

func padRule(s *step) error {
	if mode := s.n.Str("mode", "constant"); mode != "constant" {
		return fmt.Errorf("padding by %s has no gradient here, only constant does", mode)
	}
	pads := s.n.Ints("pads")
	if s.g.opset >= 11 {
		var err error
		if pads, err = s.ints(1); err != nil {
			return err
		}
	}
	rank := s.x(0).rank()
	before, after := make([]int64, rank), make([]int64, rank)
	axes := sequence(rank)
	if s.x(3) != nil {
		given, err := s.ints(3)
		if err != nil {
			return err
		}
		axes = given
	}
	for i, a := range axes {
		before[axis(a, rank)], after[axis(a, rank)] = -pads[i], -pads[i+len(axes)]
	}
	s.give(0, s.g.pad(s.dy(0), before, after, 0))
	return nil
}

func gatherRule(s *step) error {
	g, x, indices := s.g, s.x(0), s.x(1)
	a := axis(s.n.Int("axis", 0), x.rank())
	flat := slices.Concat(x.Shape[:a], []int64{indices.Count()}, x.Shape[a+1:])
	d := g.reshape(s.dy(0), flat...)
	if known, ok := g.ints[indices.Name]; ok && len(known) == 1 {
		at := (known[0] + x.Shape[a]) % x.Shape[a]
		s.give(0, g.padAxis(d, a, at, x.Shape[a]-at-1))
		return nil
	}
	s.give(0, g.scatter(d, indices, a, x.Shape[a]))
	return nil
}

// scatterAdd is for the operators whose gradient adds at places that data choose.
func (s *step) scatterAdd(op string, since int64, attrs ...*onnx.Attribute) error {
	if s.g.opset < since {
		return fmt.Errorf("its gradient needs %s, which adds from opset %d on; the model has opset %d: export it anew", op, since, s.g.opset)
	}
	x := s.x(0)
	zeros := s.g.expand(s.g.number(x.Type, 0), x.Shape)
	s.give(0, s.g.put(op, []*Value{zeros, s.x(1), s.dy(0)}, x.Type, x.Shape, append(attrs, onnx.StringAttr("reduction", "add"))...))
	return nil
}

func gatherElementsRule(s *step) error {
	return s.scatterAdd("ScatterElements", 16, onnx.IntAttr("axis", s.n.Int("axis", 0)))
}

func gatherNDRule(s *step) error {
	if s.n.Int("batch_dims", 0) != 0 {
		return fmt.Errorf("its gradient is known for batch_dims = 0 only")
	}
	return s.scatterAdd("ScatterND", 16)
}
