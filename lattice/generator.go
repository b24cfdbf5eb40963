package lattice

// basisD4 and basisE8 hold a basis as rows, in integer coordinates (E8 doubled).
var (
	basisD4 = [4][4]int32{{-1, -1, 0, 0}, {1, -1, 0, 0}, {0, 1, -1, 0}, {0, 0, 1, -1}}
	basisE8 = [8][8]int32{
		{4, 0, 0, 0, 0, 0, 0, 0},
		{-2, 2, 0, 0, 0, 0, 0, 0},
		{0, -2, 2, 0, 0, 0, 0, 0},
		{0, 0, -2, 2, 0, 0, 0, 0},
		{0, 0, 0, -2, 2, 0, 0, 0},
		{0, 0, 0, 0, -2, 2, 0, 0},
		{0, 0, 0, 0, 0, -2, 2, 0},
		{1, 1, 1, 1, 1, 1, 1, 1},
	}
)

// Generator returns the basis of the lattice, [d][d], one basis vector per row, in integer coordinates. A point with
// digits b is Σ_i b_i · row_i (the G·b of the literature, whose G holds the basis as columns).
func (l Lattice) Generator() [][]int32 {
	d := l.Dim()
	basis := make([][]int32, d)
	for i := range basis {
		basis[i] = make([]int32, d)
		switch {
		case l == D4:
			copy(basis[i], basisD4[i][:])
		case l == E8:
			copy(basis[i], basisE8[i][:])
		default:
			basis[i][i] = 1
		}
	}
	return basis
}

// Point writes to dst[:d] the integer coordinates of the lattice point G·b.
func (l Lattice) Point(dst, b []int32) {
	switch {
	case l == D4:
		dst[0], dst[1], dst[2], dst[3] = b[1]-b[0], b[2]-b[0]-b[1], b[3]-b[2], -b[3]
	case l == E8:
		h := b[7]
		dst[0] = 4*b[0] - 2*b[1] + h
		for j := 1; j < 6; j++ {
			dst[j] = 2*b[j] - 2*b[j+1] + h
		}
		dst[6], dst[7] = 2*b[6]+h, h
	default:
		copy(dst[:l.Dim()], b)
	}
}

// Coordinates writes to b[:d] the digits G⁻¹·p of the lattice point with integer coordinates p[:d], exactly. If p is not a
// lattice point (see Contains) the result has no meaning.
func (l Lattice) Coordinates(b, p []int32) {
	switch {
	case l == D4:
		p0, p2, p3 := p[0], p[2], p[3]
		half := (p0 + p[1] + p2 + p3) >> 1
		b[0], b[1], b[2], b[3] = -half, p0-half, -p2-p3, -p3
	case l == E8:
		h := p[7]
		var suffix int32
		for j := 6; j >= 0; j-- {
			suffix += (p[j] - h) >> 1
			b[j] = suffix
		}
		b[0] >>= 1
		b[7] = h
	default:
		copy(b[:l.Dim()], p)
	}
}

// Class returns the index k = Σ_j (b_j mod q)·q^j of the class of Λ/qΛ that holds the point p[:d], b = G⁻¹·p.
// The index is below q^d, which must not exceed 2^32; q must be at least 2.
func (l Lattice) Class(p []int32, q int) uint32 {
	var b [MaxDim]int32
	l.Coordinates(b[:], p)
	var k uint32
	if q&(q-1) == 0 {
		for j := l.Dim() - 1; j >= 0; j-- {
			k = k*uint32(q) + uint32(b[j])&uint32(q-1)
		}
		return k
	}
	for j := l.Dim() - 1; j >= 0; j-- {
		digit := b[j] % int32(q)
		if digit < 0 {
			digit += int32(q)
		}
		k = k*uint32(q) + uint32(digit)
	}
	return k
}

// Digits writes to b[:d] the digits 0 … q−1 of class k, the inverse of the index of Class.
func (l Lattice) Digits(b []int32, k uint32, q int) {
	for j := range l.Dim() {
		b[j] = int32(k % uint32(q))
		k /= uint32(q)
	}
}
