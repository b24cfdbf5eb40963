package lattice

import "math"

// nearestD finds the nearest point of D_n = {integer points of even sum}, n = len(x) (Conway & Sloane 1982): round
// every coordinate; if the sum is odd, move the coordinate with the largest rounding error to its second nearest integer.
func nearestD(dst []int32, x []float64) {
	var sum int32
	worst, largest := 0, -1.0
	for j, c := range x {
		f := math.RoundToEven(c)
		dst[j] = int32(f)
		sum += dst[j]
		if e := math.Abs(c - f); e > largest {
			worst, largest = j, e
		}
	}
	if sum&1 == 0 {
		return
	}
	if x[worst] >= float64(dst[worst]) {
		dst[worst]++
	} else {
		dst[worst]--
	}
}

// nearestD32 is nearestD in the arithmetic of the group encoder, for n = 4 or 8. It returns the squared error: the
// sum of the squared rounding errors, plus 1 − 2·(the largest of them) when a coordinate was moved.
func nearestD32(v *[MaxDim]int32, y *[MaxDim]float32, n int) float32 {
	var square [MaxDim]float32
	var sum int32
	worst, largest, up := 0, float32(-1), false
	for j := range n {
		f := round32(y[j])
		v[j] = int32(f)
		sum += v[j]
		e := y[j] - f
		square[j] = float32(e * e)
		if a := abs32(e); a > largest {
			worst, largest, up = j, a, e >= 0
		}
	}
	err := sum32(&square)
	if sum&1 == 0 {
		return err
	}
	if up {
		v[worst]++
	} else {
		v[worst]--
	}
	return err + (1 - float32(2*largest))
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }
