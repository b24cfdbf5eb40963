package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/eval"
)

// The lines are means over the divisions, ordered by rate; a form that one division lacks is an error.
func TestLines(t *testing.T) {
	one := &table{Name: "m", Task: eval.TaskClassification, Judged: 400, Samples: 100, Float: []float64{333, 339}, Results: []result{
		{Form: "d4:4,4", Method: "ldlq", Division: 1, Bits: 4, Score: 331, KL: 0.04},
		{Form: "d4:4,4", Method: "rtn", Division: 0, Bits: 4, Score: 329},
		{Form: "d4:4,4", Method: "ldlq", Division: 0, Bits: 4, Score: 330, KL: 0.02},
		{Form: "d4:4,4", Method: "rtn", Division: 1, Bits: 4, Score: 335},
		{Form: "d4:4", Method: "rtn", Division: 0, Bits: 2}, {Form: "d4:4", Method: "rtn", Division: 1, Bits: 2},
	}}
	lines, err := one.lines()
	if err != nil {
		t.Fatal(err)
	}
	text := one.markdown("m.svg", lines)
	for _, want := range []string{"336.0 of 400 right, mean of 2 divisions",
		"| `d4:4` | 2.000 | 84.00 (0.0000) | – |\n| `d4:4,4` | 4.000 | 1.00 (0.0000) | 1.38 (0.0300) |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	one.Results = one.Results[1:]
	if _, err := one.lines(); err == nil {
		t.Error("a form was measured in one division only, and nobody said so")
	}
}

// What was measured is taken over if build and inputs are the same.
func TestResume(t *testing.T) {
	*output = filepath.Join(t.TempDir(), "t.json")
	defer func() { *output = "" }()
	first := &table{Name: "m", Build: "b", Date: "then", Samples: 7, Float: []float64{1}}
	if err := first.resume(); err != nil {
		t.Fatal(err)
	}
	if err := first.add(result{Form: "d4:4", Method: "rtn", Score: 2}); err != nil {
		t.Fatal(err)
	}
	again := &table{Name: "m", Build: "b", Date: "now", Float: []float64{1}}
	if err := again.resume(); err != nil || again.find("d4:4", "rtn", 0) == nil || again.Date != "then" || again.Samples != 7 {
		t.Errorf("took over %+v, %v", again, err)
	}
	other := &table{Name: "m", Build: "c", Date: "now", Float: []float64{1}}
	if err := other.resume(); err != nil || len(other.Results) > 0 || other.Date != "now" {
		t.Errorf("took over %+v of another build, %v", other, err)
	}
	if err := os.WriteFile(*output, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.resume(); err == nil || !strings.Contains(err.Error(), *output) {
		t.Errorf("a broken file: %v", err)
	}
}

// Sums differ by contents and by settings.
func TestSumOf(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for path, text := range map[string]string{a: "x", b: "xx"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, files := range [][]string{{a}, {b}, {a, b}, {b, a}} {
		for _, settings := range []string{"1", "2"} {
			sum, err := sumOf(settings, files...)
			if err != nil || seen[sum] {
				t.Errorf("%v of %s: %s, %v", files, settings, sum, err)
			}
			seen[sum] = true
		}
	}
	if _, err := sumOf("", filepath.Join(dir, "c")); err == nil {
		t.Error("no error without the file")
	}
}
