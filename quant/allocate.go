package quant

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// Choice is one way to code a layer: what it takes, and what it loses in a unit that adds up over layers.
type Choice struct {
	Bytes int64
	Loss  float64
}

// Frontier holds the best ways to code all layers together: of every size the one that loses least, and none that another
// one beats in size and loss. It solves the multiple-choice knapsack problem by dynamic programming over the layers
// (Dyer, Kayal, Walker, European Journal of Operational Research 1984), keeping what is not dominated.
type Frontier struct {
	choices [][]Choice
	steps   [][]origin // of each layer: where the states after it come from
	states  []state    // after the last layer: ascending in bytes, descending in loss
}

// state is a set of choices for the layers so far.
type state struct {
	bytes int64
	loss  float64
	origin
}

// origin is the choice of a layer and the state of the layers before it.
type origin struct {
	before int32
	choice uint8
}

const (
	// maxStates is how many states are kept after a layer. Of more, those that lose least in each of so many steps of size
	// are kept: the result then is off by less than a step per layer, and exact below.
	maxStates = 1 << 14
	// maxChoices is how many choices a layer can have.
	maxChoices = math.MaxUint8 + 1
)

// NewFrontier computes the frontier of layers with one or more choices each. Bytes must not be negative, and losses neither
// that nor NaN.
func NewFrontier(choices [][]Choice) (*Frontier, error) {
	f := &Frontier{choices: choices, states: []state{{}}}
	for i, layer := range choices {
		if len(layer) == 0 || len(layer) > maxChoices {
			return nil, fmt.Errorf("quant: layer %d has %d choices, want 1 to %d", i, len(layer), maxChoices)
		}
		for _, c := range layer {
			if c.Bytes < 0 || !(c.Loss >= 0) || math.IsInf(c.Loss, 0) {
				return nil, fmt.Errorf("quant: layer %d has a choice of %d bytes with a loss of %v", i, c.Bytes, c.Loss)
			}
		}
		f.states = thin(extend(f.states, layer))
		step := make([]origin, len(f.states))
		for j, s := range f.states {
			step[j] = s.origin
		}
		f.steps = append(f.steps, step)
	}
	return f, nil
}

// extend returns the undominated states after one more layer. Of equal ones the first choice wins.
func extend(states []state, layer []Choice) []state {
	next := make([]int, len(layer)) // of each choice: the state to extend next
	var out []state
	for {
		best := -1
		var s state
		for c, at := range next {
			if at == len(states) {
				continue
			}
			t := state{states[at].bytes + layer[c].Bytes, states[at].loss + layer[c].Loss, origin{int32(at), uint8(c)}}
			if best < 0 || cmp.Or(cmp.Compare(t.bytes, s.bytes), cmp.Compare(t.loss, s.loss)) < 0 {
				best, s = c, t
			}
		}
		if best < 0 {
			return out
		}
		next[best]++
		if len(out) == 0 || s.loss < out[len(out)-1].loss {
			out = append(out, s)
		}
	}
}

// thin drops states until there are maxStates at most; the smallest and the best stay.
func thin(states []state) []state {
	if len(states) <= maxStates {
		return states
	}
	first, last := states[0].bytes, states[len(states)-1].bytes
	width := (last-first)/(maxStates-1) + 1
	kept := states[:1]
	for i, s := range states[1:] {
		i++
		if i+1 < len(states) && (states[i+1].bytes-first-1)/width == (s.bytes-first-1)/width {
			continue // one of the same step loses less
		}
		kept = append(kept, s)
	}
	return kept
}

// Len returns the number of points, at least 1.
func (f *Frontier) Len() int { return len(f.states) }

// Point returns what point i takes and loses; the points ascend in bytes and descend in loss.
func (f *Frontier) Point(i int) Choice { return Choice{f.states[i].bytes, f.states[i].loss} }

// Within returns the last point that takes no more than budget bytes, −1 if none does.
func (f *Frontier) Within(budget int64) int {
	return sort.Search(len(f.states), func(i int) bool { return f.states[i].bytes > budget }) - 1
}

// Below returns the first point that loses no more than loss, Len() if none does.
func (f *Frontier) Below(loss float64) int {
	return sort.Search(len(f.states), func(i int) bool { return f.states[i].loss <= loss })
}

// Choices returns the index of each layer's choice at point i.
func (f *Frontier) Choices(i int) []int {
	var chosen []int
	at := int32(i)
	for _, step := range slices.Backward(f.steps) {
		chosen = append(chosen, int(step[at].choice))
		at = step[at].before
	}
	slices.Reverse(chosen)
	return chosen
}
