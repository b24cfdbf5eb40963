package rewrite

import (
	"fmt"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
)

// MaxFullColumns is the widest activation of which all second moments are taken; of wider ones, where the matrix would
// need more than half a GiB while it is summed up, only the diagonal.
const MaxFullColumns = 8192

// Observation is an activation that one or more sites multiply by their weights. Its second moments guide the coding of
// those weights.
type Observation struct {
	// Tag names it: the name of the value, made unique by #2 and so on. The same model gives the same tags, whatever
	// patterns chose the sites.
	Tag        string
	Activation string // the name of the value
	Columns    int    // K of the sites
	Full       bool   // all second moments; otherwise the diagonal
	Sites      []int  // positions in the list of sites, candidates or not
	// Weights names the initializers of the candidates among them, each once; none when nothing needs the observation.
	Weights []string

	off    bool // see Observe
	value  *onnx.Value
	linear *linear
	out    [][]int64 // of the candidates, in their order: how each turns its product
	names  []string  // of the candidates, in their order: their initializers
	tags   []string  // and of the gradients at their outputs
	rows   []int     // and the rows N of those
}

// Observations lists the activations of sites, those with a Weight, in the order of the model. Sites that read the same
// value, as the query, key and value projections of a transformer do, share one.
func Observations(sites []Site) []Observation {
	type point struct {
		value *onnx.Value
		in    string
	}
	var list []Observation
	gradients := GradientTags(sites)
	at := map[point]int{}
	taken := map[string]bool{}
	for i := range sites {
		l := sites[i].linear
		if l == nil || l.gather || l.scope.Root().Function != nil {
			continue
		}
		p := point{l.activation, fmt.Sprint(l.in)}
		n, ok := at[p]
		if !ok {
			n = len(list)
			at[p] = n
			tag := l.activation.Name
			for serial := 2; taken[tag]; serial++ {
				tag = fmt.Sprintf("%s#%d", l.activation.Name, serial)
			}
			taken[tag] = true
			list = append(list, Observation{Tag: tag, Activation: l.activation.Name, Columns: sites[i].K,
				Full: sites[i].K <= MaxFullColumns, value: l.activation, linear: l})
		}
		o := &list[n]
		o.Sites = append(o.Sites, i)
		if sites[i].Status != Candidate {
			continue
		}
		o.out, o.names, o.rows = append(o.out, l.out), append(o.names, sites[i].Initializer), append(o.rows, sites[i].N)
		o.tags = append(o.tags, gradients[l.weight])
		if !slices.Contains(o.Weights, sites[i].Initializer) {
			o.Weights = append(o.Weights, sites[i].Initializer)
		}
	}
	return list
}

// GradientTags names the gradients at the outputs of each weight of sites, whatever patterns chose them. One initializer can hold
// several weights, pieces of it or the same turned: theirs are told apart by #2 and so on.
func GradientTags(sites []Site) map[*Weight]string {
	tags, taken := map[*Weight]string{}, map[string]bool{}
	for i := range sites {
		if l := sites[i].linear; l != nil {
			taken[l.activation.Name] = true
		}
	}
	for i := range sites {
		w := sites[i].Weight
		if w == nil || tags[w] != "" {
			continue
		}
		tag := "gradient of " + w.Name()
		for serial := 2; taken[tag]; serial++ {
			tag = fmt.Sprintf("gradient of %s#%d", w.Name(), serial)
		}
		tags[w], taken[tag] = tag, true
	}
	return tags
}

// Observe turns m into a model for calibration: an ai.coset::Observe node sits on every activation that a candidate of
// sites multiplies by its weight, and the outputs of m are theirs, one count each. Nodes that only the former outputs
// needed are gone. The sites must come from FindSites on the unchanged m, and become stale. It returns the observations
// made, and fails, with m unchanged, when there are none.
//
// Those that mine, unless nil, leaves out are not among the observations: their nodes add nothing up, and stand there so that the runtime
// optimizes the graph as it would with all of them and computes the same numbers to the bit.
//
// An activation is observed in the graph that defines it. In a subgraph an Observe node has no reader, and counts on the
// runtime to run it all the same, as ONNX Runtime does.
func Observe(m *onnx.Model, sites []Site, mine func(all []Observation) []bool) ([]Observation, error) {
	list := slices.DeleteFunc(Observations(sites), func(o Observation) bool { return len(o.Weights) == 0 })
	if len(list) == 0 {
		return nil, fmt.Errorf("rewrite: %w: no site to observe", ErrNothing)
	}
	if mine != nil {
		for i, yes := range mine(list) {
			list[i].off = !yes
		}
	}
	names := onnx.NewNames(m)
	roots := map[*onnx.Node]bool{} // in the main graph: observers, and nodes with observers inside
	var outputs []*onnx.ValueInfo
	// ONNX Runtime runs the last leaf of a graph first, with all it needs. Observers at the end, the first activation's
	// last, so run in the order of the model, and no activation waits for its observer.
	for i := range slices.Backward(list) {
		nodes, count := list[i].nodes(names, nil)
		scope := list[i].value.Scope
		scope.SetNodes(append(scope.Nodes(), nodes...))
		if scope.Parent == nil {
			outputs = append(outputs, onnx.NewValueInfo(count, onnx.Float, 1))
			roots[nodes[len(nodes)-1]] = true
			continue
		}
		for scope.Parent.Parent != nil {
			scope = scope.Parent
		}
		roots[scope.Node] = true
	}
	if len(outputs) > 0 {
		slices.Reverse(outputs)
		m.Graph.Outputs = outputs
		keepOnly(m.Graph, roots)
	}
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	return slices.DeleteFunc(list, func(o Observation) bool { return o.off }), nil
}

