package models

import (
	"fmt"
	"math"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gobolditalic"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/gomonoitalic"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

type point struct{ x, y float64 }

// A glyph is the outline of a digit: closed polygons, the box around them centred at the origin and one unit high,
// with y pointing down.
type glyph [][]point

// A typeface holds the digits 0 to 9 of one font.
type typeface [10]glyph

// typefaces reads the digits of the Go fonts. They differ in weight, slant and width, and the monospaced ones have a
// dotted or slashed zero.
func typefaces() ([]typeface, error) {
	var faces []typeface
	for _, ttf := range [][]byte{
		goregular.TTF, gomedium.TTF, gobold.TTF, goitalic.TTF, gobolditalic.TTF,
		gomono.TTF, gomonobold.TTF, gomonoitalic.TTF,
	} {
		f, err := sfnt.Parse(ttf)
		if err != nil {
			return nil, fmt.Errorf("models: parse a font: %w", err)
		}
		var face typeface
		for digit := range face {
			if face[digit], err = loadGlyph(f, rune('0'+digit)); err != nil {
				return nil, fmt.Errorf("models: digit %d of a font: %w", digit, err)
			}
		}
		faces = append(faces, face)
	}
	return faces, nil
}

func loadGlyph(f *sfnt.Font, r rune) (glyph, error) {
	var buf sfnt.Buffer
	index, err := f.GlyphIndex(&buf, r)
	if err != nil {
		return nil, err
	}
	// At this size a fixed-point unit is a 64th of a font unit or less: the outline comes out as designed.
	segments, err := f.LoadGlyph(&buf, index, fixed.I(int(f.UnitsPerEm())), nil)
	if err != nil {
		return nil, err
	}
	var g glyph
	var at point
	for _, s := range segments {
		switch s.Op {
		case sfnt.SegmentOpMoveTo:
			at = toPoint(s.Args[0])
			g = append(g, []point{at})
			continue
		case sfnt.SegmentOpLineTo:
			at = toPoint(s.Args[0])
			g[len(g)-1] = append(g[len(g)-1], at)
		case sfnt.SegmentOpQuadTo:
			from, control, to := at, toPoint(s.Args[0]), toPoint(s.Args[1])
			// Four chords for a curve: at 28 pixels nobody sees the corners.
			for _, t := range []float64{0.25, 0.5, 0.75, 1} {
				at = bezier(from, control, to, t)
				g[len(g)-1] = append(g[len(g)-1], at)
			}
		default:
			return nil, fmt.Errorf("outline of %q has a cubic curve, which TrueType does not know", r)
		}
	}
	return g.normalized(), nil
}

func toPoint(p fixed.Point26_6) point { return point{float64(p.X) / 64, float64(p.Y) / 64} }

// bezier is a point of a quadratic curve. The conversions here and below keep compilers from fusing a product with a
// sum, which some processors round differently.
func bezier(a, b, c point, t float64) point {
	wa, wb, wc := float64((1-t)*(1-t)), float64(2*t*(1-t)), float64(t*t)
	return point{
		float64(wa*a.x) + float64(wb*b.x) + float64(wc*c.x),
		float64(wa*a.y) + float64(wb*b.y) + float64(wc*c.y),
	}
}

// normalized moves the box around the outline to the origin and scales it to height one.
func (g glyph) normalized() glyph {
	lo, hi := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, polygon := range g {
		for _, p := range polygon {
			lo.x, lo.y = min(lo.x, p.x), min(lo.y, p.y)
			hi.x, hi.y = max(hi.x, p.x), max(hi.y, p.y)
		}
	}
	for _, polygon := range g {
		for i, p := range polygon {
			polygon[i] = point{(p.x - (lo.x+hi.x)/2) / (hi.y - lo.y), (p.y - (lo.y+hi.y)/2) / (hi.y - lo.y)}
		}
	}
	return g
}

// An affine maps a point to (a·x + b·y + dx, c·x + d·y + dy).
type affine struct{ a, b, c, d, dx, dy float64 }

func (g glyph) transformed(m affine) glyph {
	out := make(glyph, len(g))
	for i, polygon := range g {
		out[i] = make([]point, len(polygon))
		for j, p := range polygon {
			out[i][j] = point{
				float64(m.a*p.x) + float64(m.b*p.y) + m.dx,
				float64(m.c*p.x) + float64(m.d*p.y) + m.dy,
			}
		}
	}
	return out
}
