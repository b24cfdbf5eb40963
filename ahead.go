package cosetq

import (
	"iter"

	"github.com/cosetq/cosetq/calib"
)

// mostAhead bounds the batches that are read before it is their turn.
const mostAhead = 64

// ahead gives what batches gives, and calls begin for each as soon as it is read, which is before its turn as long as there is room.
func ahead(batches iter.Seq2[*calib.Batch, error], begin func(*calib.Batch), room func() bool) iter.Seq2[*calib.Batch, error] {
	return func(yield func(*calib.Batch, error) bool) {
		next, stop := iter.Pull2(batches)
		defer stop()
		var read []*calib.Batch
		var failure error // of what comes after those
		more := true
		for {
			for more && (len(read) == 0 || len(read) < mostAhead && room()) {
				b, err, ok := next()
				if more = ok && err == nil; more {
					begin(b)
					read = append(read, b)
				}
				failure = err
			}
			if len(read) == 0 {
				if failure != nil {
					yield(nil, failure)
				}
				return
			}
			if !yield(read[0], nil) {
				return
			}
			read = read[1:]
		}
	}
}
