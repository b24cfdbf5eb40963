package rewrite

import (
	"errors"
	"fmt"
	"math"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
)

// Status says what can be done with a site.
type Status string

// The statuses of a [Site].
const (
	Candidate Status = "candidate" // its weight can be coded
	Skipped   Status = "skipped"   // stays as it is; Reason says why
	Quantized Status = "quantized" // it is an HNLQLinear already
)

// Reason is the code of why a site is skipped. The codes are part of the JSON that scripts read.
type Reason string

// The reasons of a skipped [Site].
const (
	DynamicB         Reason = "dynamic-b"         // no side is a constant that can be followed
	Unfolded         Reason = "unfolded"          // it is computed from constants, by an operator that is not followed
	Replaceable      Reason = "replaceable"       // the constant is only the default of a graph input
	Rank             Reason = "rank"              // the constant is a vector, or a batch of matrices that is not taken apart
	TooSmall         Reason = "too-small"         // fewer than MinWeights weights or MinColumns columns
	Excluded         Reason = "excluded"          // by Options.Include or Exclude
	FusedOp          Reason = "fused-op"          // an operator of another tool that holds the weights
	AlreadyQuantized Reason = "already-quantized" // an operator of another tool that holds codes of weights
	DType            Reason = "dtype"             // neither float32 nor float16
	SharedWithFloat  Reason = "shared-with-float" // something else needs the float weight, so it would be stored twice
	UnsupportedAttr  Reason = "unsupported-attr"  // a form this package does not rewrite
)

// Below these sizes the codebook, the scales and the padding of the code outweigh what it saves.
const (
	MinWeights = 1024
	MinColumns = 16
)

// Options of [FindSites]. The zero value takes every weight of a MatMul, Gemm or pointwise
// Conv that can be coded. A pattern that selects sites, here and in [Select], is one of
//
//	GLOB          the node's name or the initializer's: * is any text (slashes included), ? one character, [a-z] a set
//	re:REGEXP     the same, as a regular expression that matches anywhere
//	op:GLOB       the operator
//	init:GLOB     the initializer
//	index:N       the position in the list of sites; N-M is a range
//	shape:KxN     columns by rows, with * for any number
type Options struct {
	Embedding bool `yaml:"embedding"` // the tables of Gather nodes as well; their sites come after all others

	Include []string `yaml:"include"` // patterns; unless empty, only what matches is taken
	Exclude []string `yaml:"exclude"` // patterns of what is left out
}

// Site is a node that multiplies by a matrix, or holds one.
type Site struct {
	// Index is the position in the list, which index: patterns name. Name is the node's name, or Op_Index where that is
	// empty, made unique by #Index.
	Index int
	Name  string
	Op    string
	// Initializer is the name of the stored tensor behind the weight: an initializer or the output of a Constant node.
	Initializer string
	// Activation is the value that is multiplied by the weight, "" unless there is a Weight. Axis is its axis that has the K
	// columns, counted from the end: -1 is the last.
	Activation string
	Axis       int
	// Output is the value that the node computes, together with the bias Add that is folded into it; "" unless there is a
	// Weight. It keeps its name when the site is replaced.
	Output string
	// Batch names the value that the products of a batch of matrices are joined to, if this is one of them: all are coded, or none.
	Batch string
	// K and N are the columns and rows of the weight as coded, 0 when it is no matrix. Weights is the number of constant
	// weights; sites that share a weight report it each.
	K, N    int
	Weights int64
	DType   onnx.DataType // of the weight as it reaches the node
	Status  Status
	Reason  Reason // "" unless skipped
	Detail  string // a sentence for people
	// Weight is nil unless the node is a MatMul, Gemm or pointwise Conv with a constant matrix, or a Gather from one.
	Weight *Weight

	linear *linear
	node   *onnx.Node
	root   *onnx.Value
	values string  // equal for sites with the same weights
	behind []stock // the weights, where they are not followed
}

// hold notes where the weights are.
func (s *Site) hold(c *constant) {
	s.root, s.values, s.Initializer, s.DType, s.Weights = c.root, c.values, c.root.Name, c.dtype, c.size()
}

// stock is weights in a place of their own.
type stock struct {
	root *onnx.Value
	key  string // equal for the same weights
	size int64
}

