package rewrite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// Exposed is a coded weight whose plain form W [N × K] became a float32 input of the graph.
type Exposed struct {
	Input  string // name of the graph input
	Node   string // name of the first node that reads it
	Codes  string // name of the initializer that holds its codes
	Matrix *quant.Matrix
}

// Expose replaces every HNLQLinear of m by a product with a graph input that holds the weight [N × K], and every HNLQGather by a
// Gather from one, so that the weight can change from run to run. Nodes with the same codes share an input. The function and the metadata of cosetq are removed; other
// tensors keep their names.
func Expose(m *onnx.Model) ([]Exposed, error) {
	linears, err := ReadLinears(m)
	if err != nil {
		return nil, err
	}
	if len(linears) == 0 {
		return nil, fmt.Errorf("rewrite: the model has no %s::%s and no %s", cudaops.Domain, cudaops.OpName, cudaops.GatherName)
	}
	opset, _ := m.Opset("")
	e := newEditor(m, opset)
	var exposed []Exposed
	inputs := map[string]string{}
	for _, l := range linears {
		input := inputs[l.key]
		if input == "" {
			input = e.names.Unique(strings.TrimSuffix(l.Codes(), ".codes"))
			inputs[l.key] = input
			m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo(input, onnx.Float, l.Matrix.N, l.Matrix.K))
			exposed = append(exposed, Exposed{Input: input, Node: l.Node.Name, Codes: l.Codes(), Matrix: l.Matrix})
		}
		e.touch(l.scope.Graph)
		e.swap[l.Node] = e.exposed(l, input)
		for i := 1; i < len(l.Node.Inputs); i++ {
			e.drop(l.scope, l.Node.Inputs[i])
		}
	}
	e.finish()
	m.Functions = slices.DeleteFunc(m.Functions, isOurs)
	m.OpsetImports = slices.DeleteFunc(m.OpsetImports, func(o *onnx.OpsetImport) bool { return o.Domain == cudaops.Domain })
	prune(m, e.dropped)
	return exposed, nil
}

// exposed writes the product of l with the transpose of a graph input.
func (e *editor) exposed(l *Linear, input string) []*onnx.Node {
	n := l.Node
	var nodes []*onnx.Node
	add := func(op, output string, inputs []string, attrs ...*onnx.Attribute) string {
		node := onnx.NewNode(op, inputs, []string{output}, attrs...)
		node.Name = e.names.Unique(n.Name + "." + strings.ToLower(op))
		nodes = append(nodes, node)
		return output
	}
	weight := input
	if l.DType != onnx.Float {
		weight = add("Cast", e.names.Unique(input+".cast"), []string{weight}, onnx.IntAttr("to", int64(l.DType)))
	}
	if l.Gather {
		add("Gather", n.Outputs[0], []string{weight, l.Activation}, onnx.IntAttr("axis", 0))
		return nodes
	}
	weight = add("Transpose", e.names.Unique(input+".transposed"), []string{weight}, onnx.IntsAttr("perm", 1, 0))
	if l.Bias == nil {
		add("MatMul", n.Outputs[0], []string{l.Activation, weight})
		return nodes
	}
	product := add("MatMul", e.names.Unique(n.Outputs[0]+".product"), []string{l.Activation, weight})
	return append(nodes, e.addBias(n.Name, product, n.Inputs[biasInput], n.Outputs[0]))
}

// Codes returns the name of the initializer that holds the codes.
func (l *Linear) Codes() string { return l.stored[1].Name }

// Recode puts new codes, gains and scales in the place of those of l, which must come from ReadLinears. The matrix may differ
// from l.Matrix in nothing else. Nodes that share the tensors change with it.
func (l *Linear) Recode(m *quant.Matrix) error {
	old := l.Matrix
	if err := m.Validate(); err != nil {
		return err
	}
	if m.N != old.N || m.K != old.K || m.Codec.String() != old.Codec.String() || m.Tile != old.Tile || m.Exponent != old.Exponent ||
		len(m.Scales) != len(old.Scales) || (m.Rotation == nil) != (old.Rotation == nil) {
		return fmt.Errorf("rewrite: %s: the new matrix differs from the old one in more than codes and scales", describe(l.Node))
	}
	scales := make([]byte, 0, 2*len(m.Scales))
	for _, s := range m.Scales {
		scales = append(scales, byte(s), byte(s>>8))
	}
	for i, raw := range map[int][]byte{1: m.Codes, 2: scales, 3: m.ScaleIndex, 5: m.Gains} {
		if err := setRaw(l.stored[i].Initializer, raw); err != nil {
			return err
		}
	}
	l.Matrix = m
	return nil
}

// setRaw puts new data into a tensor, wherever the old lay.
func setRaw(t *onnx.Tensor, raw []byte) error {
	if want, err := t.ByteSize(); err != nil || want != int64(len(raw)) {
		return fmt.Errorf("rewrite: tensor %q: %d new bytes in the place of %d", t.Name, len(raw), want)
	}
	fresh := onnx.NewRawTensor(t.Name, t.DataType, t.Dims, raw)
	fresh.DocString, fresh.MetadataProps = t.DocString, t.MetadataProps
	*t = *fresh
	return nil
}

// SetFloats puts new numbers into the initializer of the main graph of that name, in its own type.
func SetFloats(m *onnx.Model, name string, v []float32) error {
	t := m.Graph.Initializer(name)
	if t == nil {
		return fmt.Errorf("rewrite: the model has no initializer %q", name)
	}
	if t.DataType != onnx.Float && t.DataType != onnx.Float16 {
		return fmt.Errorf("rewrite: initializer %q holds %v, want float or float16", name, t.DataType)
	}
	return setRaw(t, appendFloats(nil, t.DataType, v))
}
