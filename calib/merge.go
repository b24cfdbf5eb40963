package calib

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Merge joins the statistics of runs of one model over different data, each weighted with its rows; or all shares of one
// run, which give what the run would have given without shares, to the bit. The result reads from
// its parts, which must stay open while it is used. An activation that only some runs reached counts for those. The error
// wraps ErrFingerprint when the models differ, and is a *TwiceError when a part is given twice. Rows that weigh by gradients and
// rows that weigh alike are not joined.
func Merge(parts ...*Statistics) (*Statistics, error) {
	if len(parts) == 0 {
		return nil, errors.New("statistics: nothing to merge")
	}
	first := parts[0]
	if err := checkShares(parts); err != nil {
		return nil, err
	}
	merged := &Statistics{Model: first.Model, Fingerprint: first.Fingerprint, Program: first.Program}
	for _, p := range parts {
		if p.Fingerprint != first.Fingerprint {
			return nil, fmt.Errorf("%w: %s (%s) and %s (%s)", ErrFingerprint, first.Model, shortPrint(first.Fingerprint), p.Model, shortPrint(p.Fingerprint))
		}
		if (p.Draws > 0) != (first.Draws > 0) {
			return nil, errors.New("statistics: some weigh rows by the gradients of the outputs, and some weigh all alike: their sums have no common unit")
		}
		if p == first || p.Shard == "" { // shares are of the same data
			merged.Data = append(merged.Data, p.Data...)
			merged.Draws += p.Draws
		}
	}
	for i, p := range parts {
		for j, q := range parts[:i] {
			if same, err := p.sameSums(q); same || err != nil {
				return nil, cmp.Or(err, error(&TwiceError{j, i}))
			}
		}
	}
	var err error
	if merged.Observations, err = mergeAll(parts, func(s *Statistics) []*Observation { return s.Observations }); err != nil {
		return nil, err
	}
	if merged.Gradients, err = mergeAll(parts, func(s *Statistics) []*Observation { return s.Gradients }); err != nil {
		return nil, err
	}
	merged.Sort()
	return merged, nil
}

// TwiceError says that two of the parts of a merge, counted from 0, hold the same sums: the same data would count twice.
type TwiceError struct{ First, Second int }

func (e *TwiceError) Error() string {
	return fmt.Sprintf("statistics: part %d holds the same sums as part %d, whose data would count twice", e.Second+1, e.First+1)
}

// sameSums reports whether what is known of the observed rows is the same: how many there were, their extremes, what they weigh and
// their means. Without rows nothing is.
func (s *Statistics) sameSums(other *Statistics) (bool, error) {
	if len(s.Observations) != len(other.Observations) {
		return false, nil
	}
	var rows int64
	for i, o := range s.Observations {
		p := other.Observations[i]
		if o.Tag != p.Tag || o.Columns != p.Columns || o.Rows != p.Rows || o.Min != p.Min || o.Max != p.Max || o.Weight != p.Weight {
			return false, nil
		}
		a, b := make([]float32, o.Columns), make([]float32, o.Columns)
		if err := errors.Join(o.Moments.Mean(a), p.Moments.Mean(b)); err != nil {
			return false, err
		}
		if !slices.Equal(a, b) {
			return false, nil
		}
		rows += o.Rows
	}
	return rows > 0, nil
}

// mergeAll merges the observations that of takes from each part, by their tags.
func mergeAll(parts []*Statistics, of func(*Statistics) []*Observation) ([]*Observation, error) {
	at := map[string]int{}
	var members [][]*Observation
	for _, p := range parts {
		for _, o := range of(p) {
			i, ok := at[o.Tag]
			if !ok {
				i = len(members)
				at[o.Tag], members = i, append(members, nil)
			}
			members[i] = append(members[i], o)
		}
	}
	var merged []*Observation
	for _, list := range members {
		o, err := mergeObservations(list)
		if err != nil {
			return nil, err
		}
		merged = append(merged, o)
	}
	return merged, nil
}