// holdBehind notes where the weights are that could not be followed. They are weights all the same, of which none is quantized.
func (vs *values) holdBehind(site *Site, v *onnx.Value) {
	site.behind = vs.behind(v, map[*onnx.Value]bool{})
	var largest int64
	for _, s := range site.behind {
		site.Weights += s.size
		if s.size > largest {
			largest, site.root, site.values, site.Initializer = s.size, s.root, s.key, s.root.Name
		}
	}
}

// behind is the largest tensor that v is made of; of a parameter of a function, what each call of that gives it.
func (vs *values) behind(v *onnx.Value, seen map[*onnx.Value]bool) (all []stock) {
	var largest stock
	for todo := []*onnx.Value{v}; len(todo) > 0; {
		v, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if v == nil || seen[v] {
			continue
		}
		seen[v] = true
		var size int64
		key := ""
		switch t := storedIn(v); {
		case t != nil:
			size, _ = t.NumElements()
			key = fmt.Sprintf("%p", t)
		case v.Sparse != nil:
			size, _ = boundedProduct(v.Sparse.Dims, math.MaxInt64)
			key = fmt.Sprintf("%p", v.Sparse)
		case v.Param:
			for _, given := range vs.arguments(v) {
				all = append(all, vs.behind(given, seen)...)
			}
		case v.Node == nil:
		case vs.folds(v.Node): // whose other inputs say how, and may come from anywhere
			todo = append(todo, vs.input(v.Node, 0))
		case vs.fixed(v):
			for i := range v.Node.Inputs {
				todo = append(todo, vs.input(v.Node, i))
			}
		}
		if size > largest.size {
			largest = stock{v, key, size}
		}
	}
	if largest.size > 0 {
		all = append(all, largest)
	}
	return all
}

// Node is the node of the model that the site is.
func (s *Site) Node() *onnx.Node { return s.node }

// HasBias reports whether the layer adds a constant bias, which a correction can go into.
func (s *Site) HasBias() bool { return s.linear != nil && s.linear.bias != nil }

// FindSites lists every MatMul, Gemm and pointwise Conv of m, in every graph and function, and the nodes of other operators known to
// hold weights, each exactly once and in the order of the model; then, if asked for, the embeddings. The weights it returns are views into m. It fails with a
// *PatternError when a pattern is malformed or matches nothing.
func FindSites(m *onnx.Model, opts Options) ([]Site, error) {
	vs := newValues(m)
	sites := vs.sites(opts.Embedding)
	if err := choose(sites, opts); err != nil {
		return nil, err
	}
	vs.dropShared(sites)
	return sites, nil
}

func (vs *values) sites(embeddings bool) []Site {
	var sites []Site
	list := func(describe func(*onnx.Node) (Site, bool)) {
		for _, s := range vs.inferenceScopes() {
			if s.Function != nil && s.Function.Domain == cudaops.Domain {
				continue // the body that decodes our own weights
			}
			for _, n := range s.Nodes() {
				if site, ok := describe(n); ok {
					site.node, site.Batch = n, vs.batchName(n)
					sites = append(sites, site)
				}
			}
		}
	}
	list(vs.site)
	if embeddings {
		list(vs.embedding)
	}
	name(sites)
	shareWeights(sites)
	for i := range sites {
		checkSize(&sites[i])
	}
	return sites
}

// site describes n; ok is false when it is of no interest.
func (vs *values) site(n *onnx.Node) (site Site, ok bool) {
	site = Site{Op: n.OpType, Status: Candidate}
	switch {
	case standard(n, "MatMul"), standard(n, "Gemm"), fusesLinear(n), vs.isPointwise(n):
		vs.describeLinear(&site, n)
		return site, true
	case isCoded(n), isCodedGather(n):
		site.Status, site.Detail = Quantized, "coded already, with "+n.Str(cudaops.AttrCodec, "")
		site.K, site.N = int(n.Int(cudaops.AttrK, 0)), int(n.Int(cudaops.AttrN, 0))
		site.Weights = int64(site.K) * int64(site.N)
		site.DType = onnx.DataType(n.Int(cudaops.AttrComputeType, 0))
		if len(n.Inputs) > 1 {
			site.Initializer = n.Inputs[1]
		}
		return site, true
	case holdsWeights(n):
		return site, vs.describeFused(&site, n)
	}
	return site, false
}

func (s *Site) skip(r Reason, format string, args ...any) {
	s.Status, s.Reason, s.Detail = Skipped, r, fmt.Sprintf(format, args...)
}

