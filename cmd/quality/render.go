package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/report"
)

// renderPage replaces the tables of a page: what stands between <!-- NAME --> and <!-- end --> becomes that of the JSON
// file NAME.json, or the mean of NAME-0.json and so on, with its chart NAME.svg beside the page.
func renderPage(page string, files []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	tables, stems, err := readTables(files)
	if err != nil {
		return err
	}
	for _, stem := range stems {
		t, err := mean(tables[stem])
		if err != nil {
			return fmt.Errorf("%s: %w", stem, err)
		}
		marked := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(stem) + ` -->\n).*?(<!-- end -->)`)
		if !marked.Match(text) {
			return fmt.Errorf("%s has no place for %s", page, stem)
		}
		chart := stem + ".svg"
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

// readTables reads the tables of every name, and lists the names in their order.
func readTables(files []string) (tables map[string][]*table, stems []string, err error) {
	tables = map[string][]*table{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		t := &table{}
		if err := json.Unmarshal(b, t); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		stem := regexp.MustCompile(`(-[0-9]+)?\.json$`).ReplaceAllString(filepath.Base(file), "")
		if tables[stem] == nil {
			stems = append(stems, stem)
		}
		tables[stem] = append(tables[stem], t)
	}
	return tables, stems, nil
}

// mean is the table of the means over divisions of the data, which must have the same forms.
func mean(tables []*table) (*table, error) {
	all := *tables[0]
	all.divisions = len(tables)
	all.Results = slices.Clone(all.Results)
	share := 1 / float64(len(tables))
	all.Float = 0
	for i := range all.Results {
		r := &all.Results[i]
		r.Bits, r.Score, r.KL = 0, 0, 0
	}
	for _, t := range tables {
		if t.Program != all.Program || t.Judged != all.Judged || t.Samples != all.Samples || len(t.Results) != len(all.Results) {
			return nil, errors.New("the divisions of the data were measured differently")
		}
		all.Float += share * t.Float
		for i, from := range t.Results {
			r := &all.Results[i]
			if from.Form != r.Form || from.Method != r.Method {
				return nil, fmt.Errorf("one division of the data has %s (%s) where another has %s (%s)", r.Form, r.Method, from.Form, from.Method)
			}
			r.Bits, r.Score, r.KL = r.Bits+share*from.Bits, r.Score+share*from.Score, r.KL+share*from.KL
		}
	}
	return &all, nil
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
		unit, float = "points of top-1 lost (KL in nats)", fmt.Sprintf("%.1f of %d right", t.Float, t.Judged)
	}
	fmt.Fprintf(&b, "\n![%s: rate against loss](%s)\n\n", t.Name, chart)
	if t.divisions > 1 {
		float += fmt.Sprintf(", mean of %d divisions", t.divisions)
	}
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
