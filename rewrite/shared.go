package rewrite

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// dropShared skips the sites whose stored weight has another reader that needs it in float: any node that is no candidate,
// or a graph output. Coding such a weight would add to the file and remove nothing from it. Since every site that is
// skipped becomes such a reader, this is repeated until nothing changes.
func (vs *values) dropShared(sites []Site) {
	coded := map[onnx.Use]bool{} // the inputs whose float value will not be needed
	for i := range sites {
		if sites[i].Status == Candidate {
			coded[sites[i].linear.weightUse()] = true
		}
	}
	for changed := true; changed; {
		changed = false
		for i := range sites {
			s := &sites[i]
			if s.Status != Candidate {
				continue
			}
			if reader := vs.floatReader(s.root, coded, map[*onnx.Value]bool{}); reader != "" {
				s.skip(SharedWithFloat, "%s also needs %q in float, so its codes would come on top", reader, s.root.Name)
				delete(coded, s.linear.weightUse())
				changed = true
			}
		}
	}
}

// floatReader names something that reads v, or a constant derived from v, other than the given uses; "" if nothing does.
func (vs *values) floatReader(v *onnx.Value, coded map[onnx.Use]bool, seen map[*onnx.Value]bool) string {
	if seen[v] {
		return ""
	}
	seen[v] = true
	if vs.isOutput(v) {
		return "an output, an annotation or the training information"
	}
	for _, u := range v.Uses {
		if coded[u] {
			continue
		}
		if !vs.folds(u.Node) || u.Input != 0 {
			return describe(u.Node)
		}
		for _, out := range u.Node.Outputs {
			if derived := vs.local(u.Scope, out); derived != nil {
				if reader := vs.floatReader(derived, coded, seen); reader != "" {
					return reader
				}
			}
		}
	}
	return ""
}

// describe names a node in a sentence.
func describe(n *onnx.Node) string {
	if n.Name == "" {
		return fmt.Sprintf("a node %s that yields %q", n.OpType, firstOutput(n))
	}
	return fmt.Sprintf("%s %q", n.OpType, n.Name)
}

func firstOutput(n *onnx.Node) string {
	if len(n.Outputs) == 0 {
		return ""
	}
	return n.Outputs[0]
}
