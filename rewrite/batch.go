package rewrite

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// maxBatch is the largest batch of matrices that is taken apart, minBatchWeights the least that each of them has: every matrix costs a
// node, some 2 kB of the file, and a call of the runtime.
const (
	maxBatch        = 256
	minBatchWeights = 1 << 14
)

// batch is how a product with a batch of constant matrices, B [.., E, .., K, N] or on the left [.., E, .., N, K], is taken apart.
type batch struct {
	node       *onnx.Node
	side       int // of B
	activation *onnx.Value
	lead       []int64 // the dimensions of B before those of a matrix
	at, axis   int     // where E is: in B, and in the product
	missing    int     // axes of the product that the activation lacks in front
	whole      bool    // the activation has one matrix, which all of B are multiplied by
	expand     bool    // whether it has one or E is not known
}

// count is E.
func (b *batch) count() int { return int(b.lead[b.at]) }

// batch reads the product n with c, at the given side, that has more than one matrix. The error is a *notConstant: why it is left as it is.
func (vs *values) batch(n *onnx.Node, c *constant, side int) (*batch, error) {
	r := len(c.dims)
	lead, rows, cols := c.dims[:r-2], c.dims[r-2], c.dims[r-1]
	b := &batch{node: n, side: side, activation: vs.input(n, 1-side), lead: lead, at: slices.IndexFunc(lead, func(d int64) bool { return d != 1 })}
	columns := rows
	if (side == left) != transpositions(n)[side] {
		columns = cols
	}
	rank, known := vs.rank(b.activation)
	switch {
	case n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0:
		return nil, unsupported("%s %q moves the axes of a batch", n.OpType, n.Name)
	case product(lead) != lead[b.at]:
		return nil, rankError("the weight is a batch of matrices %s along several axes; along one it could be taken apart", dimsText(c.dims))
	case b.count() > maxBatch:
		return nil, rankError("the weight is a batch of %d matrices; up to %d are taken apart", b.count(), maxBatch)
	case rows*cols < minBatchWeights || columns < MinColumns:
		return nil, rankError("the weight is a batch of matrices %s; coding each pays from %d weights and from K = %d", dimsText(c.dims), minBatchWeights, MinColumns)
	case !known || rank < 2:
		return nil, rankError("the weight is a batch of matrices %s, and the other factor a vector or of a rank that is not known", dimsText(c.dims))
	}
	b.missing = max(r-rank, 0)
	b.axis = max(r, rank) - r + b.at
	switch size := vs.dim(b.activation, b.axis-b.missing); {
	case size == 1:
		b.whole = true
	case size < 0:
		b.expand = true
		if opset, _ := vs.model.Opset(""); opset < 8 {
			return nil, rankError("the weight is a batch of matrices %s, how many the other factor has is not known, and opset %d has no Expand", dimsText(c.dims), opset)
		}
	case size != lead[b.at]:
		return nil, rankError("the weight is a batch of %d matrices, and the other factor one of %d", b.count(), size)
	}
	return b, nil
}

// dim returns the size of an axis of v, -1 where neither a declaration nor a Reshape tells; before the first axis all are 1.
func (vs *values) dim(v *onnx.Value, axis int) int64 {
	if axis < 0 {
		return 1
	}
	if v.Initializer != nil {
		return v.Initializer.Dims[axis]
	}
	if _, dims, ok := vs.infos[v].TensorType(); ok && axis < len(dims) {
		return dims[axis]
	}
	if n := v.Node; n != nil && standard(n, "Reshape") {
		if want, err := vs.ints(n, 1, "shape", 0); err == nil && axis < len(want) && want[axis] > 0 {
			return want[axis]
		}
	}
	return -1
}

// batchOf returns how n is taken apart, nil when it is not.
func (vs *values) batchOf(n *onnx.Node) *batch {
	if n == nil || !standard(n, "MatMul") && !(fusesLinear(n) && n.OpType != "FusedGemm") || len(n.Outputs) != 1 || n.Outputs[0] == "" {
		return nil
	}
	c, side, err := vs.factor(n)
	if err != nil || len(c.dims) < 3 || product(c.dims[:len(c.dims)-2]) == 1 || c.dtype != onnx.Float && c.dtype != onnx.Float16 || vs.input(n, 1-side) == nil {
		return nil
	}
	b, _ := vs.batch(n, c, side)
	return b
}

// batchKey is the metadata of the nodes around the products of a batch. At the Concat it holds the dimensions of the batch, as 1x16.
const batchKey = "cosetq.batch"

// SplitBatches takes products with a batch of constant matrices apart, as those of the experts of a layer are, so that each matrix is a site of its
// own, with its own activations:
//
//	Split of A, Split of B → MatMul of each two → Concat
//
// The result keeps its name. [JoinBatches] puts together again what was left float. It returns how many products it took apart.
func SplitBatches(m *onnx.Model) (count int) {
	vs := newValues(m)
	sp := &splitter{names: onnx.NewNames(m), pieces: map[pieceKey][]string{}}
	sp.opset, _ = m.Opset("")
	for _, s := range vs.inferenceScopes() {
		if s.Root().Function != nil {
			continue
		}
		var nodes []*onnx.Node
		for i, n := range s.Nodes() {
			b := vs.batchOf(n)
			if b != nil && nodes == nil {
				nodes = slices.Clone(s.Nodes()[:i])
			}
			switch {
			case b != nil:
				nodes = append(nodes, sp.split(s, b, vs.input(n, b.side))...)
				count++
			case nodes != nil:
				nodes = append(nodes, n)
			}
		}
		if nodes != nil {
			s.SetNodes(nodes)
		}
	}
	return count
}

