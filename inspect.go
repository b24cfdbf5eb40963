package cosetq

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// InspectedNode is one MatMul, Gemm or 1×1 Conv of a model.
type InspectedNode struct {
	Node        string `json:"node"`
	Op          string `json:"op"`
	Initializer string `json:"initializer"`
	K           int    `json:"k"`
	N           int    `json:"n"`
	DType       string `json:"dtype"`           // "" where there is no constant
	Batch       string `json:"batch,omitempty"` // what the node computes with others of a batch of matrices
	Status      string `json:"status"`
	Reason      string `json:"reason,omitempty"`
	Detail      string `json:"detail,omitempty"`
}

// Estimate is how large a model would be with a preset, known from the shapes alone: to the byte, unless a weight turns out to hold
// numbers that are not finite.
type Estimate struct {
	Bits          int     `json:"bits"`
	Codec         string  `json:"codec"`
	BitsPerWeight float64 `json:"bits_per_weight"`
	Bytes         int64   `json:"bytes"` // of the model's files, which carry the operator's function
}

// OtherWeights are the constants that a kind of operator reads, apart from the weights of the nodes listed.
type OtherWeights struct {
	Op     string `json:"op"`
	Nodes  int    `json:"nodes"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"` // why they stay as they are
}

// InspectReport is what is in a model.
type InspectReport struct {
	Schema    string          `json:"schema"`
	Path      string          `json:"path"`
	IRVersion int64           `json:"ir_version"`
	Opset     int64           `json:"opset"`
	Bytes     int64           `json:"bytes"`
	Inputs    []string        `json:"inputs"`
	Outputs   []string        `json:"outputs"`
	Weights   int64           `json:"weights"`
	Coverage  float64         `json:"coverage"`
	Estimates []Estimate      `json:"estimates"`         // of what quantizing would give
	Problem   string          `json:"problem,omitempty"` // why the model cannot be quantized at all
	Others    []OtherWeights  `json:"others"`            // that stay as they are, the largest first
	PeakRSS   int64           `json:"peak_rss_bytes"`
	Nodes     []InspectedNode `json:"nodes"`
}

// typed describes a value, what is no tensor by the type that the graph declares.
func typed(s tensor.Spec, declared []*onnx.ValueInfo) string {
	if s.Type != tensor.Undefined {
		return s.String()
	}
	i := slices.IndexFunc(declared, func(v *onnx.ValueInfo) bool { return v.Name == s.Name })
	return s.Name + " " + declared[i].Type.String()
}

// Inspect lists the MatMul, Gemm and 1×1 Conv nodes of a model and says of each whether it can be quantized. It reads no weights.
func Inspect(path string, opts rewrite.Options) (*InspectReport, error) {
	m, err := OpenModel(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, opts)
	if err != nil {
		return nil, err
	}
	r := &InspectReport{Schema: "cosetq/v1/inspect", Path: m.Path(), IRVersion: m.IRVersion, Nodes: []InspectedNode{}, Estimates: []Estimate{}}
	r.Opset, _ = m.Opset("")
	if r.Bytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	inputs, outputs, err := ort.Declared(m)
	if err != nil {
		return nil, err
	}
	for _, s := range inputs {
		r.Inputs = append(r.Inputs, typed(s, m.Graph.Inputs))
	}
	for _, s := range outputs {
		r.Outputs = append(r.Outputs, typed(s, m.Graph.Outputs))
	}
	for i := range sites {
		s := &sites[i]
		n := InspectedNode{Node: s.Name, Op: s.Op, Initializer: s.Initializer, K: s.K, N: s.N, Batch: s.Batch, Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail}
		if s.DType != onnx.Undefined {
			n.DType = s.DType.String()
		}
		r.Nodes = append(r.Nodes, n)
	}
	r.Weights, r.Coverage = rewrite.Coverage(sites)
	if err := checkQuantizable(m); err != nil {
		r.Problem = err.Error()
	} else if r.Estimates, err = r.estimates(sites, opts); err != nil {
		return nil, err
	}
	r.Others = otherWeights(m, sites)
	r.PeakRSS = PeakRSS()
	return r, nil
}

// estimates predicts the size with each preset; none where nothing can be quantized.
func (r *InspectReport) estimates(sites []rewrite.Site, opts rewrite.Options) ([]Estimate, error) {
	list := make([]Estimate, 3)
	var group errgroup.Group
	for i, bits := range []int{4, 3, 2} {
		group.Go(caught(func() error {
			o := QuantizeOptions{Bits: bits, Sites: opts}
			codec, err := o.chosenCodec()
			if err == nil {
				err = o.check()
			}
			if err != nil {
				return err
			}
			p := newQuantizeReport(r.Path, &o)
			err = p.plan(&o, codec, oneCodec(sites, codec), sites, withEnding(r.Path, ".q.onnx"))
			list[i] = Estimate{Bits: bits, Codec: codec.String(), BitsPerWeight: p.BitsPerWeight, Bytes: p.Bytes}
			return err
		}))
	}
	err := group.Wait()
	return slices.DeleteFunc(list, func(e Estimate) bool { return e.BitsPerWeight == 0 }), err
}

// OthersText lists the largest of them: what operators read them, how large they are and the code of the reason; "" for none.
func OthersText(others []OtherWeights) string {
	var text []string
	for _, o := range others[:min(len(others), 5)] {
		text = append(text, fmt.Sprintf("%s %s (%s)", o.Op, Size(o.Bytes), o.Reason))
	}
	return strings.Join(text, ", ")
}

// smallConstant is the size below which constants are not worth a word.
const smallConstant = 4096

// otherWeights sums up the larger constants of the main graph that no site names, by the operator that reads them.
func otherWeights(m *onnx.Model, sites []rewrite.Site) []OtherWeights {
	ours, codedElsewhere := map[string]bool{}, map[string]bool{} // initializers; operators, whose scales belong to the weights of sites
	notFollowed := map[*onnx.Node]string{}                       // products of a weight that could not be followed to an initializer, and why
	for i := range sites {
		s := &sites[i]
		ours[s.Initializer] = true
		switch {
		case s.Reason == rewrite.AlreadyQuantized:
			codedElsewhere[s.Op] = true
		case s.Weight == nil && s.Reason != "" && s.Reason != rewrite.DynamicB:
			notFollowed[s.Node()] = string(s.Reason)
		}
	}
	x := onnx.NewIndex(m)
	scope := x.GraphScope(m.Graph)
	type kind struct{ op, reason string }
	all := map[kind]*OtherWeights{}
	for _, t := range m.Graph.Initializers {
		size, err := t.ByteSize()
		v := x.Lookup(scope, t.Name)
		if err != nil || size < smallConstant || ours[t.Name] || v == nil || readBy(v, cudaops.OpName) || readBy(v, cudaops.GatherName) {
			continue
		}
		op, why := "outputs", ""
		if n := consumer(x, v); n != nil {
			op, why = n.OpType, notFollowed[n]
		}
		if codedElsewhere[op] {
			continue
		}
		k := kind{op, cmp.Or(why, otherReason(op))}
		if all[k] == nil {
			all[k] = &OtherWeights{Op: k.op, Reason: k.reason}
		}
		all[k].Nodes += len(v.Uses)
		all[k].Bytes += size
	}
	list := []OtherWeights{}
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b kind) int { return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.reason, b.reason)) }) {
		list = append(list, *all[k])
	}
	slices.SortStableFunc(list, func(a, b OtherWeights) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return list
}

// consumer returns the first reader of v that does more than to arrange or dequantize it; nil where v is an output.
func consumer(x *onnx.Index, v *onnx.Value) *onnx.Node {
	for range 64 { // a damaged graph may go round in a circle
		if v == nil || len(v.Uses) == 0 || v.Uses[0].Node == nil {
			break
		}
		n := v.Uses[0].Node
		if !rewrite.Arranges(n) || len(n.Outputs) == 0 {
			return n
		}
		v = x.Lookup(v.Uses[0].Scope, n.Outputs[0])
	}
	return nil
}

// readBy tells whether the first reader of v is an operator of that type.
func readBy(v *onnx.Value, op string) bool {
	return len(v.Uses) > 0 && v.Uses[0].Node != nil && v.Uses[0].Node.OpType == op
}
