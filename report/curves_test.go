package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestWriteCurves(t *testing.T) {
	for _, log := range []bool{false, true} {
		c := CurveChart{Title: "model <1>", X: "bits", Y: "loss", Log: log, Series: []Series{
			{Name: "nearest", X: []float64{4, 2, 3}, Y: []float64{0.01, 0.2, 0}},
			{Name: "data", X: []float64{2, 4}, Y: []float64{0.1, 0.003}},
		}}
		var first, again bytes.Buffer
		if err := WriteCurves(&first, c); err != nil {
			t.Fatal(err)
		}
		if err := WriteCurves(&again, c); err != nil || !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Errorf("log %v: two drawings differ (%v)", log, err)
		}
		for _, want := range []string{"nearest", "data", "bits", "loss"} {
			if !strings.Contains(first.String(), ">"+want+"<") {
				t.Errorf("log %v: the chart does not show %q", log, want)
			}
		}
		d := xml.NewDecoder(&first)
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := WriteCurves(io.Discard, CurveChart{Series: []Series{{X: []float64{1}}}}); err == nil {
		t.Error("coordinates that do not pair were drawn")
	}
}
