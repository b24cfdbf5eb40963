package report

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"sort"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Series are the points of one line of a chart, in any order.
type Series struct {
	Name string
	X, Y []float64
}

// CurveChart is a chart of its own, for a document: lines over a common axis. With Log the vertical axis is logarithmic, and points
// at or below zero are left out.
type CurveChart struct {
	Title, X, Y string
	Log         bool
	Series      []Series
}

// curveColours tell lines apart on a light and on a dark page, also for readers who do not tell red from green.
var curveColours = []color.RGBA{{0x88, 0x88, 0x88, 0xff}, {0x00, 0x72, 0xb2, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0xcc, 0x79, 0xa7, 0xff}}

// WriteCurves draws the chart as an SVG file.
func WriteCurves(w io.Writer, c CurveChart) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	if c.Log {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	p.Add(grid)
	shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}}
	for i, s := range c.Series {
		if len(s.X) != len(s.Y) {
			return fmt.Errorf("report: series %q has %d and %d coordinates", s.Name, len(s.X), len(s.Y))
		}
		var points plotter.XYs
		for j := range s.X {
			if !c.Log || s.Y[j] > 0 {
				points = append(points, plotter.XY{X: s.X[j], Y: s.Y[j]})
			}
		}
		if len(points) == 0 {
			continue
		}
		sort.SliceStable(points, func(a, b int) bool { return points[a].X < points[b].X })
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("report: series %q: %w", s.Name, err)
		}
		line.Color, marks.Color = curveColours[i%len(curveColours)], curveColours[i%len(curveColours)]
		marks.Shape, marks.Radius = shapes[i%len(shapes)], vg.Points(2.5)
		p.Add(line, marks)
		p.Legend.Add(s.Name, line, marks)
	}
	if c.Log {
		p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	}
	canvas := vgsvg.New(7*vg.Inch, 4.5*vg.Inch)
	p.Draw(draw.New(canvas))
	_, err := canvas.WriteTo(w)
	return err
}
