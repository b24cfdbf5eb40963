package grad

import "slices"

// reducedAxes returns the axes of a reduction, not negative, and the shape of its output with them kept.
func (s *step) reducedAxes() (axes, kept []int64, err error) {
	x := s.x(0)
	axes = s.n.Ints("axes")
	if s.x(1) != nil {
		if axes, err = s.ints(1); err != nil {
			return nil, nil, err
		}
	}
	if len(axes) == 0 && s.n.Int("noop_with_empty_axes", 0) == 0 {
		axes = sequence(x.rank())
	}
	kept = slices.Clone(x.Shape)
	axes = slices.Clone(axes)
	for i, a := range axes {
		axes[i] = int64(axis(a, x.rank()))
		kept[axes[i]] = 1
	}
	return axes, kept, nil
}

// kept returns the gradient and the value of the output with the reduced axes kept.
func (s *step) kept() (dy, y *Value, axes []int64, err error) {
	axes, shape, err := s.reducedAxes()
	if err != nil {
		return nil, nil, nil, err
	}
	return s.g.reshape(s.dy(0), shape...), s.g.reshape(s.y(0), shape...), axes, nil
}

func reduceSumRule(s *step) error {
	dy, _, _, err := s.kept()
	if err == nil {
		s.give(0, s.g.expand(dy, s.x(0).Shape))
	}
	return err
}

func reduceMeanRule(s *step) error {
	dy, y, _, err := s.kept()
	if err == nil {
		s.give(0, s.g.expand(s.g.scale(dy, float64(y.Count())/float64(s.x(0).Count())), s.x(0).Shape))
	}
	return err
}

// reduceExtremeRule shares the gradient of a maximum or minimum among the places that attain it.
func reduceExtremeRule(beyond string) rule {
	return func(s *step) error {
		dy, y, axes, err := s.kept()
		if err != nil {
			return err
		}
		g := s.g
		attained := g.cast(g.not(g.compare(beyond, s.x(0), y)), dy.Type)
		s.give(0, g.mul(attained, g.div(dy, g.reduce("ReduceSum", attained, axes...))))
		return nil
	}
}

func reduceSumSquareRule(s *step) error {
	dy, _, _, err := s.kept()
	if err == nil {
		s.give(0, s.g.mul(s.x(0), s.g.scale(dy, 2)))
	}
	return err
}

// d‖x‖ = <x, dx>/‖x‖, and of zeros none: 0/0 would spread from a row of padding to all.
func reduceL2Rule(s *step) error {
	dy, y, _, err := s.kept()
	if err == nil {
		some := s.g.compare("Greater", y, s.g.number(y.Type, 0))
		s.give(0, s.g.mul(s.x(0), s.g.keep(some, s.g.div(dy, y))))
	}
	return err
}

func reduceLogSumExpRule(s *step) error {
	dy, y, _, err := s.kept()
	if err == nil {
		s.give(0, s.g.mul(dy, s.g.unary("Exp", s.g.sub(s.x(0), y))))
	}
	return err
}
