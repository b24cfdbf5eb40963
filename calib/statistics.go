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

// Statistics is what calibration learned of a model: the moments of the activations that its weights are multiplied by.
type Statistics struct {
	Model        string // file name of the model, for people
	Fingerprint  string // of the model, see [Fingerprint]
	Program      string // the version of cosetq that made them
	Shard        string // i/n for share i of n of the observations, "" for all
	Data         []DataUsed
	Observations []*Observation
	// Gradients holds, where gradients are known, the moments of those at the outputs [..., N] of the layers of one weight each.
	Gradients []*Observation
	Draws     int64 // of a loss, of which each gave a gradient at every row it depends on
}

// DataUsed says what data a model was run on.
type DataUsed struct {
	Recipe  string `json:"recipe"` // file name of the recipe, or random:N
	Kind    string `json:"kind"`   // of the recipe, or random
	Samples int    `json:"samples"`
	Random  bool   `json:"random,omitempty"` // the data was made up
}

// Observation holds the statistics of one activation A [..., K] over all rows of all samples.
type Observation struct {
	Tag        string   // names it within the model
	Activation string   // the name of the value
	Weights    []string // the initializers it is multiplied by
	Columns    int      // K
	Rows       int64    // how many rows were seen; 0 for a value that was never reached
	BadRows    int64    // rows left out because of NaN or infinity
	Full       bool     // Moments is a matrix; otherwise its diagonal
	Min, Max   float64  // of all numbers
	Weight     float64  // E[w], the mean of what the rows weigh
	Damping    float64  // of mean diagonals, what samples left out ask for to be added to the diagonal; 0 where that is not known
	Moments    Moments
}

// Moments gives the weighted moments of an activation, E[w x] and E[w x xᵀ], piece by piece, so that they need not be in
// memory. A row weighs what its errors cost: see docs/calibration.md. It may be used by several goroutines at once.
type Moments interface {
	// Mean writes E[w x] to dst [K].
	Mean(dst []float32) error
	// Rows writes rows first … last−1 of E[w x xᵀ], of row i the K−i columns from the diagonal on, one row after the other;
	// or entries first … last−1 of its diagonal where that is all there is. dst has just that length.
	Rows(dst []float32, first, last int) error
}

// rowNumbers is how many numbers rows first … last−1 of an observation have.
func rowNumbers(full bool, columns, first, last int) int64 {
	if !full {
		return int64(last - first)
	}
	return int64(last-first) * int64(2*columns-first-last+1) / 2
}

// Find returns the observation of that tag, or nil.
func (s *Statistics) Find(tag string) *Observation {
	for _, o := range s.Observations {
		if o.Tag == tag {
			return o
		}
	}
	return nil
}

// Matrix returns E[w x xᵀ] [K × K], symmetric and row-major. It is an error when only the diagonal is known.
func (o *Observation) Matrix() ([]float64, error) {
	all := make([]int, o.Columns)
	for i := range all {
		all[i] = i
	}
	return o.Submatrix(all)
}

// Submatrix is [Observation.Matrix] of some of the columns, which rise.
func (o *Observation) Submatrix(columns []int) ([]float64, error) {
	if !o.Full {
		return nil, fmt.Errorf("statistics: only the diagonal of %q is known", o.Tag)
	}
	k := len(columns)
	m := make([]float64, k*k)
	row := make([]float32, o.Columns)
	for i, c := range columns {
		if err := o.Moments.Rows(row[:o.Columns-c], c, c+1); err != nil {
			return nil, err
		}
		for j := i; j < k; j++ {
			v := float64(row[columns[j]-c])
			m[i*k+j], m[j*k+i] = v, v
		}
	}
	return m, nil
}

// Diagonal returns E[w x²] [K].
func (o *Observation) Diagonal() ([]float64, error) {
	d, row := make([]float64, o.Columns), make([]float32, o.Columns)
	if !o.Full {
		if err := o.Moments.Rows(row, 0, o.Columns); err != nil {
			return nil, err
		}
		for i, v := range row {
			d[i] = float64(v)
		}
		return d, nil
	}
	for i := range d {
		if err := o.Moments.Rows(row[:o.Columns-i], i, i+1); err != nil {
			return nil, err
		}
		d[i] = float64(row[0])
	}
	return d, nil
}

// Mean returns E[w x]/E[w] [K], the mean of the rows by their weights.
func (o *Observation) Mean() ([]float64, error) {
	v, mean := make([]float32, o.Columns), make([]float64, o.Columns)
	if err := o.Moments.Mean(v); err != nil {
		return nil, err
	}
	if o.Weight == 0 { // nothing but zeros
		return mean, nil
	}
	for i, x := range v {
		mean[i] = float64(x) / o.Weight
	}
	return mean, nil
}

// Gradient returns the moments of the gradients at the outputs of a weight, or nil.
func (s *Statistics) Gradient(weight string) *Observation {
	for _, o := range s.Gradients {
		if slices.Contains(o.Weights, weight) {
			return o
		}
	}
	return nil
}

// ErrFingerprint says that statistics belong to another model.
var ErrFingerprint = errors.New("the statistics belong to another model")

// Sort puts the observations in the order of their tags, so that the same statistics make the same file.
func (s *Statistics) Sort() {
	byTag := func(a, b *Observation) int { return strings.Compare(a.Tag, b.Tag) }
	slices.SortFunc(s.Observations, byTag)
	slices.SortFunc(s.Gradients, byTag)
}

// Merge joins the statistics of runs of one model over different data, each weighted with its rows; or all shares of one
// run, which give what the run would have given without shares, to the bit. The result reads from
// its parts, which must stay open while it is used. An activation that only some runs reached counts for those. The error
// wraps ErrFingerprint when the models differ, and is a *TwiceError when a part is given twice.
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

// Unreached lists the weights whose activations were never reached.
func (s *Statistics) Unreached() []string {
	var names []string
	for _, o := range s.Observations {
		if o.Rows == 0 {
			names = append(names, o.Weights...)
		}
	}
	return names
}

// Random reports whether any of the data was made up.
func (s *Statistics) Random() bool {
	return slices.ContainsFunc(s.Data, func(d DataUsed) bool { return d.Random })
}

// String tells in one line what the statistics are of.
func (s *Statistics) String() string {
	var data []string
	for _, d := range s.Data {
		data = append(data, fmt.Sprintf("%d samples of %s", d.Samples, d.Recipe))
	}
	return fmt.Sprintf("%s on %s", s.Model, strings.Join(data, ", "))
}
