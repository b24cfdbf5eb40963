package rewrite

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
)

// names holds every name of a model, of values and nodes of all graphs: a new name that differs from all of them can
// neither collide nor be captured by a subgraph.
type names map[string]bool

func newNames(m *onnx.Model) names {
	taken := names{}
	for _, s := range newValues(m).scopes {
		for name := range s.names {
			taken[name] = true
		}
		for _, n := range s.nodes() {
			taken[n.Name] = true
			for _, in := range n.Inputs {
				taken[in] = true
			}
		}
	}
	return taken
}

// unique returns want, or want with a number behind it, and takes it.
func (taken names) unique(want string) string {
	name := want
	for i := 1; taken[name]; i++ {
		name = fmt.Sprintf("%s.%d", want, i)
	}
	taken[name] = true
	return name
}
