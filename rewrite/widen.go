package rewrite

import (
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// typeAttributes are those of standard operators that name the type of a result, or one to compute in.
var typeAttributes = map[string]bool{
	"to": true, "dtype": true, "output_dtype": true, "output_datatype": true, "stash_type": true, "softmax_precision": true, "precision": true,
}

// Widen makes m compute in float32 what it computes in float16 or bfloat16, inputs and outputs included, and reports whether there was
// any such thing. Values keep their names, so sites that were found before can be observed after. Large constants stay as they are
// stored, under another name, with a Cast behind each, which the runtime does while it loads; behind tables, with a Cast of the rows
// that were looked up. What only Casts read of a constant is left alone. Whether every operator has a form for float32, the runtime knows.
func Widen(m *onnx.Model) (bool, error) {
	w := &widening{names: onnx.NewNames(m), index: onnx.NewIndex(m)}
	for _, s := range w.index.Scopes {
		if err := w.scope(s); err != nil {
			return false, fmt.Errorf("rewrite: %s: %w", s.Path, err)
		}
	}
	if w.renamed { // what is listed among the inputs has a name there
		raiseIRVersion(m, minIRUnlisted)
	}
	return w.changed, nil
}

type widening struct {
	names            *onnx.Names
	index            *onnx.Index // of the model as it was
	changed, renamed bool
}

func isNarrow(dt onnx.DataType) bool { return dt == onnx.Float16 || dt == onnx.BFloat16 }

// isLarge reports whether a tensor is to stay where it is.
func isLarge(t *onnx.Tensor) bool {
	size, err := t.ByteSize()
	return err == nil && size >= ExternalThreshold
}

func (w *widening) scope(s *onnx.Scope) error {
	var nodes []*onnx.Node
	if g := s.Graph; g != nil {
		w.infos(s, g.Inputs, g.ValueInfo, g.Outputs)
		for i, t := range g.Initializers {
			if t == nil || !isNarrow(t.DataType) || w.keeps(w.index.Lookup(s, t.Name)) {
				continue
			}
			if !isLarge(t) {
				var err error
				if g.Initializers[i], err = w.tensor(t); err != nil {
					return err
				}
				continue
			}
			name := t.Name
			g.Initializers[i] = onnx.Clone(t)
			g.Initializers[i].Name = w.names.Unique(name + ".narrow")
			g.Inputs = slices.DeleteFunc(g.Inputs, func(in *onnx.ValueInfo) bool { return in.Name == name })
			nodes, w.renamed = append(nodes, w.cast(g.Initializers[i].Name, name)), true
		}
		for _, sparse := range g.SparseInitializers {
			if err := w.sparse(sparse); err != nil {
				return err
			}
		}
	} else {
		w.infos(s, s.Function.ValueInfo)
		for _, a := range s.Function.AttributeProtos {
			if err := w.attribute(a, false); err != nil {
				return err
			}
		}
	}
	for _, n := range s.Nodes() {
		nodes = append(nodes, n)
		if len(n.Outputs) > 0 && w.keeps(w.index.Lookup(s, n.Outputs[0])) {
			continue
		}
		if standard(n, "Constant") && isLargeNarrow(n.Attr("value")) || w.looksUp(s, n) {
			name := n.Outputs[0]
			n.Outputs[0] = w.names.Unique(name + ".narrow")
			nodes = append(nodes, w.cast(n.Outputs[0], name))
			continue
		}
		for _, a := range n.Attributes {
			if err := w.attribute(a, n.Domain == "" || n.Domain == "ai.onnx"); err != nil {
				return fmt.Errorf("%s: %w", describe(n), err)
			}
		}
	}
	s.SetNodes(nodes)
	return nil
}

func isLargeNarrow(a *onnx.Attribute) bool {
	return a != nil && a.T != nil && isNarrow(a.T.DataType) && isLarge(a.T)
}

func (w *widening) cast(from, to string) *onnx.Node {
	n := onnx.NewNode("Cast", []string{from}, []string{to}, onnx.IntAttr("to", int64(onnx.Float)))
	n.Name = w.names.Unique(to + ".widen")
	w.changed = true
	return n
}

// keeps reports whether v stays narrow: a constant, or rows looked up in one, that nothing computes with.
func (w *widening) keeps(v *onnx.Value) bool {
	if v == nil || len(v.Uses) == 0 {
		return false
	}
	t := storedIn(v)
	if t == nil && (v.Node == nil || !w.looksUp(v.Scope, v.Node)) || t != nil && !isNarrow(t.DataType) {
		return false
	}
	return !slices.ContainsFunc(v.Uses, func(u onnx.Use) bool {
		return u.Node == nil || !standard(u.Node, "Cast") && !(t != nil && isLarge(t) && standard(u.Node, "Gather") && u.Input == 0)
	})
}

// looksUp reports whether n, of s, looks up rows of a constant that stays narrow.
func (w *widening) looksUp(s *onnx.Scope, n *onnx.Node) bool {
	if !standard(n, "Gather") || len(n.Inputs) == 0 {
		return false
	}
	v := w.index.Lookup(s, n.Inputs[0])
	return storedIn(v) != nil && w.keeps(v)
}

// tensor returns t as float32.
func (w *widening) tensor(t *onnx.Tensor) (*onnx.Tensor, error) {
	if t == nil || !isNarrow(t.DataType) {
		return t, nil
	}
	v, err := t.Float32s()
	if err != nil {
		return nil, err
	}
	w.changed = true
	return onnx.NewTensor(t.Name, t.Dims, v), nil
}

func (w *widening) sparse(sp *onnx.SparseTensor) (err error) {
	if sp != nil {
		sp.Values, err = w.tensor(sp.Values)
	}
	return err
}

// infos declares values of s as float32, but for those that stay as they are.
func (w *widening) infos(s *onnx.Scope, lists ...[]*onnx.ValueInfo) {
	for _, list := range lists {
		for _, v := range list {
			if v != nil && !w.keeps(w.index.Lookup(s, v.Name)) {
				w.retype(v.Type)
			}
		}
	}
}

func (w *widening) retype(t *onnx.Type) {
	switch {
	case t == nil:
	case t.Tensor != nil:
		w.element(&t.Tensor.ElemType)
	case t.Sparse != nil:
		w.element(&t.Sparse.ElemType)
	case t.Sequence != nil:
		w.retype(t.Sequence.ElemType)
	case t.Optional != nil:
		w.retype(t.Optional.ElemType)
	case t.Map != nil:
		w.retype(t.Map.ValueType)
	}
}

func (w *widening) element(dt *onnx.DataType) {
	if isNarrow(*dt) {
		*dt, w.changed = onnx.Float, true
	}
}

// attribute widens what an attribute holds; named says that it belongs to a standard operator, whose attributes name types.
func (w *widening) attribute(a *onnx.Attribute, named bool) (err error) {
	if a == nil {
		return nil
	}
	if named && a.Type == onnx.AttrInt && a.RefAttrName == "" && typeAttributes[a.Name] && isNarrow(onnx.DataType(a.I)) {
		a.I, w.changed = int64(onnx.Float), true
	}
	w.retype(a.TypeProto)
	for _, t := range a.TypeProtos {
		w.retype(t)
	}
	if a.T, err = w.tensor(a.T); err != nil {
		return err
	}
	for i := range a.Tensors {
		if a.Tensors[i], err = w.tensor(a.Tensors[i]); err != nil {
			return err
		}
	}
	for _, sp := range append(slices.Clone(a.SparseTensors), a.SparseTensor) {
		if err := w.sparse(sp); err != nil {
			return err
		}
	}
	return nil
}
