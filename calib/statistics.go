package calib

import (
	"errors"
	"fmt"
	"slices"
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

// Gradient returns the moments of the gradients of that tag, or nil.
func (s *Statistics) Gradient(tag string) *Observation {
	for _, o := range s.Gradients {
		if o.Tag == tag {
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
