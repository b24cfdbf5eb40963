package finetune

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// order says which samples each batch takes, and sets samples aside that are never trained on.
type order struct {
	size    int // samples of a batch
	seed    uint64
	train   []int // samples to train on
	heldOut []int // samples to judge by, a multiple of size
}

// newOrder splits n samples: every so-many-th, spread over the data, is held out.
func newOrder(n, size, heldOut int, seed uint64) (*order, error) {
	heldOut = max(heldOut/size, 1) * size
	if n < heldOut+size {
		return nil, &OptionError{fmt.Sprintf("%d samples are too few for a batch of %d besides %d that are held out: give more data, or a smaller batch", n, size, heldOut)}
	}
	o := &order{size: size, seed: seed}
	for i := range heldOut {
		o.heldOut = append(o.heldOut, i*n/heldOut+n/heldOut/2)
	}
	for i := range n {
		if _, out := slices.BinarySearch(o.heldOut, i); !out {
			o.train = append(o.train, i)
		}
	}
	return o, nil
}

// batch returns the samples of training batch i: every epoch goes once through the data, in an order of its own.
func (o *order) batch(i int) []int {
	per := len(o.train) / o.size
	permutation := rand.New(rand.NewPCG(o.seed, uint64(i/per))).Perm(len(o.train))
	chosen := make([]int, o.size)
	for j := range chosen {
		chosen[j] = o.train[permutation[i%per*o.size+j]]
	}
	return chosen
}
