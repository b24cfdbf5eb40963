package models

import (
	"math"
	"testing"
)

// A rectangle covers exactly its area, and a hole in it is empty.
func TestFill(t *testing.T) {
	square := func(x0, y0, x1, y1 float64) []point { return []point{{x0, y0}, {x1, y0}, {x1, y1}, {x0, y1}} }
	reversed := func(p []point) []point { return []point{p[3], p[2], p[1], p[0]} }
	for _, tt := range []struct {
		name string
		g    glyph
		area float64
	}{
		{"square", glyph{square(2, 3, 6, 8)}, 20},
		{"part of a pixel", glyph{square(2.25, 3, 2.75, 4)}, 0.5},
		{"other way round", glyph{reversed(square(2, 3, 6, 8))}, 20},
		{"hole", glyph{square(1, 1, 9, 9), reversed(square(3, 3, 5, 5))}, 60},
		{"overlap counts once", glyph{square(1, 1, 5, 5), square(3, 1, 7, 5)}, 24},
		{"beyond the image", glyph{square(-5, -5, 30, 30)}, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst := make([]float64, 100)
			tt.g.fill(dst, 10)
			var sum float64
			for i, v := range dst {
				if v < 0 || v > 1+1e-12 {
					t.Errorf("pixel %d is %g", i, v)
				}
				sum += v
			}
			if math.Abs(sum-tt.area) > 1e-9 {
				t.Errorf("area %g, want %g", sum, tt.area)
			}
		})
	}
}

func TestShade(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		want byte
	}{{-1, 0}, {0, 0}, {0.03, 0}, {0.04, 17}, {0.5, 136}, {1, 255}, {2, 255}} {
		if got := shade(tt.v); got != tt.want {
			t.Errorf("shade(%g) = %d, want %d", tt.v, got, tt.want)
		}
	}
}
