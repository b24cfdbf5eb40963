//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// nodeCase is a graph of a few nodes whose inputs are x0, x1 and so on, and whose output is y.
type nodeCase struct {
	name   string
	opset  int64 // 21 unless given
	nodes  []*onnx.Node
	inputs []*tensor.Tensor
	known  bool   // the graph says what shapes the inputs have, and not only how many dimensions
	left   string // why a node is left to the CPU
	want   string // what the error says
}

// node is one that has y of x0 and so on; an input that is nil is left out.
func node(op string, inputs []*tensor.Tensor, attrs ...*onnx.Attribute) *onnx.Node {
	names := make([]string, len(inputs))
	for i, x := range inputs {
		if x != nil {
			names[i] = fmt.Sprint("x", i)
		}
	}
	domain, op, fused := strings.Cut(op, "::")
	if !fused {
		domain, op = "", domain
	}
	n := onnx.NewNode(op, names, []string{"y"}, attrs...)
	n.Domain = domain
	return n
}

func single(name, op string, inputs []*tensor.Tensor, attrs ...*onnx.Attribute) nodeCase {
	return nodeCase{name: name, nodes: []*onnx.Node{node(op, inputs, attrs...)}, inputs: inputs}
}

func (c nodeCase) of(opset int64) nodeCase      { c.opset = opset; return c }
func (c nodeCase) leaves(reason string) nodeCase { c.known, c.left = true, reason; return c }
func (c nodeCase) fails(want string) nodeCase    { c.want = want; return c }

// run runs the graph on a provider, or on the CPU for "".
func (c nodeCase) run(t *testing.T, library string) (*tensor.Tensor, error) {
	t.Helper()
	inputs := map[string]*tensor.Tensor{}
	path := modelOf(t, max(c.opset, 21), func(g *onnx.Graph) {
		g.Inputs, g.Nodes = nil, c.nodes
		for i, x := range c.inputs {
			if x == nil {
				continue
			}
			name := fmt.Sprint("x", i)
			inputs[name] = x
			dims := make([]any, len(x.Shape))
			for d := range dims {
				dims[d] = fmt.Sprintf("%s_%d", name, d)
				if c.known {
					dims[d] = int(x.Shape[d])
				}
			}
			g.Inputs = append(g.Inputs, value(name, onnx.DataType(x.Type), dims...))
		}
		for i, n := range g.Nodes {
			n.Name = fmt.Sprint(n.OpType, i)
		}
		g.Outputs = []*onnx.ValueInfo{{Name: "y"}}
	})
	s, err := openORT(t).NewSession(path, ort.SessionOptions{Provider: library, Optimization: ort.OptimizeDisabled, Threads: 1,
		Config: map[string]string{"ai.coset.gpu_nodes": "all"}})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	y, err := s.Run(context.Background(), inputs)
	return y["y"], err
}

// numbers are n floats of both signs.
func numbers(dims ...int64) *tensor.Tensor {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32((i*7+3)%11-5) / 4
	}
	return tensor.Of(v, dims...)
}

func ints(v ...int64) *tensor.Tensor { return tensor.Of(v, int64(len(v))) }

// What a node says it computes the provider computes, or leaves to the CPU: these it once had wrong.
func TestProviderNodes(t *testing.T) {
	library, about, _ := aboutProvider(t)
	type inputs = []*tensor.Tensor
	nan := float32(math.NaN())
	truths := single("IsNaN of a sum", "Add", inputs{numbers(4), tensor.Of([]float32{1, nan, 0, nan}, 4)})
	truths.nodes[0].Outputs = []string{"sum"}
	truths.nodes = append(truths.nodes, onnx.NewNode("IsNaN", []string{"sum"}, []string{"y"}))
	query, cache := numbers(2, 2, 5, 4), numbers(2, 2, 4, 4)
	for _, c := range []nodeCase{
		single("a bias", "com.microsoft::FastGelu", inputs{numbers(2, 3), numbers(3)}),
		single("no bias", "com.microsoft::FastGelu", inputs{numbers(2, 3)}),
		truths,
		single("lengths, causal", "Attention", inputs{query, cache, cache, nil, nil, nil, ints(2, 4)}, onnx.IntAttr("is_causal", 1)).of(24),
		single("lengths, causal, fewer queries", "Attention", inputs{numbers(2, 2, 2, 4), cache, cache, nil, nil, nil, ints(2, 4)}, onnx.IntAttr("is_causal", 1)).of(24),
	} {
		t.Run(c.nodes[len(c.nodes)-1].OpType+"/"+c.name, func(t *testing.T) {
			want, err := c.run(t, "")
			if err != nil {
				t.Fatal(err)
			}
			before := about.Traffic().Runs
			got, err := c.run(t, library)
			if err != nil {
				t.Fatal(err)
			}
			if d := distance(t, want, got); !(d < 1e-5) {
				t.Errorf("%v of %v, want %v", got.Data, got.Shape, want.Data)
			}
			if ran := about.Traffic().Runs > before; ran != (c.left == "") {
				t.Errorf("on the device: %t", ran)
			}
		})
	}
}
