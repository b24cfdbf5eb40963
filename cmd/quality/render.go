package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/report"
)

// renderPage replaces the tables of a page: what stands between <!-- NAME --> and <!-- end --> becomes that of the JSON
// file NAME.json, with its chart NAME.svg beside the page.
func renderPage(page string, files []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	charts := map[string][]byte{}
	for _, file := range files {
		t, err := readTable(file)
		if err != nil {
			return err
		}
		lines, err := t.lines()
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		marked := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(name) + ` -->\n).*?(<!-- end -->)`)
		if !marked.Match(text) {
			return fmt.Errorf("%s has no place for %s", page, name)
		}
		chart := name + ".svg"
		text = marked.ReplaceAllFunc(text, func(old []byte) []byte {
			m := marked.FindSubmatch(old)
			return slices.Concat(m[1], []byte(t.markdown(chart, lines)), m[2])
		})
		var svg bytes.Buffer
		if err := report.WriteCurves(&svg, t.chart(lines)); err != nil {
			return err
		}
		charts[chart] = svg.Bytes()
	}
	for chart, svg := range charts {
		if err := os.WriteFile(filepath.Join(filepath.Dir(page), chart), svg, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(page, text, 0o644)
}

// markdown is the table: a row for each form, by its rate, with both methods.
func (t *table) markdown(chart string, lines []line) string {
	var b strings.Builder
	var mean float64
	for _, f := range t.Float {
		mean += f / float64(len(t.Float))
	}
	unit, float := "bits per byte lost", fmt.Sprintf("%.4f bits per byte", mean)
	if t.Task == eval.TaskClassification {
		unit, float = "points of top-1 lost (KL in nats)", fmt.Sprintf("%.1f of %d right", mean, t.Judged)
	}
	fmt.Fprintf(&b, "\n![%s: rate against loss](%s)\n\n", t.Name, chart)
	if len(t.Float) > 1 {
		float += fmt.Sprintf(", mean of %d divisions", len(t.Float))
	}
	fmt.Fprintf(&b, "%s, calibrated on %d samples; float: %s; measured %s with %s.\n\n", t.Name, t.Samples, float, t.Date, t.Program)
	fmt.Fprintf(&b, "| weights | bits/weight | to nearest: %s | with data |\n|---|---|---|---|\n", unit)
	written := map[string]bool{}
	for _, l := range lines {
		if written[l.form] {
			continue
		}
		written[l.form] = true
		nearest, data := "–", "–"
		for _, other := range lines {
			switch {
			case other.form != l.form:
			case other.method == "rtn":
				nearest = t.text(other)
			default:
				data = t.text(other)
			}
		}
		form := l.form
		if strings.Contains(form, ":") {
			form = "`" + form + "`"
		}
		fmt.Fprintf(&b, "| %s | %.3f | %s | %s |\n", form, l.bits, nearest, data)
	}
	b.WriteString("\n")
	return b.String()
}

// chart shows the rate against the loss of our forms and of int4.
func (t *table) chart(lines []line) report.CurveChart {
	c := report.CurveChart{Title: t.Name, X: "bits per weight, everything counted", Y: "lost bits per byte", Log: true}
	if t.Task == eval.TaskClassification {
		c.Y, c.Log = "lost points of top-1", false
	}
	series := map[string]*report.Series{}
	order := []string{"cosetq, rounded to nearest", "cosetq, with data", "cosetq, allocated", "int4, rounded to nearest", "int4, GPTQ"}
	for _, l := range lines {
		name := order[1]
		switch {
		case l.method == peer:
			name = order[4]
		case strings.HasPrefix(l.form, "int4"):
			name = order[3]
		case strings.HasPrefix(l.form, "allocated"):
			name = order[2]
		case l.method == "rtn":
			name = order[0]
		}
		if series[name] == nil {
			series[name] = &report.Series{Name: name}
		}
		s := series[name]
		s.X, s.Y = append(s.X, l.bits), append(s.Y, l.lost)
	}
	for _, name := range order {
		if series[name] != nil {
			c.Series = append(c.Series, *series[name])
		}
	}
	return c
}
