package rewrite

import (
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
)

// insideFunction is why a layer of a function that is still there is left alone.
const insideFunction = "it is inside a model-local function of other operator sets than the model's, or of a domain of the runtime's; inline the functions first"

// InlineLayers puts the bodies of model-local functions in the place of their calls where there are products or look-ups in them: exporters have made
// functions of modules, to which each call gives the weights. Functions of ours and of domains that a runtime has kernels for stay, and those that
// [onnx.Model.Inline] leaves. It returns how many calls it replaced.
func InlineLayers(m *onnx.Model) int {
	if len(m.Functions) == 0 {
		return 0
	}
	isLayer := func(n *onnx.Node) bool {
		return standard(n, "MatMul") || standard(n, "Gemm") || standard(n, "Conv") || standard(n, "Gather") || fusesLinear(n)
	}
	holds, callers := map[string]bool{}, map[string][]string{} // by function
	var todo []string
	hold := func(id string) {
		if !holds[id] {
			holds[id] = true
			todo = append(todo, id)
		}
	}
	for _, s := range m.Scopes() {
		f := s.Root().Function
		if f == nil || slices.Contains([]string{"", "ai.onnx", cudaops.Domain, microsoft}, f.Domain) {
			continue
		}
		for _, n := range s.Nodes() {
			if n == nil {
				continue
			}
			callers[n.OpID()] = append(callers[n.OpID()], f.ID())
			if isLayer(n) {
				hold(f.ID())
			}
		}
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, caller := range callers[id] {
			hold(caller)
		}
	}
	return m.Inline(func(f *onnx.Function) bool { return holds[f.ID()] })
}
