package cosetq

import (
	"iter"

	"github.com/cosetq/cosetq/calib"
)

// Batches that are read before it is their turn, and bytes of them: of images, a fixed batch alone may take hundreds of megabytes.
const (
	mostAhead      = 64
	mostAheadBytes = 256 << 20
)

// ahead gives what batches gives, and calls begin for each as soon as it is read, which is before its turn as long as there is room.
func ahead(batches iter.Seq2[*calib.Batch, error], begin func(*calib.Batch), room func() bool) iter.Seq2[*calib.Batch, error] {
	return func(yield func(*calib.Batch, error) bool) {
		next, stop := iter.Pull2(batches)
		defer stop()
		var read []*calib.Batch
		var bytes int     // of those
		var failure error // of what comes after those
		more := true
		for {
			for more && (len(read) == 0 || len(read) < mostAhead && bytes < mostAheadBytes && room()) {
				b, err, ok := next()
				if more = ok && err == nil; more {
					begin(b)
					read = append(read, b)
					bytes += bytesOf(b)
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
			bytes -= bytesOf(read[0])
			read = read[1:]
		}
	}
}

func bytesOf(b *calib.Batch) (n int) {
	for _, t := range b.Inputs {
		n += len(t.Data)
	}
	return n
}
