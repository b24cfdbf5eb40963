package rewrite

import (
	"errors"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// embedding describes a Gather of rows of a constant matrix, W [N × K]. ok is false for any other node, and for one that gathers
// from what is no matrix of floats: such constants are no weights.
func (vs *values) embedding(n *onnx.Node) (site Site, ok bool) {
	if !standard(n, "Gather") || len(n.Inputs) != 2 || n.Inputs[1] == "" || n.Int("axis", 0) != 0 {
		return site, false
	}
	table := vs.input(n, left)
	c, err := vs.constant(table)
	var no *notConstant
	replaceable := errors.As(err, &no) && no.reason == Replaceable && table.Initializer != nil
	if replaceable {
		c, _ = stored(table.Initializer, table)
	}
	if c == nil || len(c.dims) != 2 || c.dtype != onnx.Float && c.dtype != onnx.Float16 {
		return site, false
	}
	site = Site{Op: n.OpType, Status: Candidate}
	site.hold(c)
	if replaceable {
		site.skip(no.reason, "%s", no.why)
		return site, true
	}
	l := &linear{node: n, scope: vs.scopeOf[n], side: left, activation: vs.input(n, right), weight: newWeight(c, true, 1), gather: true,
		biasScale: 1, addendScale: 1}
	site.Weight, site.linear, site.Activation = l.weight, l, n.Inputs[right]
	site.N, site.K = l.weight.Dims()
	switch {
	case l.scope.Root().Function != nil:
		site.skip(UnsupportedAttr, insideFunction)
	case l.activation == nil:
		site.skip(UnsupportedAttr, "its indices are not known")
	case len(n.Outputs) != 1 || n.Outputs[0] == "":
		site.skip(UnsupportedAttr, "it has %d outputs, not 1", len(n.Outputs))
	default:
		site.Output = n.Outputs[0]
	}
	return site, true
}

// Gathered reports whether a Gather takes rows of the weight: an embedding, perhaps one that a MatMul shares.
func (w *Weight) Gathered() bool { return w.gathered }

// isCodedGather reports whether n is an HNLQGather.
func isCodedGather(n *onnx.Node) bool {
	return n.Domain == cudaops.Domain && n.OpType == cudaops.GatherName
}

// newGather returns the model-local function ai.coset::HNLQGather: the decoder of [newFunction], then a Gather of rows.
func newGather(opset int64, f forms) *onnx.Function {
	f.turned = false // an embedding never is
	b := &body{opset: opset, forms: f}
	b.unary("Transpose", "weight_rows", b.decoded(), onnx.IntsAttr("perm", 1, 0))
	b.unary("Cast", "weight", "weight_rows", onnx.RefAttr("to", cudaops.AttrComputeType, onnx.AttrInt))
	b.binary("Gather", cudaops.OutputY, "weight", cudaops.InputIndices, onnx.IntAttr("axis", 0))
	fn := &onnx.Function{
		Domain: cudaops.Domain, Name: cudaops.GatherName,
		Inputs: cudaops.GatherInputs(), Outputs: []string{cudaops.OutputY},
		Attributes: functionAttributes(opset, f), Nodes: b.used(cudaops.OutputY),
		DocString: "Y = W[indices] with W decoded from nested-lattice codes; the native kernel of the same name replaces it.",
	}
	fn.SetOpset("", opset)
	return fn
}

// gather returns the HNLQGather that takes rows of the weight, as type dt.
func (c *codedWeight) gather(indices, output string, dt onnx.DataType) *onnx.Node {
	inputs := []string{indices, c.codes, c.scales, c.scaleIndex, c.codebook, c.gains}
	n := onnx.NewNode(cudaops.GatherName, inputs, []string{output},
		append(slices.Clone(c.attributes), onnx.IntAttr(cudaops.AttrComputeType, int64(dt)))...)
	n.Domain = cudaops.Domain
	return n
}

// functions are those that the model will need: the forms of all nodes of each operator, nil where it has none.
type functions struct{ linear, gather *forms }

// functionsOf counts the nodes that a model has already, with or without their functions: what ONNX Runtime saves with the native library
// loaded has none. Their forms are not read: the functions are made for all.
func functionsOf(before []*Linear) functions {
	var f functions
	for _, l := range before {
		kind := &f.linear
		if l.Gather {
			kind = &f.gather
		}
		weights := int64(l.Matrix.N) * int64(l.Matrix.K)
		all := forms{padded: true, ragged: true, packed: true, turned: l.stored[signsInput] != nil, largest: weights, total: weights}
		if *kind != nil {
			all = all.or(**kind)
		}
		*kind = &all
	}
	return f
}

// add makes room for a node with the matrix.
func (f *functions) add(gather bool, m *quant.Matrix) {
	kind := &f.linear
	if gather {
		kind = &f.gather
	}
	needed := formsOf(m)
	if *kind != nil {
		needed = needed.or(**kind)
	}
	*kind = &needed
}

// write returns the functions for models of the given opset.
func (f *functions) write(opset int64) (list []*onnx.Function) {
	if f.linear != nil {
		list = append(list, newFunction(opset, *f.linear))
	}
	if f.gather != nil {
		list = append(list, newGather(opset, *f.gather))
	}
	return list
}
