package grad

import (
	"errors"
	"math"
	"slices"
)

func addRule(s *step) error {
	s.give(0, s.dy(0))
	s.give(1, s.dy(0))
	return nil
}

func subRule(s *step) error {
	s.give(0, s.dy(0))
	if s.wants(1) {
		s.give(1, s.g.neg(s.g.sumTo(s.dy(0), s.x(1).Shape)))
	}
	return nil
}

func mulRule(s *step) error {
	if s.wants(0) {
		s.give(0, s.g.mul(s.dy(0), s.x(1)))
	}
	if s.wants(1) {
		s.give(1, s.g.mul(s.dy(0), s.x(0)))
	}
	return nil
}

// d(a/b) = da/b − (y/b)·db.
func divRule(s *step) error {
	d := s.g.div(s.dy(0), s.x(1))
	s.give(0, d)
	if s.wants(1) {
		s.give(1, s.g.neg(s.g.mul(d, s.y(0))))
	}
	return nil
}

// d(aᵇ) = b·aᵇ⁻¹·da + aᵇ·ln a·db.
func powRule(s *step) error {
	g, a, b := s.g, s.x(0), s.x(1)
	if s.wants(0) {
		switch e, known := g.float(b); {
		case known && e == 2:
			s.give(0, g.mul(s.dy(0), g.scale(a, 2)))
		case known && e == 3:
			s.give(0, g.mul(s.dy(0), g.scale(g.mul(a, a), 3)))
		default:
			b := g.cast(b, a.Type)
			one := g.number(a.Type, 1)
			s.give(0, g.mul(s.dy(0), g.mul(b, g.binary("Pow", a, g.sub(b, one)))))
		}
	}
	if s.wants(1) {
		s.give(1, g.mul(s.dy(0), g.mul(s.y(0), g.unary("Log", a))))
	}
	return nil
}

func sumRule(s *step) error {
	for i := range s.n.Inputs {
		s.give(i, s.dy(0))
	}
	return nil
}

func meanRule(s *step) error {
	d := s.g.scale(s.dy(0), 1/float64(len(s.n.Inputs)))
	for i := range s.n.Inputs {
		s.give(i, d)
	}
	return nil
}

// extremeRule shares the gradient of Max and Min among the inputs that equal the output; beyond compares an input with the
// output where it lost.
func extremeRule(beyond string) rule {
	return func(s *step) error {
		g := s.g
		attained := make([]*Value, len(s.n.Inputs))
		var count *Value
		for i := range attained {
			attained[i] = g.not(g.compare(beyond, s.x(i), s.y(0)))
			one := g.cast(attained[i], s.dy(0).Type)
			if count == nil {
				count = one
			} else {
				count = g.add(count, one)
			}
		}
		share := g.div(s.dy(0), count)
		for i, a := range attained {
			if s.wants(i) {
				s.give(i, g.keep(a, share))
			}
		}
		return nil
	}
}

func whereRule(s *step) error {
	if s.replacesSoftmaxNaN() {
		s.give(2, s.dy(0))
		return nil
	}
	if s.wants(1) {
		s.give(1, s.g.keep(s.x(0), s.dy(0)))
	}
	if s.wants(2) {
		s.give(2, s.g.keep(s.g.not(s.x(0)), s.dy(0)))
	}
	return nil
}

// replacesSoftmaxNaN tells whether a Where is Where(IsNaN(p), c, p) of the probabilities p of a Softmax, as attention is exported for
// the sake of rows that are masked whole. Of such a row the gradient is NaN whatever reaches it, so it need not be masked.
func (s *step) replacesSoftmaxNaN() bool {
	mask, p := s.g.producer(s.n.Inputs[0]), s.g.producer(s.n.Inputs[2])
	return !s.wants(1) && mask != nil && p != nil && mask.OpType == "IsNaN" && mask.Inputs[0] == s.n.Inputs[2] && p.OpType == "Softmax"
}

func preluRule(s *step) error {
	g, x, slope := s.g, s.x(0), s.x(1)
	below := g.compare("Less", x, g.number(x.Type, 0))
	if s.wants(0) {
		s.give(0, g.add(g.keep(g.not(below), s.dy(0)), g.keep(below, g.mul(s.dy(0), slope))))
	}
	if s.wants(1) {
		s.give(1, g.keep(below, g.mul(s.dy(0), x)))
	}
	return nil
}

// passRule is for operators that pass their first input on.
func passRule(s *step) error {
	s.give(0, s.dy(0))
	return nil
}

