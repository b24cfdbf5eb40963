package rewrite

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/onnx"
)

// JoinBatches puts the products that [SplitBatches] took apart together again where none of their weights is coded: what was left alone is
// as it was, to the byte, and what is plain again has one constant. It returns how many products it made.
func JoinBatches(m *onnx.Model) (count int) {
	vs := newValues(m)
	j := &joiner{values: vs, names: onnx.NewNames(m), swap: map[*onnx.Node][]*onnx.Node{}}
	coded := false
	for _, s := range vs.inferenceScopes() {
		for _, n := range s.Nodes() {
			coded = coded || isCoded(n)
			if lead, ok := marked(n); !ok {
				continue
			} else if j.marked = append(j.marked, n); standard(n, "Concat") && j.join(n, lead) {
				count++
			}
		}
	}
	j.sweep()
	for _, s := range vs.inferenceScopes() {
		var nodes []*onnx.Node
		for _, n := range s.Nodes() {
			if by, ok := j.swap[n]; ok {
				nodes = append(nodes, by...)
			} else {
				nodes = append(nodes, n)
			}
		}
		if count > 0 {
			s.SetNodes(nodes)
		}
	}
	if !coded { // what is still in pieces stays so
		for _, n := range j.marked {
			unmark(n)
		}
	}
	return count
}

// joiner collects what is to change.
type joiner struct {
	values *values
	names  *onnx.Names
	marked []*onnx.Node
	swap   map[*onnx.Node][]*onnx.Node // what stands in for a node; none for one that is gone
}

// join puts one product in the place of the Concat n, if all that it joins are plain products of pieces.
func (j *joiner) join(n *onnx.Node, lead string) bool {
	var pieces []*onnx.Node
	for i := range n.Inputs {
		v := j.values.input(n, i)
		if v == nil || v.Node == nil || !standard(v.Node, "MatMul") && !fusesLinear(v.Node) || len(v.Node.Inputs) != 2 || !j.onlyFor(v, n) {
			return false
		}
		p := v.Node
		if pieces = append(pieces, p); p.OpID() != pieces[0].OpID() || !sameAttributes(p, pieces[0]) {
			return false
		}
	}
	if len(pieces) == 0 {
		return false
	}
	product := onnx.Clone(pieces[0])
	product.Name, product.DocString, product.MetadataProps, product.Outputs = n.Name, n.DocString, n.MetadataProps, slices.Clone(n.Outputs)
	unmark(product)
	a, b := j.whole(pieces, left), j.whole(pieces, right)
	var nodes []*onnx.Node
	switch {
	case b == "" && a != "":
		b, nodes = j.stack(pieces, lead)
	case a == b: // nothing tells the pieces apart
		return false
	}
	if product.Inputs = []string{a, b}; a == "" || b == "" {
		return false
	}
	j.swap[n] = append(nodes, product)
	for _, p := range pieces {
		j.swap[p] = nil
	}
	return true
}

func sameAttributes(a, b *onnx.Node) bool {
	return slices.EqualFunc(a.Attributes, b.Attributes, func(a, b *onnx.Attribute) bool { return onnx.Equal(a, b) })
}

// onlyFor reports whether nothing but n reads v, once.
func (j *joiner) onlyFor(v *onnx.Value, n *onnx.Node) bool {
	return len(v.Uses) == 1 && v.Uses[0].Node == n && !j.values.isOutput(v)
}

// whole names what the products read at one side before it was taken apart, "" where that is not known.
func (j *joiner) whole(pieces []*onnx.Node, side int) string {
	from := j.values.input(pieces[0], side)
	if from == nil {
		return ""
	}
	split := from.Node
	isSplit := split != nil && standard(split, "Split") && isMarked(split)
	for i, p := range pieces {
		v := j.values.input(p, side)
		if isSplit && (v == nil || v.Node != split || v.Output != i || len(split.Outputs) != len(pieces)) || !isSplit && v != from {
			return ""
		}
	}
	for range maxChain {
		if from == nil {
			return ""
		}
		if from.Node == nil || !isMarked(from.Node) || standard(from.Node, "Concat") {
			return from.Name
		}
		from = j.values.input(from.Node, 0)
	}
	return ""
}

