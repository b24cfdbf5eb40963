package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/report"
)

// renderPage replaces the tables of a page: what stands between <!-- NAME --> and <!-- end --> becomes that of the JSON
// file NAME.json, with its chart NAME.svg beside the page.
func renderPage(page string, files []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var t table
		if err := json.Unmarshal(b, &t); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		stem := strings.TrimSuffix(filepath.Base(file), ".json")
		marked := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(stem) + ` -->\n).*?(<!-- end -->)`)
		if !marked.Match(text) {
			return fmt.Errorf("%s has no place for %s", page, stem)
		}
		chart := filepath.Base(stem) + ".svg"
		text = marked.ReplaceAllFunc(text, func(old []byte) []byte {
			m := marked.FindSubmatch(old)
			return slices.Concat(m[1], []byte(t.markdown(chart)), m[2])
		})
		var svg bytes.Buffer
		if err := report.WriteCurves(&svg, t.chart()); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(page), chart), svg.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(page, text, 0o644)
}

// loss is what a form loses against float: bits per byte, or points of accuracy.
func (t *table) loss(score float64) float64 {
	if t.Task == "classification" {
		return 100 * (t.Float - score) / float64(t.Judged)
	}
	return score - t.Float
}

func (t *table) lossText(r result) string {
	if t.Task == "classification" {
		return fmt.Sprintf("%.2f (%.4f)", t.loss(r.Score), r.KL)
	}
	return fmt.Sprintf("%+.4f", t.loss(r.Score))
}

// markdown is the table: a line for each form, by its rate, with both methods.
func (t *table) markdown(chart string) string {
	var b strings.Builder
	unit, float := "bits per byte lost", fmt.Sprintf("%.4f bits per byte", t.Float)
	if t.Task == "classification" {
		unit, float = "points of top-1 lost (KL in nats)", fmt.Sprintf("%.0f of %d right", t.Float, t.Judged)
	}
	fmt.Fprintf(&b, "\n![%s: rate against loss](%s)\n\n", t.Name, chart)
	fmt.Fprintf(&b, "%s, calibrated on %d samples; float: %s; measured %s with %s.\n\n", t.Name, t.Samples, float, t.Date, t.Program)
	fmt.Fprintf(&b, "| weights | bits/weight | to nearest: %s | with data |\n|---|---|---|---|\n", unit)
	type line struct {
		form          string
		bits          float64
		nearest, data string
	}
	lines := map[string]*line{}
	var order []*line
	for _, r := range t.Results {
		l := lines[r.Form]
		if l == nil {
			l = &line{form: r.Form, bits: r.Bits, nearest: "–", data: "–"}
			lines[r.Form] = l
			order = append(order, l)
		}
		if r.Method == "rtn" {
			l.nearest = t.lossText(r)
		} else {
			l.data = t.lossText(r)
		}
	}
	slices.SortStableFunc(order, func(a, b *line) int { return cmp.Compare(a.bits, b.bits) })
	for _, l := range order {
		form := l.form
		if strings.Contains(form, ":") {
			form = "`" + form + "`"
		}
		fmt.Fprintf(&b, "| %s | %.3f | %s | %s |\n", form, l.bits, l.nearest, l.data)
	}
	b.WriteString("\n")
	return b.String()
}

// chart shows the rate against the loss of our forms and of int4.
func (t *table) chart() report.CurveChart {
	c := report.CurveChart{Title: t.Name, X: "bits per weight, everything counted", Y: "lost bits per byte", Log: true}
	if t.Task == "classification" {
		c.Y, c.Log = "lost points of top-1", false
	}
	series := map[string]*report.Series{}
	order := []string{"cosetq, rounded to nearest", "cosetq, with data", "cosetq, allocated", "int4, rounded to nearest", "int4, GPTQ"}
	for _, r := range t.Results {
		name := order[1]
		switch {
		case r.Method == "peer":
			name = order[4]
		case strings.HasPrefix(r.Form, "int4"):
			name = order[3]
		case strings.HasPrefix(r.Form, "allocated"):
			name = order[2]
		case r.Method == "rtn":
			name = order[0]
		}
		if series[name] == nil {
			series[name] = &report.Series{Name: name}
		}
		s := series[name]
		s.X, s.Y = append(s.X, r.Bits), append(s.Y, t.loss(r.Score))
	}
	for _, name := range order {
		if series[name] != nil {
			c.Series = append(c.Series, *series[name])
		}
	}
	return c
}
