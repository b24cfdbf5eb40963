package rewrite

import (
	"slices"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// arrangement is how the activation of a layer becomes A [..., K]: of the axes that have steps every so manieth element is
// kept, then the axes are permuted. The zero value leaves it as it is.
type arrangement struct {
	steps []int64 // by axis; nil for none
	perm  []int64 // nil for none
}

// lastTwo is the permutation that exchanges the last two of rank axes, nil where there are no two.
func lastTwo(rank int) []int64 {
	if rank < 2 {
		return nil
	}
	perm := identity(rank)
	perm[rank-1], perm[rank-2] = perm[rank-2], perm[rank-1]
	return perm
}

// channelsLast is the permutation that moves axis 1 behind the others.
func channelsLast(rank int) []int64 {
	perm := identity(rank)
	return append(append(perm[:1:1], perm[2:]...), 1)
}

func identity(rank int) []int64 {
	perm := make([]int64, rank)
	for i := range perm {
		perm[i] = int64(i)
	}
	return perm
}

// inverse returns the permutation that undoes perm.
func inverse(perm []int64) []int64 {
	back := make([]int64, len(perm))
	for i, p := range perm {
		back[p] = int64(i)
	}
	return back
}

// surroundings collects the nodes before and behind the product of a layer.
type surroundings struct {
	names *onnx.Names
	base  string // of the names of the nodes
	nodes []*onnx.Node
}

func (s *surroundings) add(op, output string, inputs []string, attrs ...*onnx.Attribute) string {
	n := onnx.NewNode(op, inputs, []string{output}, attrs...)
	n.Name = s.names.Unique(s.base + "." + strings.ToLower(op))
	s.nodes = append(s.nodes, n)
	return output
}

// ints names a constant list.
func (s *surroundings) ints(name string, v []int64) string {
	t := onnx.NewTensor("", []int64{int64(len(v))}, v)
	return s.add("Constant", s.names.Unique(s.base+"."+name), nil, onnx.TensorAttr("value", t))
}

// arrange returns the name of A, which it makes of the activation of l. Where that is a transposition which arranging it would only undo,
// A is what was transposed, and short is set.
func (s *surroundings) arrange(l *linear) (name string, short bool) {
	name = l.activation.Name
	if x := untransposed(l); x != "" {
		return x, true
	}
	if l.in.steps != nil {
		var axes, starts, ends, steps []int64
		for axis, step := range l.in.steps {
			if step != 1 {
				axes, starts, ends, steps = append(axes, int64(axis)), append(starts, 0), append(ends, maxInt64), append(steps, step)
			}
		}
		inputs := []string{name, s.ints("starts", starts), s.ints("ends", ends), s.ints("axes", axes), s.ints("steps", steps)}
		name = s.add("Slice", s.names.Unique(name+".strided"), inputs)
	}
	return s.turn(name, ".transposed", l.in.perm), false
}

// turn permutes the axes of a value, if there is a permutation.
func (s *surroundings) turn(name, suffix string, perm []int64) string {
	if perm == nil {
		return name
	}
	return s.add("Transpose", s.names.Unique(name+suffix), []string{name}, onnx.IntsAttr("perm", perm...))
}

// maxInt64 as the end of a Slice stands for the end of the axis.
const maxInt64 = 1<<63 - 1

// untransposed returns what the activation of l is the transpose of, if it comes from a Transpose that arranging it would
// only undo; else "".
func untransposed(l *linear) string {
	n := l.activation.Node
	if l.in.perm == nil || l.in.steps != nil || n == nil || len(n.Inputs) == 0 || !standard(n, "Transpose") || l.activation.Scope != l.scope {
		return ""
	}
	perm := n.Ints("perm")
	if perm == nil {
		perm = identity(l.rank)
		slices.Reverse(perm)
	}
	if !slices.Equal(perm, inverse(l.in.perm)) {
		return ""
	}
	return n.Inputs[0]
}