// stack makes one constant of the weights that the products have at the right, and returns its name and the Cast behind it, where each of them
// has one; "" where they do not fit together.
func (j *joiner) stack(pieces []*onnx.Node, lead string) (name string, behind []*onnx.Node) {
	var weights []*onnx.Value
	var casts []*onnx.Node
	for _, p := range pieces {
		v, reader := j.values.input(p, right), p
		if v != nil && v.Node != nil && standard(v.Node, "Cast") && j.onlyFor(v, p) {
			reader = v.Node
			casts = append(casts, reader)
			v = j.values.input(reader, 0)
		}
		if v == nil || v.Initializer == nil || j.values.overridable(v) || !j.onlyFor(v, reader) || len(v.Initializer.Dims) != 2 {
			return "", nil
		}
		weights = append(weights, v)
	}
	first := weights[0].Initializer
	for i, w := range weights {
		t := w.Initializer
		if t.DataType != first.DataType || !slices.Equal(t.Dims, first.Dims) || w.Scope != weights[0].Scope || len(casts) != 0 && (len(casts) != len(pieces) || !sameAttributes(casts[i], casts[0])) {
			return "", nil
		}
	}
	var dims []int64
	for _, text := range strings.Split(lead, "x") {
		d, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", nil
		}
		dims = append(dims, d)
	}
	if count, ok := boundedProduct(dims, maxBatch); !ok || count != int64(len(weights)) {
		return "", nil
	}
	var parts stacked
	for _, w := range weights {
		parts = append(parts, w.Initializer)
	}
	g := weights[0].Scope.Graph
	g.Initializers = slices.DeleteFunc(g.Initializers, func(t *onnx.Tensor) bool { return slices.Contains(parts, t) })
	name = j.names.Unique(strings.TrimSuffix(first.Name, ".0"))
	g.Initializers = append(g.Initializers, onnx.NewStreamTensor(name, first.DataType, slices.Concat(dims, first.Dims), parts))
	if len(casts) == 0 {
		return name, nil
	}
	for _, c := range casts {
		j.swap[c] = nil
	}
	cast := onnx.Clone(casts[0])
	cast.Name, cast.Inputs, cast.Outputs = j.names.Unique(name+".cast"), []string{name}, []string{j.names.Unique(name + ".float")}
	return cast.Outputs[0], []*onnx.Node{cast}
}

// sweep drops what was made around batches and has no reader left.
func (j *joiner) sweep() {
	for again := true; again; {
		again = false
		for _, n := range j.marked {
			if _, gone := j.swap[n]; gone || standard(n, "Concat") || slices.ContainsFunc(n.Outputs, func(out string) bool { return j.read(n, out) }) {
				continue
			}
			j.swap[n], again = nil, true
		}
	}
}

// read reports whether anything that stays reads the output of n.
func (j *joiner) read(n *onnx.Node, out string) bool {
	v := j.values.local(j.values.scopeOf[n], out)
	return v == nil || j.values.isOutput(v) || slices.ContainsFunc(v.Uses, func(u onnx.Use) bool {
		_, gone := j.swap[u.Node]
		return !gone
	})
}

// stacked is the data of tensors, one behind the other.
type stacked []*onnx.Tensor

// Size returns the number of bytes.
func (s stacked) Size() (size int64) {
	for _, t := range s {
		n, _ := t.ByteSize() // what cannot be told fails when it is written
		size += n
	}
	return size
}

// WriteTo writes the data.
func (s stacked) WriteTo(w io.Writer) (written int64, err error) {
	for _, t := range s {
		n, err := t.WriteRaw(w)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
