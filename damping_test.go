package cosetq

import (
	"math"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

// countedSamples is data of which a sample's label is its number.
type countedSamples int

func (n countedSamples) Len() int                            { return int(n) }
func (n countedSamples) Sample(i int) (*calib.Sample, error) { return &calib.Sample{Label: i}, nil }
func (n countedSamples) Random() bool                        { return false }
func (n countedSamples) Close() error                        { return nil }

// Every sample comes once, and both halves reach over all of the data.
func TestEveryOther(t *testing.T) {
	for _, n := range []int{1, 2, 7, 8} {
		seen := map[int]bool{}
		for i := range n {
			s, err := everyOther{countedSamples(n)}.Sample(i)
			if err != nil || seen[s.Label] || (s.Label%2 == 0) != (2*i < n) {
				t.Errorf("of %d samples, number %d comes at place %d (%v)", n, s.Label, i, err)
			}
			seen[s.Label] = true
		}
	}
}

// rowsOf are the moments of rows that weigh alike.
type rowsOf [][]float32

func (r rowsOf) Mean(dst []float32) error {
	clear(dst)
	for _, x := range r {
		for i, v := range x {
			dst[i] += v / float32(len(r))
		}
	}
	return nil
}

func (r rowsOf) Rows(dst []float32, first, last int) error {
	clear(dst)
	for _, x := range r {
		n := 0
		for i := first; i < last; i++ {
			for _, v := range x[i:] {
				dst[n] += x[i] * v / float32(len(r))
				n++
			}
		}
	}
	return nil
}

func (r rowsOf) observation(weight float64) *calib.Observation {
	return &calib.Observation{Columns: len(r[0]), Rows: int64(len(r)), Full: true, Weight: weight, Moments: r}
}

// What is left when a part of the rows is taken away are the moments of the others, also around their mean.
func TestDivided(t *testing.T) {
	all := rowsOf{{1, 2, 0.1}, {3, -1, 0.3}, {0, 4, 0}, {-2, 2, 0}, {5, 1, 0}} // the last column is silent in the rest
	for _, corrected := range []bool{false, true} {
		train, test, err := divided(all.observation(1), all[:2].observation(1), corrected)
		if err != nil {
			t.Fatal(err)
		}
		alone, _, err := divided(all.observation(1), all[2:].observation(1), corrected)
		if err != nil {
			t.Fatal(err)
		}
		if train.Samples != 2 || test.Samples != 3 {
			t.Errorf("%d and %d rows", train.Samples, test.Samples)
		}
		for i, want := range alone.Moments {
			if !(math.Abs(test.Moments[i]-want) <= 1e-5) {
				t.Errorf("moment %d is %v, want %v", i, test.Moments[i], want)
			}
		}
	}
}
