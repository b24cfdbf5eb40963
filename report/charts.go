package report

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colours of the charts stand for variables of the page's style, which has a light and a dark form.
var (
	ink    = color.RGBA{0x01, 0x01, 0x01, 0xff}
	faint  = color.RGBA{0x02, 0x02, 0x02, 0xff}
	first  = color.RGBA{0x03, 0x03, 0x03, 0xff}
	second = color.RGBA{0x04, 0x04, 0x04, 0xff}
)

var variables = strings.NewReplacer("#010101", "var(--ink)", "#020202", "var(--faint)", "#030303", "var(--first)", "#040404", "var(--second)")

const (
	chartWidth = 7 * vg.Inch
	rowHeight  = 0.17 * vg.Inch
	// mostRows is how many layers a chart shows: the worst. More are in the table only.
	mostRows = 150
)

// newPlot returns a plot in the page's colours without a background.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = ink, ink
		a.Label.TextStyle.Color, a.Tick.Label.Color = ink, ink
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Legend.TextStyle.Color = ink
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(4) // lines would touch: they are as high as their letters
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
	return p
}

// ticks are the usual ones with as few digits as they need.
func ticks(low, high float64) []plot.Tick {
	list := plot.DefaultTicks{}.Ticks(low, high)
	for i := range list {
		if list[i].Label != "" {
			list[i].Label = strconv.FormatFloat(list[i].Value, 'g', 4, 64)
		}
	}
	return list
}

// wholeTicks are those of things that are counted.
func wholeTicks(low, high float64) []plot.Tick {
	return slices.DeleteFunc(ticks(low, high), func(t plot.Tick) bool { return t.Value != math.Trunc(t.Value) })
}

// textSize is how much smaller text is written than it was measured: whatever font a reader has, it then fits.
const textSize = 0.84

var fontSize = regexp.MustCompile(`font-size:([0-9.]+)px`)

var svgStart = regexp.MustCompile(`(?s)^.*?<svg [^>]*viewBox="([^"]*)"[^>]*>`)

// svg draws a plot as an element of the page. The description is what those hear who cannot see it.
func svg(p *plot.Plot, height vg.Length, description string) (template.HTML, error) {
	canvas := vgsvg.New(chartWidth, height)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	text := b.String()
	start := svgStart.FindStringSubmatch(text)
	if start == nil {
		return "", fmt.Errorf("the drawing begins with %.80q instead of an svg element with a viewBox", text)
	}
	text = fontSize.ReplaceAllStringFunc(text, func(style string) string {
		size, err := strconv.ParseFloat(fontSize.FindStringSubmatch(style)[1], 64)
		if err != nil {
			return style
		}
		return fmt.Sprintf("font-size:%.4gpx", textSize*size)
	})
	start = svgStart.FindStringSubmatch(text)
	head := fmt.Sprintf(`<svg viewBox="%s" role="img" aria-label="%s">`, start[1], template.HTMLEscapeString(description))
	return template.HTML(head + variables.Replace(text[len(start[0]):])), nil //nolint:gosec // our own drawing
}

// limit is the SQNR that no code of a Gaussian source exceeds, in dB per bit.
var limit = 20 * math.Log10(2)

// rateChart shows bits per weight against SQNR: every layer, the same weight at other rates, and the limit.
func rateChart(page Page) (template.HTML, error) {
	var points plotter.XYs
	label := "SQNR of the weights, dB"
	for _, l := range page.Layers {
		v := l.SQNR
		if v == nil && l.Local != nil {
			v, label = l.Local, "SQNR, dB"
		}
		if l.Bits != nil && v != nil {
			points = append(points, plotter.XY{X: *l.Bits, Y: *v})
		}
	}
	if len(points) == 0 {
		return "", nil
	}
	p := newPlot("bits per weight, everything counted", label)
	high := 5.0
	for _, at := range points {
		high = max(high, math.Ceil(at.X))
	}
	bound, err := plotter.NewLine(plotter.XYs{{X: 1.5, Y: 1.5 * limit}, {X: high, Y: high * limit}})
	if err != nil {
		return "", err
	}
	bound.Color, bound.Dashes = ink, []vg.Length{vg.Points(4), vg.Points(3)}
	p.Add(bound)
	p.Legend.Add("limit for Gaussian weights", bound)
	for _, c := range page.Curves {
		xy := make(plotter.XYs, len(c.Rate))
		for i := range xy {
			xy[i] = plotter.XY{X: c.Rate[i], Y: c.SQNR[i]}
		}
		line, marks, err := plotter.NewLinePoints(xy)
		if err != nil {
			return "", err
		}
		line.Color, marks.Color, marks.Shape = second, second, draw.CrossGlyph{}
		p.Add(line, marks)
		p.Legend.Add("weights of "+short(c.Name)+" at 2, 3 and 4 bits", line, marks)
	}
	scatter, err := plotter.NewScatter(points)
	if err != nil {
		return "", err
	}
	scatter.Color, scatter.Shape, scatter.Radius = first, draw.CircleGlyph{}, vg.Points(2.5)
	p.Add(scatter)
	if label == "SQNR, dB" {
		p.Legend.Add("outputs of the layers, each alone", scatter)
	} else {
		p.Legend.Add("weights of the layers", scatter)
	}
	return svg(p, 4*vg.Inch, fmt.Sprintf("Rate against distortion of %d layers; the numbers are in the table of layers", len(points)))
}

