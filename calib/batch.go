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

// BatchSize is the number of samples to feed a model at once, judged by its inputs and one sample: want where the first
// dimension of every input is dynamic, the declared number where it is fixed (then the batch must always be full, as
// fixed says), and 1 where the samples are no batches of one, so that they cannot be joined.
func BatchSize(inputs []tensor.Spec, sample *Sample, want int) (size int, fixed bool) {
	size = max(want, 1)
	for _, s := range inputs {
		t := sample.Inputs[s.Name]
		if t == nil || !s.Ranked || len(s.Shape) == 0 || len(t.Shape) == 0 || t.Shape[0] != 1 || s.Shape[0].Size == 1 {
			return 1, false
		}
		if s.Shape[0].Fixed() {
			size, fixed = int(s.Shape[0].Size), true
		}
	}
	return size, fixed
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
			var err error
			if b.Inputs, err = Join(joined); err != nil {
				yield(nil, fmt.Errorf("samples %d and on: %w", first, err))
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// Join joins the inputs of samples along their first dimension.
func Join(samples []*Sample) (map[string]*tensor.Tensor, error) {
	if len(samples) == 1 {
		return samples[0].Inputs, nil
	}
	inputs := map[string]*tensor.Tensor{}
	for name, first := range samples[0].Inputs {
		if len(first.Shape) == 0 {
			return nil, fmt.Errorf("input %s is a scalar, so samples cannot share a batch; feed them one by one", name)
		}
		all := &tensor.Tensor{Type: first.Type, Shape: slices.Clone(first.Shape)}
		all.Shape[0] = 0
		all.Data = make([]byte, 0, len(samples)*len(first.Data))
		for _, s := range samples {
			t := s.Inputs[name]
			if !slices.Equal(t.Shape[1:], first.Shape[1:]) {
				return nil, fmt.Errorf("input %s has shape %s in one sample and %s in another; feed them one by one",
					name, tensor.FormatShape(first.Shape), tensor.FormatShape(t.Shape))
			}
			all.Shape[0] += t.Shape[0]
			all.Data = append(all.Data, t.Data...)
		}
		inputs[name] = all
	}
	return inputs, nil
}
