package main

import (
	"strings"
	"testing"
)

// The table of several divisions is their mean, and none is made of divisions that were measured differently.
func TestMean(t *testing.T) {
	division := func(float, score, kl float64) *table {
		return &table{Name: "m", Task: "classification", Judged: 400, Samples: 100, Float: float,
			Results: []result{{Form: "d4:4,4", Method: "ldlq", Bits: 4, Score: score, KL: kl}}}
	}
	got, err := mean([]*table{division(333, 330, 0.02), division(339, 331, 0.04)})
	if err != nil {
		t.Fatal(err)
	}
	text := got.markdown("m.svg")
	for _, want := range []string{"336.0 of 400 right, mean of 2 divisions", "| `d4:4,4` | 4.000 | – | 1.38 (0.0300) |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for name, change := range map[string]func(*table){
		"another program": func(o *table) { o.Program = "x" },
		"fewer forms":     func(o *table) { o.Results = nil },
		"another form":    func(o *table) { o.Results[0].Form = "d4:4" },
	} {
		other := division(333, 330, 0.02)
		change(other)
		if _, err := mean([]*table{division(333, 330, 0.02), other}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
