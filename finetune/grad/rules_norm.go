package grad

import "errors"

// softmaxView is how a Softmax sees a tensor: before opset 13 as a matrix cut in front of the axis.
func (s *step) softmaxView() (shape []int64, along int64) {
	x := s.x(0)
	if s.g.opset >= 13 {
		return x.Shape, int64(axis(s.n.Int("axis", -1), x.rank()))
	}
	a := axis(s.n.Int("axis", 1), x.rank())
	return []int64{product(x.Shape[:a]), product(x.Shape[a:])}, 1
}

// dx = y·(dy − Σ dy·y).
func softmaxRule(s *step) error {
	g := s.g
	shape, along := s.softmaxView()
	y, dy := g.reshape(s.y(0), shape...), g.reshape(s.dy(0), shape...)
	weighed := g.mul(dy, y)
	dx := g.sub(weighed, g.mul(y, g.reduce("ReduceSum", weighed, along)))
	s.give(0, g.reshape(dx, s.x(0).Shape...))
	return nil
}

// dx = dy − softmax·Σ dy.
func logSoftmaxRule(s *step) error {
	g := s.g
	shape, along := s.softmaxView()
	y, dy := g.reshape(s.y(0), shape...), g.reshape(s.dy(0), shape...)
	dx := g.sub(dy, g.mul(g.unary("Exp", y), g.reduce("ReduceSum", dy, along)))
	s.give(0, g.reshape(dx, s.x(0).Shape...))
	return nil
}

// y = scale·x̂ + bias with x̂ = (x − mean)·r and r = 1/√(var + ε) over the axes from axis on; with d = dy·scale
//
//	dx = r·(d − mean(d) − x̂·mean(d·x̂))
func layerNormRule(s *step) error {
	g, x, scale, dy := s.g, s.x(0), s.x(1), s.dy(0)
	first := axis(s.n.Int("axis", -1), x.rank())
	axes := sequence(x.rank())[first:]
	s.normalized(axes, float64(s.n.Float("epsilon", 1e-5)), g.mul(dy, scale), func(hat *Value) {
		if s.wants(1) {
			s.give(1, g.mul(dy, hat))
		}
	})
	s.give(2, dy)
	return nil
}

// normalized gives the gradient of a normalisation of input 0 over axes, whose result x̂ has the gradient d, and shows x̂.
func (s *step) normalized(axes []int64, epsilon float64, d *Value, with func(hat *Value)) {
	g, x := s.g, s.x(0)
	centred := g.sub(x, g.reduce("ReduceMean", x, axes...))
	variance := g.reduce("ReduceMean", g.mul(centred, centred), axes...)
	r := g.unary("Reciprocal", g.unary("Sqrt", g.add(variance, g.number(x.Type, epsilon))))
	hat := g.mul(centred, r)
	with(hat)
	if s.wants(0) {
		inner := g.sub(d, g.reduce("ReduceMean", d, axes...))
		inner = g.sub(inner, g.mul(hat, g.reduce("ReduceMean", g.mul(d, hat), axes...)))
		s.give(0, g.mul(inner, r))
	}
}

// perChannel gives a vector [C] the shape [1, C, 1, …] of the channels of x.
func (g *Graph) perChannel(v, x *Value) *Value {
	shape := make([]int64, x.rank())
	for i := range shape {
		shape[i] = 1
	}
	shape[1] = v.Count()
	return g.reshape(v, shape...)
}

// giveChannels sums d over all axes but that of the channels, for an input [C].
func (s *step) giveChannels(i int, d *Value) {
	if !s.wants(i) {
		return
	}
	var axes []int64
	for a := range d.Shape {
		if a != 1 {
			axes = append(axes, int64(a))
		}
	}
	s.give(i, s.g.reshape(s.g.reduce("ReduceSum", d, axes...), s.x(i).Shape...))
}

// Batch normalisation for inference: y = scale·(x − mean)/√(var + ε) + bias with stored mean and variance.
func batchNormRule(s *step) error {
	if s.n.Int("training_mode", 0) != 0 {
		return errors.New("it normalises by the batch (training_mode), whose gradient is not known here: export the model for inference")
	}
	g, x, dy := s.g, s.x(0), s.dy(0)
	variance := g.perChannel(s.x(4), x)
	r := g.unary("Reciprocal", g.unary("Sqrt", g.add(variance, g.number(x.Type, float64(s.n.Float("epsilon", 1e-5))))))
	if s.wants(0) {
		s.give(0, g.mul(dy, g.mul(g.perChannel(s.x(1), x), r)))
	}
	if s.wants(1) {
		s.giveChannels(1, g.mul(dy, g.mul(g.sub(x, g.perChannel(s.x(3), x)), r)))
	}
	s.giveChannels(2, dy)
	return nil
}

func instanceNormRule(s *step) error {
	g, x, dy := s.g, s.x(0), s.dy(0)
	axes := sequence(x.rank())[2:]
	s.normalized(axes, float64(s.n.Float("epsilon", 1e-5)), g.mul(dy, g.perChannel(s.x(1), x)), func(hat *Value) {
		s.giveChannels(1, g.mul(dy, hat))
	})
	s.giveChannels(2, dy)
	return nil
}
