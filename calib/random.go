package calib

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// What random data uses where a model leaves a size open, and the bound of random ids.
const (
	RandomBatch    = 1   // a dynamic first dimension, others of its name, and dimensions named after a batch
	RandomChannels = 3   // dimensions named after channels
	RandomPixels   = 224 // dimensions named height or width
	RandomSize     = 16  // other dynamic dimensions; 0 for those that count the tokens of a key-value cache
	RandomIDs      = 32  // integers are uniform in [0, RandomIDs)
)

// randomReader makes inputs up.
type randomReader struct {
	count  int
	seed   uint64
	inputs []tensor.Spec
	given  map[string]int64
	shapes [][]int64 // one per input
}

// NewRandom makes up count samples for a model with the given inputs: floats from N(0,1), integers uniform below
// [RandomIDs], true for booleans; attention masks, segment and position ids of language models get their usual values.
// Given sets the size of dynamic dimensions by their name, and the value of integer scalars by the name of the input.
// Random data says how well two models agree, not how good either is, and the reader's Random method tells it apart.
//
// [Open] spells it random:N, or random:N,name=value,...
func NewRandom(count int, inputs []tensor.Spec, given map[string]int64, seed uint64) (Reader, error) {
	r := &randomReader{count: count, seed: seed, inputs: inputs, given: given}
	if err := r.checkGiven(); err != nil {
		return nil, err
	}
	for _, in := range inputs {
		if !in.Ranked {
			return nil, &RecipeError{Msg: fmt.Sprintf("random data needs to know how many dimensions input %s has, and the model does not say; use a recipe", in)}
		}
		if !in.Type.Float() && !in.Type.Integer() && in.Type != tensor.Bool {
			return nil, &RecipeError{Msg: fmt.Sprintf("random data cannot be made for input %s; use a recipe", in)}
		}
		shape := make([]int64, len(in.Shape))
		for i, d := range in.Shape {
			shape[i] = r.size(i, d)
			if _, ok := given[d.Name]; isCache(in) && !d.Fixed() && !ok {
				shape[i] = cacheShape(in, RandomBatch)[i]
			}
		}
		if t, err := tensor.New(in.Type, shape...); err != nil || t.Count() > 1<<30 {
			return nil, &RecipeError{Msg: fmt.Sprintf("random data for input %s would be too large; use a recipe", in)}
		}
		r.shapes = append(r.shapes, shape)
	}
	return r, nil
}

// parseRandom reads what follows "random:".
func parseRandom(text string) (count int, given map[string]int64, err error) {
	parts := strings.Split(text, ",")
	if count, err = strconv.Atoi(parts[0]); err != nil || count < 1 {
		return 0, nil, &RecipeError{Msg: fmt.Sprintf("random:%s needs a positive number of samples, as in random:16", text)}
	}
	given = map[string]int64{}
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(p, "=")
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 || name == "" {
			return 0, nil, &RecipeError{Msg: fmt.Sprintf("random:%s: %q is no name=number, as in random:16,sequence=128", text, p)}
		}
		given[name] = n
	}
	return count, given, nil
}

// settable tells whether [NewRandom] takes the value of an input from given.
func settable(in tensor.Spec) bool { return in.Ranked && len(in.Shape) == 0 && in.Type.Integer() }

// checkGiven refuses names that the model does not have.
func (r *randomReader) checkGiven() error {
	var known []string
	for _, in := range r.inputs {
		if settable(in) {
			known = append(known, in.Name)
		}
		for _, d := range in.Shape {
			if d.Name != "" && !d.Fixed() {
				known = append(known, d.Name)
			}
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	for name := range r.given {
		if !slices.Contains(known, name) {
			return &RecipeError{Msg: fmt.Sprintf("random data: the model has no dynamic dimension and no integer scalar input %q%s", name, didYouMean(name, known))}
		}
	}
	return nil
}

// size is the size of dimension i of an input.
func (r *randomReader) size(i int, d tensor.Dim) int64 {
	name := strings.ToLower(d.Name)
	n, given := r.given[d.Name]
	switch {
	case d.Fixed():
		return d.Size
	case given:
		return n
	case strings.HasPrefix(name, "past") && !strings.Contains(name, "+"): // past + sequence is the length of a mask
		return 0
	case i == 0, r.leads(d.Name), strings.Contains(name, "batch"):
		return RandomBatch
	case strings.Contains(name, "channel"):
		return RandomChannels
	case name == "height", name == "width":
		return RandomPixels
	}
	return RandomSize
}

// leads tells whether the first dimension of an input has this name: one name is one size, wherever it stands.
func (r *randomReader) leads(name string) bool {
	return name != "" && slices.ContainsFunc(r.inputs, func(in tensor.Spec) bool { return len(in.Shape) > 0 && in.Shape[0].Name == name })
}

func (r *randomReader) Len() int     { return r.count }
func (r *randomReader) Random() bool { return true }
func (r *randomReader) Close() error { return nil }

func (r *randomReader) Sample(i int) (*Sample, error) {
	rng := source(r.seed, uint64(i))
	s := &Sample{Inputs: map[string]*tensor.Tensor{}, Label: -1}
	for k, in := range r.inputs {
		t, err := r.value(rng, in, r.shapes[k])
		if err != nil {
			return nil, err
		}
		s.Inputs[in.Name] = t
	}
	return s, nil
}

func (r *randomReader) value(rng *rand.Rand, in tensor.Spec, shape []int64) (*tensor.Tensor, error) {
	normal := func(int64) float64 { return rng.NormFloat64() }
	fixed, given := r.given[in.Name]
	switch {
	case given && settable(in):
		return integers(in, shape, func(int64) int64 { return fixed })
	case isCacheSwitch(in), extraValue(in.Name) != nil && len(shape) > 0 && shape[len(shape)-1] > 0:
		return extraInput(in, shape)
	case in.Type == tensor.Bool:
		return integers(in, shape, func(int64) int64 { return 1 })
	case in.Type.Integer():
		return integers(in, shape, func(int64) int64 { return rng.Int64N(RandomIDs) })
	case in.Type == tensor.Float64:
		return fill(shape, normal), nil
	case in.Type == tensor.Float16Type:
		return fill(shape, func(j int64) tensor.Float16 { return tensor.ToFloat16(float32(normal(j))) }), nil
	case in.Type == tensor.BFloat16Type:
		return fill(shape, func(j int64) tensor.BFloat16 { return tensor.ToBFloat16(float32(normal(j))) }), nil
	}
	return fill(shape, func(j int64) float32 { return float32(normal(j)) }), nil
}
