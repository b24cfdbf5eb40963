package calib_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
)

// All shares of a run, in any order, give the file of the run without shares, to the bit; anything less is refused.
func TestMergeShares(t *testing.T) {
	observations := func() (a, b, c *calib.Observation) {
		rng := rand.New(rand.NewPCG(31, 7))
		return sampled{randomRows(rng, 9, 4), 4, true}.observation("a", "w"),
			sampled{randomRows(rng, 9, 3), 3, false}.observation("b", "v"),
			sampled{randomRows(rng, 9, 5), 5, true}.observation("c", "u")
	}
	file := func(s *calib.Statistics) []byte {
		t.Helper()
		b, err := os.ReadFile(save(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	share := func(shard string, o ...*calib.Observation) *calib.Statistics {
		s := statistics(o...)
		s.Shard = shard
		return s
	}
	a, b, c := observations()
	whole := file(statistics(a, b, c))
	merged, err := calib.Merge(share("1/2", c, a), share("0/2", b))
	if err != nil {
		t.Fatal(err)
	}
	if got := file(merged); !bytes.Equal(got, whole) {
		t.Errorf("merged shares make another file of %d bytes, not %d", len(got), len(whole))
	}
	other := share("1/2", c)
	other.Data = []calib.DataUsed{{Recipe: "another"}}
	for want, parts := range map[string][]*calib.Statistics{
		"given twice":         {share("0/2", a), share("0/2", a)},
		"1 shares of 2":       {share("0/2", a)},
		"different divisions": {share("0/2", a), share("1/3", b)},
		"some are shares":     {share("0/2", a), statistics(b)},
		"different data":      {share("0/2", a), other},
		"1 shares of x":       {share("0/x", a)},
	} {
		if _, err := calib.Merge(parts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
	stored, err := calib.OpenStatistics(save(t, share("0/2", a)))
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	if stored.Shard != "0/2" {
		t.Errorf("the file is of share %q", stored.Shard)
	}
}

// minusZeros are the moments of gradients behind a Relu, say: products of numbers below zero and of zeros.
type minusZeros struct{}

func (minusZeros) Mean(dst []float32) error { return minusZeros{}.Rows(dst, 0, 0) }
func (minusZeros) Rows(dst []float32, _, _ int) error {
	for i := range dst {
		dst[i] = float32(math.Copysign(0, -1))
	}
	return nil
}

// Zeros keep their signs, and a weight all of its digits.
func TestMergeSharesToTheBit(t *testing.T) {
	var files [][]byte
	zeros := func(shard string) *calib.Statistics {
		s := statistics(&calib.Observation{Tag: "a", Activation: "a", Weights: []string{"w"}, Columns: 2, Rows: 49, Full: true, Weight: 0.1, Moments: minusZeros{}})
		s.Shard = shard
		return s
	}
	merged, err := calib.Merge(zeros("0/1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*calib.Statistics{zeros(""), merged} {
		b, err := os.ReadFile(save(t, s))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("a share that is all of the work makes another file when it is merged")
	}
}
