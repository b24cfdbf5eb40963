package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/cosetq/cosetq/eval"
)

// result is what one form of a model achieves in one division of the data.
type result struct {
	Form     string  `json:"form"`   // codec or block
	Method   string  `json:"method"` // rtn, ldlq, or how another tool says
	Division int     `json:"division"`
	Bits     float64 `json:"bits_per_weight"`
	Score    float64 `json:"score"`        // bits per byte, or mean number of samples that are right
	KL       float64 `json:"kl,omitempty"` // of samples: mean divergence from the float model's probabilities, in nats
}

// table is all that was measured of a model.
type table struct {
	Name    string    `json:"name"`
	Task    string    `json:"task"`
	Program string    `json:"program"`
	Build   string    `json:"build"` // sum of the programs and of what they were given: rows of another one are not comparable
	Date    string    `json:"date"`
	Samples int       `json:"samples"` // calibrated on
	Judged  int       `json:"judged"`  // bytes, or images in one division
	Float   []float64 `json:"float"`   // score of the float model, by division
	Results []result  `json:"results"` // in the order in which they were found
}

// find returns what a form achieves in a division, or nil.
func (t *table) find(form, method string, division int) *result {
	for i, r := range t.Results {
		if r.Form == form && r.Method == method && r.Division == division {
			return &t.Results[i]
		}
	}
	return nil
}

// add says what was found and writes what there is so far.
func (t *table) add(results ...result) error {
	for _, r := range results {
		fmt.Printf("%-28s %-5s division %d  %.3f bits  %.4f  (float %.4f)  KL %.4f\n", r.Form, r.Method, r.Division, r.Bits, r.Score, t.Float[r.Division], r.KL)
	}
	t.Results = append(t.Results, results...)
	if *output == "" {
		return nil
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*output+".new", append(b, '\n'), 0o644); err != nil { // a run that is killed leaves a whole file
		return err
	}
	return os.Rename(*output+".new", *output)
}

// resume takes over what -o holds of the same build and inputs.
func (t *table) resume() error {
	if *output == "" {
		return nil
	}
	before, err := readTable(*output)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Build == t.Build && before.Name == t.Name {
		t.Date, t.Samples, t.Results = before.Date, before.Samples, before.Results
		fmt.Printf("%d rows are in %s\n", len(t.Results), *output)
	}
	return nil
}

func readTable(path string) (*table, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := &table{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// sumOf is over the contents of files and over settings.
func sumOf(settings string, files ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, settings)
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		n, err := io.Copy(h, f)
		_ = f.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// line is the mean of a form over all divisions of the data.
type line struct {
	form, method     string
	bits             float64
	lost, divergence float64 // bits per byte or points of accuracy, and nats
}

// lines lists the forms by their rate. Each must have been measured in every division.
func (t *table) lines() ([]line, error) {
	var list []line
	share := 1 / float64(len(t.Float))
	for _, first := range t.Results {
		if slices.ContainsFunc(list, func(l line) bool { return l.form == first.Form && l.method == first.Method }) {
			continue
		}
		l := line{form: first.Form, method: first.Method}
		for d, float := range t.Float {
			r := t.find(first.Form, first.Method, d)
			if r == nil {
				return nil, fmt.Errorf("%s: division %d of the data has no %s (%s): the run did not come to its end", t.Name, d, first.Form, first.Method)
			}
			lost := r.Score - float
			if t.Task == eval.TaskClassification {
				lost = 100 * (float - r.Score) / float64(t.Judged)
			}
			l.bits, l.lost, l.divergence = l.bits+share*r.Bits, l.lost+share*lost, l.divergence+share*r.KL
		}
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.bits, b.bits), cmp.Compare(a.form, b.form), cmp.Compare(a.method, b.method))
	})
	return list, nil
}

func (t *table) text(l line) string {
	if t.Task == eval.TaskClassification {
		return fmt.Sprintf("%.2f (%.4f)", l.lost, l.divergence)
	}
	return fmt.Sprintf("%+.4f", l.lost)
}
