package grad

import "github.com/cosetq/cosetq/onnx"

const boolean = onnx.Bool

// Y = A·B over the last two dimensions: dA = dY·Bᵀ, dB = Aᵀ·dY. Products with a matrix and with vectors were written as Gemm
// before (see lower).
func matMulRule(s *step) error {
	g, a, b, dy := s.g, s.x(0), s.x(1), s.dy(0)
	if s.wants(0) {
		s.give(0, g.matMul(dy, g.swapLast(b)))
	}
	if s.wants(1) {
		s.give(1, g.matMul(g.swapLast(a), dy))
	}
	return nil
}

// Y = α·op(A)·op(B) + β·C.
func gemmRule(s *step) error {
	g, a, b, dy := s.g, s.x(0), s.x(1), s.dy(0)
	transA, transB := s.n.Int("transA", 0) != 0, s.n.Int("transB", 0) != 0
	alpha, beta := float64(s.n.Float("alpha", 1)), float64(s.n.Float("beta", 1))
	if s.wants(0) {
		if transA {
			s.give(0, g.scale(g.gemm(b, dy, transB, true), alpha))
		} else {
			s.give(0, g.scale(g.gemm(dy, b, false, !transB), alpha))
		}
	}
	if s.wants(1) {
		if transB {
			s.give(1, g.scale(g.gemm(dy, a, true, transA), alpha))
		} else {
			s.give(1, g.scale(g.gemm(a, dy, !transA, false), alpha))
		}
	}
	if s.wants(2) {
		s.give(2, g.scale(dy, beta))
	}
	return nil
}