// ObserveGradients turns m, which computes the activations of list and the named gradients of what the candidates among the
// sites of each compute, in their order, into a model for calibration as [Observe] does: rows weigh what their errors cost. The
// gradients are observed as well, those of each weight under one tag, if there are no more than MaxFullColumns rows; a row of
// them weighs as much as the activation makes of it. It returns these observations, and fails, with m unchanged, where an
// activation lies in a subgraph.
func ObserveGradients(m *onnx.Model, list []Observation, gradients [][]string) ([]Observation, error) {
	for i := range list {
		if list[i].value.Scope.Parent != nil {
			return nil, fmt.Errorf("rewrite: activation %q lies in a subgraph", list[i].Activation)
		}
	}
	var of []Observation
	at := map[string]int{} // tag to its place in of
	for _, o := range list {
		for i, tag := range o.tags {
			if _, ok := at[tag]; ok || o.rows[i] > MaxFullColumns {
				continue
			}
			at[tag] = len(of)
			of = append(of, Observation{Tag: tag, Activation: tag, Columns: o.rows[i], Full: true, Weights: []string{o.names[i]}})
		}
	}
	names := onnx.NewNames(m)
	m.Graph.Outputs = nil
	for i := range slices.Backward(list) {
		nodes, count := list[i].nodes(names, gradients[i])
		m.Graph.Nodes = append(m.Graph.Nodes, nodes...)
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(count, onnx.Float, 1))
		inputs := nodes[len(nodes)-1].Inputs
		for n, tag := range list[i].tags {
			if place, ok := at[tag]; ok {
				g := &of[place]
				g.off = list[i].off
				node := g.node(names, []string{inputs[1+n], inputs[0]})
				m.Graph.Nodes = append(m.Graph.Nodes, node)
				m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(node.Outputs[0], onnx.Float, 1))
			}
		}
	}
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
	return of, nil
}

// ObserveAlike turns m, which computes the activations of list, into a model for calibration as [ObserveGradients] does, for samples
// whose gradients are not computed: an error costs the same at all rows of one.
func ObserveAlike(m *onnx.Model, list []Observation) {
	names := onnx.NewNames(m)
	roots := map[*onnx.Node]bool{}
	m.Graph.Outputs = nil
	for i := range slices.Backward(list) {
		nodes, count := list[i].nodes(names, nil)
		n := nodes[len(nodes)-1]
		n.Attributes = append(n.Attributes, onnx.IntAttr(cudaops.AttrAlike, 1))
		roots[n] = true
		m.Graph.Nodes = append(m.Graph.Nodes, nodes...)
		m.Graph.Outputs = append(m.Graph.Outputs, onnx.NewValueInfo(count, onnx.Float, 1))
	}
	keepOnly(m.Graph, roots)
	m.SetOpset(cudaops.Domain, cudaops.OpVersion)
}

// nodes returns the Observe node of o, last, and what it needs before it, and the name of its output.
func (o *Observation) nodes(names *onnx.Names, gradients []string) (nodes []*onnx.Node, count string) {
	around := &surroundings{names: names, base: o.value.Name}
	input, _ := around.arrange(o.linear)
	inputs := []string{input}
	for i, g := range gradients {
		if out := o.out[i]; out != nil {
			g = around.turn(g, ".transposed", inverse(out))
		}
		inputs = append(inputs, g)
	}
	n := o.node(names, inputs)
	return append(around.nodes, n), n.Outputs[0]
}

// node is the Observe node of o with these inputs.
func (o *Observation) node(names *onnx.Names, inputs []string) *onnx.Node {
	mode := cudaops.ModeFull
	switch {
	case o.off:
		mode = cudaops.ModeOff
	case !o.Full:
		mode = cudaops.ModeDiagonal
	}
	count := names.Unique(o.Activation + ".observed")
	n := onnx.NewNode(cudaops.ObserveName, inputs, []string{count},
		onnx.StringAttr(cudaops.AttrTag, o.Tag), onnx.StringAttr(cudaops.AttrMode, mode))
	n.Domain, n.Name = cudaops.Domain, count
	return n
}

// keepOnly drops the nodes of g that no root needs.
func keepOnly(g *onnx.Graph, roots map[*onnx.Node]bool) {
	wanted := map[string]bool{}
	var kept []*onnx.Node
	for _, n := range slices.Backward(g.Nodes) { // what a node reads comes before it
		if !roots[n] && !slices.ContainsFunc(n.Outputs, func(out string) bool { return out != "" && wanted[out] }) {
			continue
		}
		kept = append(kept, n)
		for _, in := range append(n.Captures(), n.Inputs...) {
			wanted[in] = true
		}
	}
	slices.Reverse(kept)
	g.Nodes = kept
}
