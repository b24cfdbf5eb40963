package models

import (
	"cmp"
	"math"
	"slices"
)

// subScanlines is how many lines a pixel row is sampled at. Along a line, coverage is exact.
const subScanlines = 4

// fill draws the glyph, its coordinates in pixels, by the non-zero winding rule: dst, side × side, gets the share of
// every pixel that is covered.
//
// golang.org/x/image/vector draws faster, but rounds differently on different processors, and the data set must be the
// same everywhere.
func (g glyph) fill(dst []float64, side int) {
	type crossing struct {
		x       float64
		winding int
	}
	clear(dst)
	var row []crossing
	for line := range side * subScanlines {
		y := (float64(line) + 0.5) / subScanlines
		row = row[:0]
		for _, polygon := range g {
			from := polygon[len(polygon)-1]
			for _, to := range polygon {
				if down := from.y <= y; down != (to.y <= y) {
					slope := (to.x - from.x) / (to.y - from.y)
					c := crossing{from.x + float64((y-from.y)*slope), 1}
					if !down {
						c.winding = -1
					}
					row = append(row, c)
				}
				from = to
			}
		}
		slices.SortFunc(row, func(a, b crossing) int { return cmp.Compare(a.x, b.x) })
		winding := 0
		for i, c := range row {
			if winding != 0 {
				cover(dst[line/subScanlines*side:][:side], row[i-1].x, c.x)
			}
			winding += c.winding
		}
	}
}

// cover adds one sampled line from x0 to x1 to a row of pixels.
func cover(row []float64, x0, x1 float64) {
	x0, x1 = max(x0, 0), min(x1, float64(len(row)))
	for i := int(x0); float64(i) < x1; i++ {
		left, right := max(x0, float64(i)), min(x1, float64(i)+1)
		row[i] += (right - left) / subScanlines
	}
}

// blur is the mean over three neighbours across and three down, what lies outside counting as zero.
func blur(dst, src []float64, side int) {
	for y := range side {
		for x := range side {
			var sum float64
			for v := max(y-1, 0); v <= min(y+1, side-1); v++ {
				for u := max(x-1, 0); u <= min(x+1, side-1); u++ {
					sum += src[v*side+u]
				}
			}
			dst[y*side+x] = sum / 9
		}
	}
}

// grayLevels is how many shades the images have. Few of them keep the noise, and with it the stored files, small.
const grayLevels = 16

// shade rounds an intensity in [0, 1] to one of the shades, as a byte.
func shade(v float64) byte {
	const top = grayLevels - 1
	level := math.Floor(float64(min(max(v, 0), 1)*top) + 0.5)
	return byte(level * (255 / top))
}
