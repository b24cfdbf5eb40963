package calib

import (
	"fmt"
	"iter"
	"slices"

	"github.com/cosetq/cosetq/tensor"
)

// Batch is several samples joined along their first dimension.
type Batch struct {
	First   int       // number of the first sample
	Samples []*Sample // their labels and targets; Inputs of each are batches of one
	// Inputs joins the inputs of the samples. When the model has a fixed batch that the last samples do not fill, the
	// last one is repeated; outputs beyond len(Samples) are to be ignored.
	Inputs map[string]*tensor.Tensor
}

// BatchSize is the number of samples to feed a model at once: the fixed batch that its inputs declare, or want when the
// first dimension of all of them is dynamic.
func BatchSize(inputs []tensor.Spec, want int) int {
	size := max(want, 1)
	for _, s := range inputs {
		if !s.Ranked || len(s.Shape) == 0 {
			return 1
		}
		if s.Shape[0].Fixed() {
			return max(int(s.Shape[0].Size), 1)
		}
	}
	return size
}

// Batches gives the samples of a reader in order, size at a time, reading them as they are asked for.
// Pad, for models with a fixed batch, fills the last batch up.
func Batches(r Reader, size int, pad bool) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for first := 0; first < r.Len(); first += size {
			b := &Batch{First: first}
			for i := first; i < min(first+size, r.Len()); i++ {
				s, err := r.Sample(i)
				if err != nil {
					yield(nil, err)
					return
				}
				b.Samples = append(b.Samples, s)
			}
			joined := b.Samples
			for pad && len(joined) < size {
				joined = append(slices.Clip(joined), b.Samples[len(b.Samples)-1])
			}
			if err := b.join(joined); err != nil {
				yield(nil, err)
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (b *Batch) join(samples []*Sample) error {
	if len(samples) == 1 {
		b.Inputs = samples[0].Inputs
		return nil
	}
	b.Inputs = map[string]*tensor.Tensor{}
	for name, first := range samples[0].Inputs {
		if len(first.Shape) == 0 {
			return fmt.Errorf("samples %d and on: input %s is a scalar, so samples cannot share a batch; feed them one by one", b.First, name)
		}
		all := &tensor.Tensor{Type: first.Type, Shape: slices.Clone(first.Shape)}
		all.Shape[0] = 0
		all.Data = make([]byte, 0, len(samples)*len(first.Data))
		for i, s := range samples {
			t := s.Inputs[name]
			if !slices.Equal(t.Shape[1:], first.Shape[1:]) {
				return fmt.Errorf("sample %d: input %s has shape %s, the sample before it %s; feed them one by one",
					b.First+i, name, tensor.FormatShape(t.Shape), tensor.FormatShape(first.Shape))
			}
			all.Shape[0] += t.Shape[0]
			all.Data = append(all.Data, t.Data...)
		}
		b.Inputs[name] = all
	}
	return nil
}
