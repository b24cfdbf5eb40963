package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
)

// insideFunction is why a layer of a function that is still there is left alone.
const insideFunction = "it is inside a model-local function of other operator sets than the model's, or of a domain of the runtime's; inline the functions first"

// InlineProducts puts the bodies of model-local functions in the place of their calls where there are products in them: exporters have made functions of
// modules, to which each call gives the weights. Functions of ours and of domains that a runtime has kernels for stay, and those that
// [onnx.Model.Inline] leaves. It returns how many calls it replaced.
func InlineProducts(m *onnx.Model) int {
	if len(m.Functions) == 0 {
		return 0
	}
	isProduct := func(n *onnx.Node) bool {
		return standard(n, "MatMul") || standard(n, "Gemm") || standard(n, "Conv") || fusesLinear(n)
	}
	bodies := map[*onnx.Function][]*onnx.Node{} // with the nodes inside nodes
	for _, s := range m.Scopes() {
		if f := s.Root().Function; f != nil && !slices.Contains([]string{"", "ai.onnx", cudaops.Domain, microsoft}, f.Domain) {
			bodies[f] = append(bodies[f], s.Nodes()...)
		}
	}
	holds := map[string]bool{}
	for more := true; more; {
		more = false
		for f, nodes := range bodies {
			if !holds[f.ID()] && slices.ContainsFunc(nodes, func(n *onnx.Node) bool { return n != nil && (isProduct(n) || holds[n.OpID()]) }) {
				holds[f.ID()], more = true, true
			}
		}
	}
	return m.Inline(func(f *onnx.Function) bool { return bodies[f] != nil && holds[f.ID()] })
}
