package cosetq

import (
	"errors"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// Batches come in their order, each begun before its turn and once; as many wait as there is room for, and an error comes behind what was read before it.
func TestAhead(t *testing.T) {
	broken := errors.New("no more")
	for _, c := range []struct {
		room, batches, most int
		fails               bool
	}{{0, 5, 1, false}, {3, 10, 4, true}, {1000, 200, mostAhead, false}, {3, 0, 0, true}, {3, 0, 0, false}} {
		var begun, got []int
		most := 0
		var failure error
		batches := func(yield func(*calib.Batch, error) bool) {
			for i := range c.batches {
				if !yield(&calib.Batch{First: i}, nil) {
					return
				}
			}
			if c.fails {
				yield(nil, broken)
			}
		}
		waiting := func() int { return len(begun) - len(got) }
		for b, err := range ahead(batches, func(b *calib.Batch) { begun = append(begun, b.First) }, func() bool { return waiting() <= c.room }) {
			if err != nil {
				failure = err
				continue
			}
			most = max(most, waiting())
			if !slices.Contains(begun, b.First) {
				t.Errorf("batch %d was not begun", b.First)
			}
			got = append(got, b.First)
		}
		if len(got) != c.batches || !slices.IsSorted(got) || !slices.Equal(begun, got) {
			t.Errorf("%+v: begun %v, got %v", c, begun, got)
		}
		if most != c.most || errors.Is(failure, broken) != c.fails {
			t.Errorf("%+v: %d at once, %v", c, most, failure)
		}
	}
	large := func(yield func(*calib.Batch, error) bool) {
		for yield(&calib.Batch{Inputs: map[string]*tensor.Tensor{"x": {Data: make([]byte, mostAheadBytes/4)}}}, nil) {
		}
	}
	begun := 0
	for range ahead(large, func(*calib.Batch) { begun++ }, func() bool { return true }) {
		if begun == 8 {
			break
		}
		if begun > 7 {
			t.Fatalf("%d large batches at once", begun)
		}
	}
	for range ahead(func(yield func(*calib.Batch, error) bool) { yield(&calib.Batch{}, nil) }, func(*calib.Batch) {}, func() bool { return true }) {
		break // which ends what is read from, or it panics
	}
}
