// Package report writes what was measured of a quantized model as one HTML file that needs nothing else: charts as SVG, light
// and dark, no script, readable by keyboard and on a phone.
//
// It draws what it is given and computes nothing: the root package fills in a [Page].
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"fixed": func(digits int, v *float64) string {
		if v == nil {
			return "–"
		}
		return fmt.Sprintf("%.*f", digits, *v)
	},
}).Parse(pageText))

// Fact is a name and a value, as text.
type Fact struct{ Name, Value string }

// Layer is one MatMul, Gemm or 1×1 Conv of the model. Figures that were not measured are nil.
type Layer struct {
	Node, Op, Shape, Codec string
	Bits                   *float64 // per weight
	SQNR                   *float64 // of the weights, in dB
	Local                  *float64 // SQNR of the layer's output alone, in dB
	Accumulated            *float64 // SQNR of the layer's output in the quantized model, in dB
	Status, Reason         string   // Reason in words, "" for a quantized one
}

// Trial is a layer that was tried in another form, and the option that gives it.
type Trial struct {
	Node, Option string
	Cost         string  // by which the file would grow
	Gain         float64 // dB at the outputs
}

// Curve is the same weight coded at several rates.
type Curve struct {
	Name string
	Rate []float64 // bits per weight
	SQNR []float64 // dB
}

// Histogram counts the weights of one layer and what they were coded as, over equal bins.
type Histogram struct {
	Name           string
	Low, High      float64
	Weights, Coded []float64 // shares, one per bin
}

// Gained prints the gain: an error that is gone altogether gains infinity.
func (t Trial) Gained() string {
	if math.IsInf(t.Gain, 1) {
		return "+∞"
	}
	return fmt.Sprintf("%+.2f", t.Gain)
}

// Speed is how long one run takes.
type Speed struct {
	Name     string
	P50, P95 float64 // ms
	Rate     string  // tokens or samples per second
	Against  string  // the first model, in words
	Size     string
}

// Page is everything that a report shows. Parts that are empty are left out.
type Page struct {
	Title, Program string
	Headline       []Fact // the figures that matter most
	Notes          []string
	ForOutputs     bool // weights were rounded for what their layers put out, which costs SQNR of the weights
	Layers         []Layer
	Curves         []Curve
	Histograms     []Histogram
	Trials         []Trial
	Suggestion     string
	Speeds         []Speed
	SpeedNote      string // under what conditions, or why there are none
	Recipe         []Fact
	Command        string

	figures
}

// figures are the charts, drawn.
type figures struct {
	RateChart, LayerChart, SensitivityChart template.HTML
	HistogramCharts                         []template.HTML
}

// Write draws the page.
func Write(w io.Writer, p Page) error {
	var err error
	draw := func(to *template.HTML, chart func(Page) (template.HTML, error)) {
		if err == nil {
			*to, err = chart(p)
		}
	}
	draw(&p.RateChart, rateChart)
	draw(&p.LayerChart, layerChart)
	draw(&p.SensitivityChart, sensitivityChart)
	for _, h := range p.Histograms {
		var svg template.HTML
		draw(&svg, func(Page) (template.HTML, error) { return histogramChart(h) })
		p.HistogramCharts = append(p.HistogramCharts, svg)
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// HasSQNR tells whether the error of weights was measured.
func (p Page) HasSQNR() bool {
	return slices.ContainsFunc(p.Layers, func(l Layer) bool { return l.SQNR != nil })
}

// HasLocal tells whether the outputs of layers were compared.
func (p Page) HasLocal() bool {
	return slices.ContainsFunc(p.Layers, func(l Layer) bool { return l.Local != nil })
}

// Coverage counts the layers by what became of them, for the table's caption.
func (p Page) Coverage() string {
	count := map[string]int{}
	var order []string
	for _, l := range p.Layers {
		what := l.Status
		if l.Reason != "" {
			what += " (" + l.Reason + ")"
		}
		if count[what] == 0 {
			order = append(order, what)
		}
		count[what]++
	}
	slices.SortStableFunc(order, func(a, b string) int { return count[b] - count[a] })
	var parts []string
	for _, what := range order {
		parts = append(parts, fmt.Sprintf("%d %s", count[what], what))
	}
	return strings.Join(parts, ", ")
}
