package report_test

import (
	"math"
	"regexp"
	"strings"
	"testing"
)

// Of more layers than a chart can show it shows the worst, wherever they are in the model, and says so.
func TestWorstLayersAreShown(t *testing.T) {
	p := sample(400)
	worst := -40.0
	p.Layers[399].Node, p.Layers[399].Local = "lm_head", &worst
	page := string(write(t, p))
	chart, _, _ := strings.Cut(page[strings.Index(page, `id="layers"`):], "</svg>")
	if !strings.Contains(chart, ">lm_head<") || !strings.Contains(page, "The 150 of 400 layers that lost most.") {
		t.Error("the worst of 400 layers, the last one, is not in the chart, or nothing says that others are not")
	}
	if few := string(write(t, sample(150))); strings.Contains(few, "layers that lost most") {
		t.Error("all layers are shown, and it says that they are not")
	}
}

// Layers are counted: there is no layer 1.5.
func TestLayersAreWhole(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7} {
		page := string(write(t, sample(n)))
		_, page, _ = strings.Cut(page, `id="sensitivity"`)
		chart, _, _ := strings.Cut(page, "</svg>")
		axis := regexp.MustCompile(`>([0-9]+\.[0-9]+)</text>`).FindAllStringSubmatch(chart, -1)
		if len(axis) > 0 {
			t.Errorf("%d layers: the chart counts %v", n, axis)
		}
	}
}

// Layers that lost more than there was, as the outputs of a broken model do, are within the chart, and a gain without end is no number.
func TestNegativeRatios(t *testing.T) {
	p := sample(2)
	for i := range p.Layers[:2] {
		local, accumulated := -3-float64(i), -4-float64(i)
		p.Layers[i].Local, p.Layers[i].Accumulated = &local, &accumulated
	}
	p.Trials[0].Gain = math.Inf(1)
	page := string(write(t, p))
	_, chart, _ := strings.Cut(page, `id="sensitivity"`)
	chart, _, _ = strings.Cut(chart, "</svg>")
	if !strings.Contains(chart, ">0</text>") || !strings.Contains(chart, ">-5</text>") {
		t.Error("the axis of the chart does not go from 0 to below -4 dB")
	}
	if !strings.Contains(page, ">&#43;∞<") {
		t.Error("an infinite gain is not shown as one")
	}
}
