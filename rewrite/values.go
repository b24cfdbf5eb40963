package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/onnx"
)

// values is an index of a model with what this package wants to know of a value beyond its producer and its readers.
type values struct {
	model     *onnx.Model
	index     *onnx.Index
	scopeOf   map[*onnx.Node]*onnx.Scope
	infos     map[*onnx.Value]*onnx.ValueInfo // declared types
	pinned    map[*onnx.Value]bool            // read by something that is no node: see pin
	ranks     map[*onnx.Value]int             // as far as asked for; -1 where unknown
	constants map[*onnx.Value]bool            // see fixed; as far as asked for
}

// newValues indexes m.
func newValues(m *onnx.Model) *values {
	vs := &values{
		model: m, index: onnx.NewIndex(m), scopeOf: map[*onnx.Node]*onnx.Scope{}, infos: map[*onnx.Value]*onnx.ValueInfo{},
		pinned: map[*onnx.Value]bool{}, ranks: map[*onnx.Value]int{}, constants: map[*onnx.Value]bool{},
	}
	for _, s := range vs.index.Scopes {
		for _, n := range s.Nodes() {
			vs.scopeOf[n] = s
		}
		if s.Graph == nil {
			continue
		}
		for _, list := range [][]*onnx.ValueInfo{s.Graph.Inputs, s.Graph.ValueInfo, s.Graph.Outputs} {
			for _, info := range list {
				if v := vs.local(s, info.Name); v != nil && vs.infos[v] == nil {
					vs.infos[v] = info
				}
			}
		}
		for _, a := range s.Graph.QuantizationAnnotations {
			for _, p := range a.QuantParameterTensorNames {
				vs.pin(s, p.Value)
			}
		}
	}
	vs.pinTraining()
	return vs
}

// pin keeps what name means in s: something reads it that the index does not know.
func (vs *values) pin(s *onnx.Scope, name string) {
	if v := vs.index.Lookup(s, name); v != nil {
		vs.pinned[v] = true
	}
}

// pinTraining keeps what training graphs read, which is bound to the main graph by name.
func (vs *values) pinTraining() {
	if len(vs.model.TrainingInfo) == 0 || vs.model.Graph == nil {
		return
	}
	main := vs.index.GraphScope(vs.model.Graph)
	for _, t := range vs.model.TrainingInfo {
		for _, bind := range [][]*onnx.Property{t.InitializationBinding, t.UpdateBinding} {
			for _, p := range bind {
				vs.pin(main, p.Key)
				vs.pin(main, p.Value)
			}
		}
	}
	for _, u := range vs.index.Undefined() {
		if u.Node != nil {
			vs.pin(main, u.Node.Inputs[u.Input])
		}
	}
}

// inferenceScopes returns the scopes that run in inference: not those of training graphs.
func (vs *values) inferenceScopes() []*onnx.Scope {
	var scopes []*onnx.Scope
	for _, s := range vs.index.Scopes {
		if root := s.Root(); root.Function != nil || root.Graph == vs.model.Graph {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

// storedIn returns the tensor that v is: an initializer, or what a Constant node holds, which an export makes an initializer of the same
// name. It is nil for what is computed.
func storedIn(v *onnx.Value) *onnx.Tensor {
	switch {
	case v == nil:
		return nil
	case v.Initializer != nil:
		return v.Initializer
	case v.Node == nil || !standard(v.Node, "Constant"):
		return nil
	}
	t, _ := constantTensor(v.Node)
	return t
}

// input returns the value that input i of n reads, or nil when it is absent.
func (vs *values) input(n *onnx.Node, i int) *onnx.Value {
	if i >= len(n.Inputs) || n.Inputs[i] == "" {
		return nil
	}
	return vs.index.Lookup(vs.scopeOf[n], n.Inputs[i])
}

// arguments lists what the calls of a function give its parameter v.
func (vs *values) arguments(v *onnx.Value) (given []*onnx.Value) {
	f := v.Scope.Function
	for _, s := range vs.inferenceScopes() {
		for _, n := range s.Nodes() {
			if n.OpID() == f.ID() {
				given = append(given, vs.input(n, slices.Index(f.Inputs, v.Name)))
			}
		}
	}
	return given
}

// local returns the value of that name defined in s itself, or nil.
func (vs *values) local(s *onnx.Scope, name string) *onnx.Value {
	if v := vs.index.Lookup(s, name); v != nil && v.Scope == s {
		return v
	}
	return nil
}

// overridable reports whether a caller may replace the initializer v: it is listed among the inputs. Before IR version 4
// every initializer had to be, so there the listing says nothing.
func (vs *values) overridable(v *onnx.Value) bool {
	return v.Initializer != nil && v.Input != nil && vs.model.IRVersion >= 4
}

// isOutput reports whether v leaves its graph, or is needed by something other than nodes.
func (vs *values) isOutput(v *onnx.Value) bool {
	if vs.pinned[v] {
		return true
	}
	for _, u := range v.Uses {
		if u.Node == nil {
			return true
		}
	}
	return false
}

// standard reports whether n is an operator of the default ONNX domain.
func standard(n *onnx.Node, op string) bool {
	return n.OpType == op && (n.Domain == "" || n.Domain == "ai.onnx")
}
