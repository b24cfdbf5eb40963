package lattice

import "math"

// nearestZ rounds every coordinate, halves to even.
func nearestZ(dst []int32, x []float64) {
	for j, c := range x {
		dst[j] = int32(math.RoundToEven(c))
	}
}

// roundBias is added and subtracted to round a float32 of magnitude below 2^22 to the nearest integer, halves to even.
const roundBias = 3 << 22

// round32 rounds to the nearest integer, halves to even, for |y| < 2^22.
func round32(y float32) float32 { return y + roundBias - roundBias }

// nearestZ32 is nearestZ in the arithmetic of the group encoder. It returns the squared error.
func nearestZ32(v *[MaxDim]int32, y *[MaxDim]float32, d int) float32 {
	var square [MaxDim]float32
	for j := range d {
		f := round32(y[j])
		v[j] = int32(f)
		square[j] = float32((y[j] - f) * (y[j] - f))
	}
	return sum32(&square)
}

// sum32 adds eight terms in the fixed order ((0+1)+(2+3))+((4+5)+(6+7)); absent terms are 0.
func sum32(t *[MaxDim]float32) float32 {
	return ((t[0] + t[1]) + (t[2] + t[3])) + ((t[4] + t[5]) + (t[6] + t[7]))
}