// Dropout passes its input on, unless it was exported for training and drops.
func dropoutRule(s *step) error {
	if mode := s.x(2); mode != nil && s.g.stored[mode.Name] != nil {
		if on, err := s.g.stored[mode.Name].Int64s(); err == nil && slices.Contains(on, 1) {
			return errors.New("it drops at random (training_mode): export the model for inference")
		}
	}
	return passRule(s)
}

func negRule(s *step) error {
	s.give(0, s.g.neg(s.dy(0)))
	return nil
}

func absRule(s *step) error {
	g, zero := s.g, s.g.number(s.x(0).Type, 0)
	up, down := g.compare("Greater", s.x(0), zero), g.compare("Less", s.x(0), zero)
	s.give(0, g.sub(g.keep(up, s.dy(0)), g.keep(down, s.dy(0))))
	return nil
}

func expRule(s *step) error {
	s.give(0, s.g.mul(s.dy(0), s.y(0)))
	return nil
}

func logRule(s *step) error {
	s.give(0, s.g.div(s.dy(0), s.x(0)))
	return nil
}

func sqrtRule(s *step) error {
	s.give(0, s.g.div(s.g.scale(s.dy(0), 0.5), s.y(0)))
	return nil
}

func reciprocalRule(s *step) error {
	s.give(0, s.g.neg(s.g.mul(s.dy(0), s.g.mul(s.y(0), s.y(0)))))
	return nil
}

func erfRule(s *step) error {
	g := s.g
	bell := g.unary("Exp", g.neg(g.mul(s.x(0), s.x(0))))
	s.give(0, g.mul(s.dy(0), g.scale(bell, 2/math.Sqrt(math.Pi))))
	return nil
}

func sinRule(s *step) error {
	s.give(0, s.g.mul(s.dy(0), s.g.unary("Cos", s.x(0))))
	return nil
}

func cosRule(s *step) error {
	s.give(0, s.g.neg(s.g.mul(s.dy(0), s.g.unary("Sin", s.x(0)))))
	return nil
}

func tanhRule(s *step) error {
	g, y := s.g, s.y(0)
	s.give(0, g.mul(s.dy(0), g.sub(g.number(y.Type, 1), g.mul(y, y))))
	return nil
}

func sigmoidRule(s *step) error {
	g, y := s.g, s.y(0)
	s.give(0, g.mul(s.dy(0), g.mul(y, g.sub(g.number(y.Type, 1), y))))
	return nil
}

func reluRule(s *step) error {
	s.give(0, s.g.keep(s.g.compare("Greater", s.y(0), s.g.number(s.y(0).Type, 0)), s.dy(0)))
	return nil
}

func leakyReluRule(s *step) error {
	g, x := s.g, s.x(0)
	above := g.compare("Greater", x, g.number(x.Type, 0))
	slope := float64(s.n.Float("alpha", 0.01))
	s.give(0, g.add(g.scale(s.dy(0), slope), g.keep(above, g.scale(s.dy(0), 1-slope))))
	return nil
}

// y = α·(eˣ − 1) below 0, so y' = y + α there, whatever the sign of α.
func eluRule(s *step) error {
	g, y := s.g, s.y(0)
	alpha := float64(s.n.Float("alpha", 1))
	below := g.compare("Less", s.x(0), g.number(y.Type, 0))
	left := g.keep(below, g.mul(s.dy(0), g.add(y, g.number(y.Type, alpha))))
	s.give(0, g.add(left, g.keep(g.not(below), s.dy(0))))
	return nil
}

func softplusRule(s *step) error {
	s.give(0, s.g.mul(s.dy(0), s.g.unary("Sigmoid", s.x(0))))
	return nil
}

func hardSigmoidRule(s *step) error {
	g, y := s.g, s.y(0)
	above, below := g.compare("Greater", y, g.number(y.Type, 0)), g.compare("Less", y, g.number(y.Type, 1))
	s.give(0, g.keep(above, g.keep(below, g.scale(s.dy(0), float64(s.n.Float("alpha", 0.2))))))
	return nil
}

// Where Clip changed nothing, the gradient passes.
func clipRule(s *step) error {
	g, x, y := s.g, s.x(0), s.y(0)
	changed := g.put("Or", []*Value{g.compare("Less", x, y), g.compare("Greater", x, y)}, boolean, x.Shape)
	s.give(0, g.keep(g.not(changed), s.dy(0)))
	return nil
}
