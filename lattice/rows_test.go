package lattice

import (
	"math"
	"testing"
)

// A batch gives what its items give one by one.
func TestRowBatch(t *testing.T) {
	c := mustCodec(t, "e8:2,2:g3,4")
	b := RowBatch{Weights: gaussianRow(3, 4*24), Width: 24, At: []int32{2, 0, 2, 3}, Steps: []float32{0.3, 0.5, 0.1, 0}}
	b.Weights[30] = float32(math.NaN()) // row 1 is not asked for
	sse, only := make([]float64, 4), make([]float64, 4)
	indices, gains := make([]uint16, 4*3*c.GroupIndices()), make([]uint8, 4*3)
	if err := c.Distortions(only, b); err != nil {
		t.Fatal(err)
	}
	if err := c.EncodeRows(indices, gains, sse, b); err != nil {
		t.Fatal(err)
	}
	for i, step := range b.Steps {
		row := b.Weights[24*b.At[i]:][:24]
		oneIndices, oneGains := make([]uint16, 3*c.GroupIndices()), make([]uint8, 3)
		want, err := c.EncodeRow(oneIndices, oneGains, row, step)
		if err != nil {
			t.Fatal(err)
		}
		if sse[i] != want || only[i] != want {
			t.Errorf("item %d: errors %v and %v, want %v", i, sse[i], only[i], want)
		}
		for k, v := range oneIndices {
			if indices[i*len(oneIndices)+k] != v {
				t.Errorf("item %d: index %d is %d, want %d", i, k, indices[i*len(oneIndices)+k], v)
			}
		}
		for k, v := range oneGains {
			if gains[3*i+k] != v {
				t.Errorf("item %d: gain %d is %d, want %d", i, k, gains[3*i+k], v)
			}
		}
	}
	if err := b.CheckCodes(c, indices, gains, sse); err != nil {
		t.Error(err)
	}
	if err := b.CheckCodes(c, indices, gains[1:], sse); err == nil {
		t.Error("a gain is missing: no error")
	}
	// One item alone, as a device leaves those to the CPU that it cannot code.
	single := b.Item(2)
	if err := c.Distortions(sse[:1], single); err != nil || single.Len() != 1 || sse[0] != only[2] {
		t.Errorf("item 2 alone: error %v, %v; want %v", sse[0], err, only[2])
	}
	b.At[0] = 1
	if err := c.Distortions(only, b); err != nil || !math.IsInf(only[0], 1) || only[1] != sse[1] {
		t.Errorf("a row with NaN: %v, %v", only, err)
	}
	if err := c.EncodeRows(indices, gains, sse, b); err == nil {
		t.Error("a row with NaN was coded")
	}
}

func TestRowBatchLengths(t *testing.T) {
	c := mustCodec(t, "d4:4")
	weights := make([]float32, 48)
	for name, b := range map[string]RowBatch{
		"no width":      {Weights: weights, Steps: []float32{1}},
		"odd width":     {Weights: weights, Width: 12, Steps: []float32{1}},
		"part of a row": {Weights: weights[:40], Width: 16, Steps: []float32{1}},
		"few rows":      {Weights: weights[:0], Width: 16, Steps: []float32{1}},
		"no steps":      {Weights: weights, Width: 16, At: []int32{0, 1}, Steps: []float32{1}},
		"far row":       {Weights: weights, Width: 16, At: []int32{3}, Steps: []float32{1}},
		"negative row":  {Weights: weights, Width: 16, At: []int32{-1}, Steps: []float32{1}},
	} {
		if err := c.Distortions(make([]float64, 1), b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	b := RowBatch{Weights: weights, Width: 48, Steps: []float32{1}}
	if err := c.Distortions(nil, b); err == nil {
		t.Error("no place for results: no error")
	}
	if err := c.EncodeRows(make([]uint16, 12), make([]uint8, 5), make([]float64, 1), b); err == nil {
		t.Error("few gains: no error")
	}
}
