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

// Cut makes a value an input of the graph, whatever computed it.
func (g *Graph) Cut(name string) {
	for i, n := range g.nodes {
		at := slices.Index(n.Outputs, name)
		if at < 0 {
			continue
		}
		n = onnx.Clone(n)
		n.Outputs[at] = g.names.Unique(name + ".cut")
		v := *g.values[name]
		v.Name = n.Outputs[at]
		g.values[v.Name] = &v
		g.nodes[i] = n
	}
	if !slices.Contains(g.inputs, name) {
		g.inputs = append(g.inputs, name)
	}
}

// Reads reports which of the named values the nodes of a segment read.
func (g *Graph) Reads(s Segment, names []string) []string {
	var found []string
	for _, n := range g.nodes[s.first : s.last+1] {
		for _, in := range reads(n) {
			if slices.Contains(names, in) && !slices.Contains(found, in) {
				found = append(found, in)
			}
		}
	}
	return found
}

// Join merges segments into blocks: a block ends at the first cut that is good and behind a read of one of the named values.
// What is left at the end, with nothing to read, belongs to the last block.
func (g *Graph) Join(segments []Segment, names []string, good func(cut string) bool) []Segment {
	var blocks []Segment
	open := false
	var block Segment
	for _, s := range segments {
		if !open {
			block, open = s, true
		}
		block.last, block.Output = s.last, s.Output
		if good(s.Output) && len(g.Reads(block, names)) > 0 {
			blocks = append(blocks, block)
			open = false
		}
	}
	if n := len(blocks); open && n > 0 {
		blocks[n-1].last, blocks[n-1].Output = block.last, block.Output
	} else if open {
		blocks = append(blocks, block)
	}
	return blocks
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
