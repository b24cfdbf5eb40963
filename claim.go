package cosetq

import (
	"github.com/cosetq/cosetq/internal/lockfile"
)

// claim makes output this run's own, and the journal, weights, recipe and state that lie beside it, until it is released: each file is put in place
// by itself, and of two runs that do so one could leave its model over the weights of the other. Shares of one run claim it together.
func claim(output string, shared bool) (release func(), err error) {
	l, err := lockfile.Acquire(output, shared)
	if err != nil {
		return nil, usage(err, "wait until it ends, or choose another -o")
	}
	return l.Release, nil
}
