package rewrite

import (
	"fmt"
	"strings"
)

// contiguous returns row-major strides.
func contiguous(dims []int64) []int64 {
	s, p := make([]int64, len(dims)), int64(1)
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = p
		p *= max(dims[i], 1)
	}
	return s
}

func product(dims []int64) int64 {
	p := int64(1)
	for _, d := range dims {
		p *= d
	}
	return p
}

// boundedProduct multiplies positive dimensions; ok is false when one is not positive or the product exceeds limit.
func boundedProduct(dims []int64, limit int64) (p int64, ok bool) {
	p = 1
	for _, d := range dims {
		if d < 1 || d > limit/p {
			return 0, false
		}
		p *= d
	}
	return p, true
}

func wrapAxis(axis int64, rank, last int) (int, error) {
	if axis < 0 {
		axis += int64(rank)
	}
	if axis < 0 || axis > int64(last) {
		return 0, fmt.Errorf("axis %d is outside a tensor of rank %d", axis, rank)
	}
	return int(axis), nil
}

// restride finds the strides that show the same elements in the same order with other dimensions; ok is false when no
// strides can. Dimensions of both sides are matched in the shortest stretches of equal product; inside a stretch the old
// axes must lie one inside the other.
func restride(dims, strides, to []int64) ([]int64, bool) {
	var d, s []int64
	for i := range dims {
		if dims[i] != 1 {
			d, s = append(d, dims[i]), append(s, strides[i])
		}
	}
	out := make([]int64, len(to))
	for i, j := 0, 0; j < len(to); {
		if to[j] == 1 {
			out[j] = 1
			j++
			continue
		}
		i0, j0, a, b := i, j, int64(1), int64(1)
		for a == 1 || a != b {
			if a <= b {
				a *= d[i]
				i++
			} else {
				b *= to[j]
				j++
			}
		}
		for j < len(to) && to[j] == 1 {
			j++
		}
		for k := i0; k+1 < i; k++ {
			if s[k] != s[k+1]*d[k+1] {
				return nil, false
			}
		}
		stride := s[i-1]
		for k := j - 1; k >= j0; k-- {
			out[k] = stride
			stride *= to[k]
		}
	}
	return out, true
}

// dimsText writes dimensions the way shape: patterns read them.
func dimsText(dims []int64) string {
	s := make([]string, len(dims))
	for i, d := range dims {
		s[i] = fmt.Sprint(d)
	}
	return strings.Join(s, "x")
}