func (vs *values) describeLinear(site *Site, n *onnx.Node) {
	l, c, err := vs.linear(n)
	if c != nil {
		site.hold(c)
	}
	var no *notConstant
	if errors.As(err, &no) {
		site.skip(no.reason, "%s", no.why)
		if c == nil && no.reason != DynamicB {
			vs.holdBehind(site, vs.input(n, right))
		}
		return
	}
	w := l.weight
	site.Weight, site.linear, site.Activation, site.Axis = w, l, l.activation.Name, -1
	if p := l.in.perm; p != nil {
		site.Axis = int(p[len(p)-1]) - len(p)
	}
	site.N, site.K = w.Dims()
	switch s := vs.scopeOf[n]; {
	case s.Root().Function != nil:
		site.skip(UnsupportedAttr, insideFunction)
	case len(n.Outputs) != 1 || n.Outputs[0] == "":
		site.skip(UnsupportedAttr, "it has %d outputs, not 1", len(n.Outputs))
	default:
		vs.foldAdd(l)
		site.Output = l.output()
	}
}

// name gives every site a name of its own.
func name(sites []Site) {
	taken := map[string]bool{}
	for _, unnamed := range []bool{false, true} { // names of the model first: they may look like ours
		for i := range sites {
			s := &sites[i]
			s.Index = i
			if (s.node.Name == "") != unnamed {
				continue
			}
			s.Name = s.node.Name
			if unnamed {
				s.Name = fmt.Sprintf("%s_%d", s.Op, i)
			}
			if taken[s.Name] {
				s.Name = fmt.Sprintf("%s#%d", s.Name, i)
			}
			for taken[s.Name] {
				s.Name += "'"
			}
			taken[s.Name] = true
		}
	}
}

// shareWeights makes sites that multiply by the same matrix hold the same *Weight.
func shareWeights(sites []Site) {
	first := map[string]*Weight{}
	for i := range sites {
		s := &sites[i]
		if s.Weight == nil {
			continue
		}
		if w := first[s.Weight.recipe]; w != nil {
			s.Weight, s.linear.weight = w, w
		} else {
			first[s.Weight.recipe] = s.Weight
		}
		s.Weight.gathered = s.Weight.gathered || s.linear.gather
	}
}

func checkSize(s *Site) {
	switch {
	case s.Status != Candidate:
	case s.Weights < MinWeights || s.K < MinColumns:
		s.skip(TooSmall, "%d×%d weights; coding pays from %d in all and from K = %d", s.K, s.N, MinWeights, MinColumns)
	case max(s.N, s.K) > maxSide: // no file could be read back
		s.skip(UnsupportedAttr, "%d×%d weights; neither K nor N may be more than %d", s.K, s.N, maxSide)
	}
}

// choose applies the patterns.
func choose(sites []Site, opts Options) error {
	include, err := compile(opts.Include, sites)
	if err != nil {
		return err
	}
	exclude, err := compile(opts.Exclude, sites)
	if err != nil {
		return err
	}
	for i := range sites {
		s := &sites[i]
		if s.Status != Candidate {
			continue
		}
		if p := firstMatch(exclude, s); p != nil {
			s.skip(Excluded, "excluded by %q", p.text)
		} else if len(include) > 0 && firstMatch(include, s) == nil {
			s.skip(Excluded, "no include pattern matches it")
		}
	}
	return nil
}

// stocks lists the weights of the site.
func (s *Site) stocks() []stock {
	switch {
	case s.behind != nil:
		return s.behind
	case s.root == nil:
		return []stock{{key: s.Initializer, size: s.Weights}}
	}
	return []stock{{s.root, s.values, s.Weights}}
}

// Coverage counts the constant weights of all sites, those that several sites share once, and returns the share of them
// whose site is a Candidate or Quantized already; 0 when there are none.
func Coverage(sites []Site) (weights int64, share float64) {
	var taken int64
	total, got := map[string]bool{}, map[string]bool{}
	for i := range sites {
		s := &sites[i]
		for _, held := range s.stocks() {
			if !total[held.key] {
				total[held.key] = true
				weights += held.size
			}
			if s.Status != Skipped && !got[held.key] {
				got[held.key] = true
				taken += held.size
			}
		}
	}
	if weights > 0 {
		share = float64(taken) / float64(weights)
	}
	return weights, share
}