// splitter makes the nodes that stand in for batches.
type splitter struct {
	opset  int64
	names  *onnx.Names
	pieces map[pieceKey][]string
}

// pieceKey is a value that was split: several products that read it read the same pieces.
type pieceKey struct {
	value *onnx.Value
	scope *onnx.Scope
	how   string
}

func (sp *splitter) split(s *onnx.Scope, b *batch, weight *onnx.Value) []*onnx.Node {
	n, count := b.node, b.count()
	base := cmp.Or(n.Name, n.OpType+"_"+n.Outputs[0])
	names := make([]string, count) // first: patterns name them
	for i := range names {
		names[i] = sp.names.Unique(fmt.Sprintf("%s.%d", base, i))
	}
	around := &surroundings{names: sp.names, base: base}
	inputs := [2][]string{}
	inputs[b.side] = sp.parts(around, s, weight, &batch{lead: b.lead, at: b.at, axis: b.at})
	inputs[1-b.side] = sp.parts(around, s, b.activation, b)
	for _, made := range around.nodes {
		mark(made, "")
	}
	var outputs []string
	for i := range count {
		piece := onnx.Clone(n)
		piece.Name, piece.DocString, piece.MetadataProps = names[i], "", nil
		piece.Inputs = []string{inputs[left][i], inputs[right][i]}
		piece.Outputs = []string{sp.names.Unique(fmt.Sprintf("%s.%d", n.Outputs[0], i))}
		outputs = append(outputs, piece.Outputs[0])
		around.nodes = append(around.nodes, piece)
	}
	concat := onnx.NewNode("Concat", outputs, slices.Clone(n.Outputs), onnx.IntAttr("axis", int64(b.axis)))
	concat.Name, concat.DocString, concat.MetadataProps = n.Name, n.DocString, n.MetadataProps
	mark(concat, dimsText(b.lead))
	return append(around.nodes, concat)
}

// parts names what each of the products reads of v, made the way that b says.
func (sp *splitter) parts(around *surroundings, s *onnx.Scope, v *onnx.Value, b *batch) []string {
	key := pieceKey{v, s, fmt.Sprint(b.axis, b.count(), b.missing, b.whole, b.expand)}
	if parts := sp.pieces[key]; parts != nil {
		return parts
	}
	name, count := v.Name, b.count()
	if b.missing > 0 {
		axes, inputs, attributes := identity(b.missing), []string{name}, []*onnx.Attribute(nil)
		if sp.opset < 13 {
			attributes = append(attributes, onnx.IntsAttr("axes", axes...))
		} else {
			inputs = append(inputs, around.ints("axes", axes))
		}
		name = around.add("Unsqueeze", sp.names.Unique(v.Name+".batch"), inputs, attributes...)
	}
	if b.expand {
		shape := slices.Repeat([]int64{1}, len(b.lead)+2-b.at)
		shape[0] = int64(count)
		name = around.add("Expand", sp.names.Unique(v.Name+".expanded"), []string{name, around.ints("shape", shape)})
	}
	parts := slices.Repeat([]string{name}, count)
	if !b.whole {
		for i := range parts {
			parts[i] = sp.names.Unique(fmt.Sprintf("%s.%d", v.Name, i))
		}
		around.add("Split", "", []string{name}, onnx.IntAttr("axis", int64(b.axis)))
		split := around.nodes[len(around.nodes)-1]
		split.Outputs = slices.Clone(parts)
		if sp.opset >= 18 {
			split.SetAttr(onnx.IntAttr("num_outputs", int64(count)))
		}
	}
	sp.pieces[key] = parts
	return parts
}

// batchName names the batch that n is of, "" for none.
func (vs *values) batchName(n *onnx.Node) string {
	if len(n.Outputs) == 0 {
		return ""
	}
	y := vs.local(vs.scopeOf[n], n.Outputs[0])
	if y == nil || len(y.Uses) == 0 || y.Uses[0].Node == nil || !isMarked(y.Uses[0].Node) {
		return ""
	}
	return firstOutput(y.Uses[0].Node)
}

// mark notes that n is of a batch that was taken apart.
func mark(n *onnx.Node, text string) {
	n.MetadataProps = append(slices.Clone(n.MetadataProps), &onnx.Property{Key: batchKey, Value: text})
}

// marked reports whether n is of a batch that was taken apart, and what is noted there.
func marked(n *onnx.Node) (text string, ok bool) {
	for _, p := range n.MetadataProps {
		if p.Key == batchKey {
			return p.Value, true
		}
	}
	return "", false
}

func isMarked(n *onnx.Node) bool {
	_, ok := marked(n)
	return ok
}

// unmark takes the note away.
func unmark(n *onnx.Node) {
	n.MetadataProps = slices.DeleteFunc(slices.Clone(n.MetadataProps), func(p *onnx.Property) bool { return p.Key == batchKey })
	if len(n.MetadataProps) == 0 {
		n.MetadataProps = nil
	}
}
