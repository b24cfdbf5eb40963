package report_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/cosetq/cosetq/internal/browser"
	"github.com/cosetq/cosetq/report"
)

var screenshots = flag.String("screenshots", "", "folder for screenshots of the page")

// sample is a page with every part, with as many layers as a large model has, and names that want to be markup.
func sample(layers int) report.Page {
	number := func(v float64) *float64 { return &v }
	p := report.Page{
		Title: "model.q.onnx", Program: "cosetq test", Notes: []string{"the data was made up"},
		Headline:   []report.Fact{{Name: "file", Value: "96.68 MB → 11.53 MB"}, {Name: "bits per weight", Value: "3.258"}},
		Curves:     []report.Curve{{Name: "/blocks.0/mlp/fc1/MatMul", Rate: []float64{2.25, 3.25, 4.25}, SQNR: []float64{11, 17, 23}}},
		Histograms: []report.Histogram{{Name: "fc1", Low: -1, High: 1, Weights: []float64{0.1, 0.4, 0.4, 0.1}, Coded: []float64{0.2, 0.3, 0.3, 0.2}}},
		Trials:     []report.Trial{{Node: "fc2", Option: "--exclude 'fc2'", Cost: "121.2 kB", Gain: 2.5}},
		Suggestion: "The first layer that breaks 20.0 dB is fc2: 19.2 dB with it.",
		Speeds:     []report.Speed{{Name: "model.onnx", P50: 1.5, P95: 1.75, Rate: "100 samples/s", Against: "-", Size: "96.68 MB"}},
		SpeedNote:  "2 threads", Recipe: []report.Fact{{Name: "bits", Value: "3"}}, Command: "cosetq quantize model.onnx --bits 3",
	}
	for i := range layers {
		p.Layers = append(p.Layers, report.Layer{Node: fmt.Sprintf("/blocks.%d/<b>attn</b>/qkv/MatMul & more", i), Op: "MatMul", Shape: "512×512",
			Codec: "d4:2,4:g3,4,5,6", Bits: number(3.25), SQNR: number(17 - float64(i%5)/4), Local: number(20 - float64(i%7)), Accumulated: number(18 - float64(i%7)),
			Status: "quantized"})
	}
	p.Layers = append(p.Layers, report.Layer{Node: "scores", Op: "MatMul", Shape: "–", Status: "skipped", Reason: "no constant side"})
	return p
}

func write(t *testing.T, p report.Page) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.Write(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSelfContained(t *testing.T) {
	page := write(t, sample(1500))
	if len(page) > 1e6 {
		t.Errorf("%d bytes, want less than 1 MB even for a model of 1500 layers", len(page))
	}
	for _, outside := range []string{`<script`, `<link`, `<img`, `@import`, `url\(`, `(src|href)="[^#]`, `https?://`} {
		for _, found := range regexp.MustCompile(outside).FindAllString(string(page), 3) {
			t.Errorf("the page has %q in it, so it may need something else", found)
		}
	}
	if strings.Contains(string(page), "<b>attn") {
		t.Error("a name of the model became markup")
	}
	if strings.Contains(string(page), "#0101") {
		t.Error("a colour of the charts stayed a placeholder")
	}
}

var legendLine = regexp.MustCompile(`(?s)<text x="[-0-9.]+" y="([-0-9.]+)"[^>]*font-size:([0-9.]+)px[^>]*>(limit for Gaussian|weights of)`)

// Lines of a legend do not touch.
func TestLegendsAreSpaced(t *testing.T) {
	found := legendLine.FindAllSubmatch(write(t, sample(3)), -1)
	if len(found) != 3 {
		t.Fatalf("%d lines of a legend, want 3", len(found))
	}
	number := func(text []byte) float64 {
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i, line := range found[1:] {
		if apart, size := math.Abs(number(line[1])-number(found[i][1])), number(line[2]); apart < 1.3*size {
			t.Errorf("lines %d and %d of the legend are %.1f apart, their letters %.1f high", i, i+1, apart, size)
		}
	}
}

// Everything a page may lack: nothing was measured, nothing ran.
func TestSparse(t *testing.T) {
	page := string(write(t, report.Page{Title: "empty", Layers: []report.Layer{{Node: "a", Status: "skipped", Reason: "no constant side"}}, SpeedNote: "Not timed: no ONNX Runtime"}))
	for _, want := range []string{"Not timed", "1 skipped (no constant side)", "<h2 id=\"coverage\">"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if strings.Contains(page, "alone dB") || strings.Contains(page, "weights dB") {
		t.Error("the page has columns of what was not measured")
	}
	if full := string(write(t, sample(2))); !strings.Contains(full, "alone dB") || !strings.Contains(full, "weights dB") {
		t.Error("the page lacks the columns of what was measured")
	}
	if strings.Contains(page, "<svg") || strings.Contains(page, "href=\"#weights\"") {
		t.Error("the page links to or draws what was not measured")
	}
}

func TestInChromium(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, write(t, sample(40)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		width int64
		dark  bool
	}{{1280, false}, {390, true}} {
		name := fmt.Sprintf("%d px, dark %v", tt.width, tt.dark)
		p := browser.Open(t, "file://"+file, tt.width, tt.dark)
		var overflow int
		p.Eval(t, "document.documentElement.scrollWidth - document.documentElement.clientWidth", &overflow)
		if overflow > 0 {
			t.Errorf("%s: the page is %d px wider than the window", name, overflow)
		}
		var charts, drawn int
		p.Eval(t, "document.querySelectorAll('svg').length", &charts)
		p.Eval(t, "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height > 100 && s.getBBox().width > 100).length", &drawn)
		if charts != 4 || drawn != charts {
			t.Errorf("%s: %d of %d charts drawn, want 4", name, drawn, charts)
		}
		var contrast float64
		p.Eval(t, contrastScript, &contrast)
		if contrast < 7 {
			t.Errorf("%s: the contrast of the text is %.1f, want 7", name, contrast)
		}
		// By keyboard: the first stop skips to the figures, and every part that scrolls can be reached.
		p.Press(t, kb.Tab, 1)
		var first string
		p.Eval(t, "document.activeElement.getAttribute('href')", &first)
		if first != "#figures" {
			t.Errorf("%s: the first stop of the keyboard is %q", name, first)
		}
		var unreachable int
		p.Eval(t, "[...document.querySelectorAll('.wide')].filter(e => e.tabIndex !== 0 || !e.getAttribute('aria-label')).length", &unreachable)
		if unreachable != 0 {
			t.Errorf("%s: %d parts that scroll cannot be reached by keyboard or have no name", name, unreachable)
		}
		if problems := p.Problems(); len(problems) > 0 {
			t.Errorf("%s: the console says %q", name, problems)
		}
		if *screenshots != "" {
			if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("report-%d.png", tt.width)), p.Screenshot(t), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
}

// contrastScript computes the contrast ratio of WCAG 2 between the text and its background.
const contrastScript = `(() => {
  const light = c => { const [r, g, b] = c.match(/\d+/g).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(document.body);
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()`