// checkShares makes sure that parts are no shares, or all shares of one run.
func checkShares(parts []*Statistics) error {
	first := parts[0]
	_, count, _ := strings.Cut(first.Shard, "/")
	seen := map[string]bool{}
	for _, p := range parts {
		switch {
		case (p.Shard == "") != (first.Shard == ""):
			return errors.New("statistics: some are shares of a run and some are whole; join the shares first")
		case p.Shard == "":
			continue
		case !strings.HasSuffix(p.Shard, "/"+count):
			return fmt.Errorf("statistics: share %s and share %s are of different divisions", first.Shard, p.Shard)
		case seen[p.Shard]:
			return fmt.Errorf("statistics: share %s is given twice", p.Shard)
		case !slices.Equal(p.Data, first.Data):
			return fmt.Errorf("statistics: share %s and share %s are of different data", first.Shard, p.Shard)
		}
		seen[p.Shard] = true
	}
	if n, err := strconv.Atoi(count); first.Shard != "" && (err != nil || n != len(parts)) {
		return fmt.Errorf("statistics: %d shares of %s are given", len(parts), count)
	}
	return nil
}

// shortPrint is enough of a fingerprint to tell two apart.
func shortPrint(f string) string { return f[:min(len(f), len(fingerprintPrefix)+12)] }

func mergeObservations(list []*Observation) (*Observation, error) {
	merged := *list[0]
	if len(list) == 1 && merged.Rows > 0 { // of one share: as it is, for a sum would have 0 in the place of -0
		return &merged, nil
	}
	merged.Weights = slices.Clone(merged.Weights)
	merged.Rows, merged.BadRows, merged.Weight, merged.Damping = 0, 0, 0, 0
	var sum sumMoments
	for _, o := range list {
		if o.Columns != merged.Columns || o.Full != merged.Full {
			return nil, fmt.Errorf("statistics: %q is [%d] in one part and [%d], or in another form, in the next", o.Tag, merged.Columns, o.Columns)
		}
		for _, w := range o.Weights {
			if !slices.Contains(merged.Weights, w) {
				merged.Weights = append(merged.Weights, w)
			}
		}
		merged.BadRows += o.BadRows
		if o.Rows == 0 {
			continue
		}
		if merged.Rows == 0 {
			merged.Min, merged.Max = o.Min, o.Max
		}
		merged.Min, merged.Max = math.Min(merged.Min, o.Min), math.Max(merged.Max, o.Max)
		merged.Rows += o.Rows
		merged.Weight += o.Weight * float64(o.Rows)
		sum = append(sum, weightedMoments{o.Moments, float64(o.Rows)})
	}
	if merged.Rows > 0 {
		merged.Weight /= float64(merged.Rows)
	}
	for i := range sum {
		sum[i].share /= float64(merged.Rows)
	}
	merged.Moments, merged.Damping = sum, mergeDampings(list)
	return &merged, nil
}

// mergeDampings is the damping for the sum of several parts: noise falls with the rows, so inverse dampings add up. It is not known
// where one of them is not.
func mergeDampings(list []*Observation) float64 {
	var inverse float64
	var last *Observation
	for _, o := range list {
		if o.Rows > 0 && o.Damping == 0 {
			return 0
		}
		if o.Rows > 0 {
			inverse += 1 / o.Damping
			last = o
		}
	}
	switch {
	case last == nil:
		return 0
	case inverse == 1/last.Damping: // the only one
		return last.Damping
	}
	return 1 / inverse
}

// weightedMoments is one part of a sum.
type weightedMoments struct {
	Moments
	share float64
}

// sumMoments adds the moments of several runs; of none, it is zero.
type sumMoments []weightedMoments

func (s sumMoments) Mean(dst []float32) error {
	return s.add(dst, func(m Moments, part []float32) error { return m.Mean(part) })
}

func (s sumMoments) Rows(dst []float32, first, last int) error {
	return s.add(dst, func(m Moments, part []float32) error { return m.Rows(part, first, last) })
}

func (s sumMoments) add(dst []float32, read func(m Moments, part []float32) error) error {
	part, sum := make([]float32, len(dst)), make([]float64, len(dst))
	for _, m := range s {
		if err := read(m.Moments, part); err != nil {
			return err
		}
		for i, v := range part {
			sum[i] += m.share * float64(v)
		}
	}
	for i, v := range sum {
		dst[i] = float32(v)
	}
	return nil
}