// rows draws a dot for each value in a row of its own, the first on top, with a bar that leads the eye from its name. The axis
// starts near the least value: what matters is how layers differ, and dots, unlike bars, do not say that nothing is at the left.
func rows(names []string, values []float64, label string, fill color.Color) (*plot.Plot, vg.Length, error) {
	p := newPlot(label, "")
	slices.Reverse(names)
	slices.Reverse(values)
	low, high := slices.Min(values), slices.Max(values)
	p.X.Min, p.X.Max = math.Floor(low-0.5*(high-low)-0.5), high
	dots := make(plotter.XYs, len(values))
	for i, v := range values {
		dots[i] = plotter.XY{X: v, Y: float64(i)}
		stem, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: float64(i)}, dots[i]})
		if err != nil {
			return nil, 0, err
		}
		stem.Color, stem.Width = fill, vg.Points(1)
		p.Add(stem)
	}
	scatter, err := plotter.NewScatter(dots)
	if err != nil {
		return nil, 0, err
	}
	scatter.Color, scatter.Shape, scatter.Radius = fill, draw.CircleGlyph{}, vg.Points(3.5)
	p.Add(scatter)
	p.NominalY(names...)
	return p, vg.Length(len(names)+1)*rowHeight + 0.7*vg.Inch, nil
}

// lost is the SQNR of a layer, of the output where that was measured.
func (l Layer) lost() *float64 {
	if l.Local != nil {
		return l.Local
	}
	return l.SQNR
}

// measured lists the layers whose SQNR is known.
func (p Page) measured() []Layer {
	return slices.DeleteFunc(slices.Clone(p.Layers), func(l Layer) bool { return l.lost() == nil })
}

// WorstOf says of how many layers the chart of them shows the worst; "" where it shows all.
func (p Page) WorstOf() string {
	n := len(p.measured())
	if n <= mostRows {
		return ""
	}
	return fmt.Sprintf("The %d of %d layers that lost most.", mostRows, n)
}

// layerChart shows a row for every layer, or the worst of many.
func layerChart(page Page) (template.HTML, error) {
	layers := page.measured()
	if len(layers) == 0 {
		return "", nil
	}
	label := "SQNR of the weights, dB"
	if page.HasLocal() {
		label = "SQNR of the layer's output alone, dB"
	}
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(*layers[a].lost(), *layers[b].lost()) })
	order = order[:min(mostRows, len(order))]
	slices.Sort(order)
	var names []string
	var values []float64
	for _, i := range order {
		names, values = append(names, short(layers[i].Node)), append(values, *layers[i].lost())
	}
	description := fmt.Sprintf("%s, of %d layers in the order of the model; the numbers are in the table of layers", label, len(names))
	p, height, err := rows(names, values, label, first)
	if err != nil {
		return "", err
	}
	return svg(p, height, description)
}

// sensitivityChart shows what keeping layers in float gains, and how the error builds up.
func sensitivityChart(page Page) (template.HTML, error) {
	var accumulated, local plotter.XYs
	for _, l := range page.Layers {
		if l.Accumulated != nil && l.Local != nil {
			x := float64(len(local) + 1)
			accumulated = append(accumulated, plotter.XY{X: x, Y: *l.Accumulated})
			local = append(local, plotter.XY{X: x, Y: *l.Local})
		}
	}
	if len(local) == 0 {
		return "", nil
	}
	p := newPlot("layer, in the order of the model", "SQNR of the output, dB")
	for _, line := range []struct {
		name  string
		xy    plotter.XYs
		color color.Color
	}{{"of the layer alone", local, first}, {"of the model up to here", accumulated, second}} {
		l, marks, err := plotter.NewLinePoints(line.xy)
		if err != nil {
			return "", err
		}
		l.Color, marks.Color, marks.Shape, marks.Radius = line.color, line.color, draw.CircleGlyph{}, vg.Points(1.5)
		p.Add(l)
		if len(local) <= mostRows {
			p.Add(marks)
		}
		p.Legend.Add(line.name, l)
	}
	p.X.Tick.Marker = plot.TickerFunc(wholeTicks)
	p.Y.Min, p.Y.Max = min(0, p.Y.Min), max(0, p.Y.Max)
	p.Y.Max += 0.15 * (p.Y.Max - p.Y.Min) // room for the legend
	return svg(p, 3.2*vg.Inch, fmt.Sprintf("How the error builds up over %d layers; the numbers are in the table of layers", len(local)))
}

// histogramChart shows the weights of a layer as an outline over the bars of what they were coded as.
func histogramChart(h Histogram) (template.HTML, error) {
	p := newPlot("weight", "share of the weights")
	width := (h.High - h.Low) / float64(len(h.Weights))
	var outline plotter.XYs
	for i, v := range h.Weights {
		x := h.Low + float64(i)*width
		outline = append(outline, plotter.XY{X: x, Y: v}, plotter.XY{X: x + width, Y: v})
	}
	coded := make([]plotter.HistogramBin, len(h.Coded))
	for i, v := range h.Coded {
		x := h.Low + float64(i)*width
		coded[i] = plotter.HistogramBin{Min: x, Max: x + width, Weight: v}
	}
	histogram := &plotter.Histogram{Bins: coded, Width: width, FillColor: second}
	p.Add(histogram)
	line, err := plotter.NewLine(outline)
	if err != nil {
		return "", err
	}
	line.Color, line.Width = first, vg.Points(1.5)
	p.Add(line)
	p.Legend.Add("weights", line)
	p.Legend.Add("as coded", histogram)
	return svg(p, 3.2*vg.Inch, "Histogram of the weights of "+h.Name+" and of what they were coded as")
}

// short cuts the middle out of a long name.
func short(name string) string {
	const most = 34
	r := []rune(name)
	if len(r) <= most {
		return name
	}
	return string(r[:most/2-1]) + "…" + string(r[len(r)-most/2:])
}
