package rewrite

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
)

// Pair is a layer of a float model and what computes the same value in a model that was made from it.
type Pair struct {
	Site   int    // position in the list of sites of the float model
	Input  string // the value that the layer reads in the float model
	Output string // the value that it computes, under the same name in both

	product string       // in the float model, what the bias is added to where there is one
	nodes   []*onnx.Node // of the other model, in its order
}

// PairLayers finds the layers of the float model, given by its sites, in another model that was made from it: the values
// keep their names, whatever computes them. Layers inside subgraphs, and those that the other model lacks or has unchanged,
// are left out.
func PairLayers(float *onnx.Model, sites []Site, other *onnx.Model) []Pair {
	fx, ox := onnx.NewIndex(float), onnx.NewIndex(other)
	fs, os := fx.GraphScope(float.Graph), ox.GraphScope(other.Graph)
	position := map[*onnx.Node]int{}
	for i, n := range other.Graph.Nodes {
		position[n] = i
	}
	var pairs []Pair
	for i := range sites {
		s := &sites[i]
		if s.Output == "" || s.linear.scope != nil && s.linear.scope.Parent != nil {
			continue
		}
		p := Pair{Site: i, Input: s.Activation, Output: s.Output, product: s.linear.node.Outputs[0]}
		// Everything before the output that the float model does not have under the same name belongs to the layer.
		var back func(name string) bool
		back = func(name string) bool {
			v := ox.Lookup(os, name)
			switch {
			case v == nil:
				return false
			case v.Node == nil || slices.Contains(p.nodes, v.Node):
				return true
			}
			p.nodes = append(p.nodes, v.Node)
			for _, in := range append(v.Node.Captures(), v.Node.Inputs...) {
				inside := in == p.product // and not yet the bias that is folded in
				if known := fx.Lookup(fs, in); in == "" || known != nil && storedIn(known) == nil && !inside {
					continue
				}
				if !back(in) {
					return false
				}
			}
			return true
		}
		if back(s.Output) && len(p.nodes) > 0 && !unchanged(fx, fs, ox, os, p.nodes) {
			slices.SortFunc(p.nodes, func(a, b *onnx.Node) int { return position[a] - position[b] })
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// unchanged tells whether the nodes of a layer, and the constants that they read, are those of the float model.
func unchanged(fx *onnx.Index, fs *onnx.Scope, ox *onnx.Index, os *onnx.Scope, nodes []*onnx.Node) bool {
	for _, n := range nodes {
		if v := fx.Lookup(fs, n.Outputs[0]); v == nil || v.Node == nil || !onnx.Equal(v.Node, n) {
			return false
		}
		for _, in := range n.Inputs {
			a, b := storedIn(fx.Lookup(fs, in)), storedIn(ox.Lookup(os, in))
			if a == nil || b == nil {
				continue
			}
			x, err1 := a.Bytes()
			y, err2 := b.Bytes()
			if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
				return false
			}
		}
	}
	return true
}

// Holds tells whether the node of a site of the model that the layer is from belongs to it.
func (p *Pair) Holds(s *Site) bool { return slices.Contains(p.nodes, s.node) }

// Codec returns the codec of the layer in the model it is from, "" where it has none.
func (p *Pair) Codec() string {
	for _, n := range p.nodes {
		if n.Domain == cudaops.Domain && n.OpType == cudaops.OpName {
			return n.Str(cudaops.AttrCodec, "")
		}
	}
	return ""
}

// Tensors returns the constants that the layer reads in the model it is from, other, but for its bias and for what others read than
// those that have the same weight: the weight in the form it has there.
func (p *Pair) Tensors(other *onnx.Model, same []Pair) []*onnx.Tensor {
	x := onnx.NewIndex(other)
	scope := x.GraphScope(other.Graph)
	own := func(u onnx.Use) bool {
		return slices.Contains(p.nodes, u.Node) || slices.ContainsFunc(same, func(s Pair) bool { return slices.Contains(s.nodes, u.Node) })
	}
	var list []*onnx.Tensor
	for _, n := range p.nodes {
		for i, in := range n.Inputs {
			if v := x.Lookup(scope, in); v != nil && v.Initializer != nil && !isBias(n, i) && !slices.ContainsFunc(v.Uses, func(u onnx.Use) bool { return !own(u) }) {
				list = append(list, v.Initializer)
			}
		}
	}
	return list
}

// isBias tells whether input i of a node of a layer is added to the product.
func isBias(n *onnx.Node, i int) bool {
	switch {
	case isCoded(n):
		return cudaops.Inputs()[i] == cudaops.InputBias
	case standard(n, "Gemm"), fusesLinear(n), standard(n, "Conv"):
		return i == 2
	}
	return standard(n, "Add")
}

// Graft puts layers of other into the float model that they were paired with. Each takes the place of the float layer or,
// with beside set, stands beside it, reads what that one reads, and computes a value of a name of its own. It returns the
// names of the values that the grafted layers compute. Data of other are needed until the model is written.
func Graft(float *onnx.Model, other *onnx.Model, pairs []Pair, beside bool) ([]string, error) {
	g := &grafter{float: float, names: onnx.NewNames(float), index: onnx.NewIndex(other), copied: map[string]string{}}
	g.scope = g.index.GraphScope(other.Graph)
	for _, o := range other.OpsetImports {
		if _, ok := float.Opset(o.Domain); !ok {
			float.SetOpset(o.Domain, o.Version)
		}
	}
	for _, f := range other.Functions {
		if !slices.ContainsFunc(float.Functions, func(has *onnx.Function) bool { return has.ID() == f.ID() }) {
			float.Functions = append(float.Functions, f)
		}
	}
	var outputs, replaced []string
	for i := range pairs {
		outputs = append(outputs, g.graft(&pairs[i], beside))
		replaced = append(replaced, pairs[i].Output, pairs[i].product)
	}
	if !beside {
		var dropped []valueRef
		float.Graph.Nodes = slices.DeleteFunc(float.Graph.Nodes, func(n *onnx.Node) bool {
			gone := len(n.Outputs) == 1 && slices.Contains(replaced, n.Outputs[0])
			if gone {
				for _, in := range n.Inputs {
					dropped = append(dropped, valueRef{float.Graph, in})
				}
			}
			return gone
		})
		float.Graph.Nodes = append(float.Graph.Nodes, g.nodes...)
		raiseIRVersion(float, minIRVersion)
		prune(float, dropped)
	} else {
		float.Graph.Nodes = append(float.Graph.Nodes, g.nodes...)
		raiseIRVersion(float, minIRVersion)
	}
	for _, s := range float.Scopes() {
		if s.Graph == float.Graph {
			if err := s.Sort(); err != nil {
				return nil, fmt.Errorf("rewrite: graft: %w", err)
			}
		}
	}
	return outputs, nil
}

// grafter copies nodes and what they read into a float model.
type grafter struct {
	float  *onnx.Model
	names  *onnx.Names
	index  *onnx.Index // of the model that the layers are from
	scope  *onnx.Scope
	copied map[string]string // constants by their name there
	nodes  []*onnx.Node
}

func (g *grafter) graft(p *Pair, beside bool) (output string) {
	renamed := map[string]string{}
	for _, n := range p.nodes {
		for _, out := range n.Outputs {
			if out == p.Output && !beside {
				renamed[out] = out
			} else {
				renamed[out] = g.names.Unique(out + ".grafted")
			}
		}
	}
	for _, n := range p.nodes {
		c := onnx.Clone(n)
		c.Name = g.names.Unique(n.Name + ".grafted")
		for i, in := range n.Inputs {
			if to, ok := renamed[in]; ok {
				c.Inputs[i] = to
			} else if v := g.index.Lookup(g.scope, in); v != nil && v.Initializer != nil {
				c.Inputs[i] = g.constant(in, v.Initializer)
			}
		}
		for i, out := range n.Outputs {
			c.Outputs[i] = renamed[out]
		}
		g.nodes = append(g.nodes, c)
	}
	return renamed[p.Output]
}

// constant copies an initializer once.
func (g *grafter) constant(name string, t *onnx.Tensor) string {
	if to, ok := g.copied[name]; ok {
		return to
	}
	c := onnx.Clone(t)
	c.Name = g.names.Unique(name + ".grafted")
	g.float.Graph.Initializers = append(g.float.Graph.Initializers, c)
	g.copied[name] = c.Name
	return c.Name
}

// Tap makes values of the main graph outputs of the model, behind those it has; one that is an output already stays where it
// is.
func Tap(m *onnx.Model, dtype onnx.DataType, values ...string) {
	for _, name := range values {
		if !slices.ContainsFunc(m.Graph.Outputs, func(o *onnx.ValueInfo) bool { return o.Name == name }) {
			m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(name, dtype, onnx.UnknownRank))
		}
	}
}
