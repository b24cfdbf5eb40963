package report_test

import (
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
