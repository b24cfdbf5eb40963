package grad

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// Segment is a run of nodes between two cuts of a graph. A cut is a value through which everything passes that the trained
// values act on, such as the residual stream between two blocks of a transformer.
type Segment struct {
	// Input and Output are the cuts at its ends; Input is empty for the first segment.
	Input, Output string
	first, last   int // nodes, inclusive
}

// Segments cuts the way from the named values to a result wherever it is one value wide. The segments are in order and cover
// all of it.
func (g *Graph) Segments(from []string, result string) []Segment {
	active := g.active(result, from)
	sources := map[string]bool{}
	for _, name := range from {
		sources[name] = true
	}
	last := map[string]int{} // node that reads a value last
	for i, n := range g.nodes {
		for _, in := range reads(n) {
			last[in] = i
		}
	}
	var segments []Segment
	open := map[string]bool{}
	at := Segment{first: -1}
	for i, n := range g.nodes {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return active[o] }) {
			continue
		}
		if at.first < 0 {
			at.first = i
		}
		for _, in := range reads(n) {
			if last[in] == i {
				delete(open, in)
			}
		}
		for _, out := range n.Outputs {
			if active[out] && !sources[out] && (last[out] > i || out == result) {
				open[out] = true
			}
		}
		if len(open) != 1 {
			continue
		}
		for name := range open {
			if g.producer(name) != n {
				continue
			}
			at.Output, at.last = name, i
			segments = append(segments, at)
			at = Segment{Input: name, first: -1}
		}
		if at.Input == result {
			break
		}
	}
	return segments
}

func (g *Graph) producer(name string) *onnx.Node {
	for _, n := range g.nodes {
		if slices.Contains(n.Outputs, name) {
			return n
		}
	}
	return nil
}

// Join merges neighbouring segments until each reads one of the named values.
func (g *Graph) Join(segments []Segment, names []string) []Segment {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var joined []Segment
	carry := -1 // where a segment without a wanted value began
	for _, s := range segments {
		if carry >= 0 {
			s.first, s.Input = segments[carry].first, segments[carry].Input
		}
		reads := slices.ContainsFunc(g.nodes[s.first:s.last+1], func(n *onnx.Node) bool {
			return slices.ContainsFunc(n.Inputs, func(in string) bool { return wanted[in] })
		})
		if !reads {
			if carry < 0 {
				carry = slices.IndexFunc(segments, func(t Segment) bool { return t.first == s.first })
			}
			continue
		}
		joined = append(joined, s)
		carry = -1
	}
	if n := len(joined); carry >= 0 && n > 0 { // what is left has nothing to train
		end := segments[len(segments)-1]
		joined[n-1].last, joined[n-1].Output = end.last, end.Output
	}
	return joined
}

// recompute appends clones of the segment's nodes for the backward pass, so that their first results need not be kept. The
// clones read the cut in front of them through a sum with zero times the gradient that has just arrived: that keeps a runtime
// from merging them with the originals, and from computing them before they are needed.
func (w *sweep) recompute(nodes []*onnx.Node, s Segment) {
	g := w.g
	arrived := w.gradient(s.Output)
	if s.Input == "" || arrived == nil {
		return
	}
	in := g.values[s.Input]
	one := g.reshape(arrived, arrived.Count())
	one = g.scale(g.slice(one, 0, 0, 1), 0)
	w.clones = map[string]*Value{s.Input: g.add(in, one)}
	for _, n := range nodes[s.first : s.last+1] {
		reads := slices.ContainsFunc(n.Inputs, func(name string) bool { return w.clones[name] != nil })
		if !reads {
			continue
		}
		clone := onnx.Clone(n)
		clone.Name = g.names.Unique(n.Name + ".again")
		for i, name := range n.Inputs {
			if name != "" {
				clone.Inputs[i] = w.find(name).Name
			}
		}
		for i, name := range n.Outputs {
			if name == "" {
				continue
			}
			v := *g.values[name]
			v.Name = g.names.Unique(name + ".again")
			g.values[v.Name] = &v
			clone.Outputs[i] = v.Name
			w.clones[name] = &v
		}
		g.nodes = append(g.nodes, clone)
	}
}
