package eval

import (
	"maps"

	"github.com/cosetq/cosetq/tensor"
)

// inputs are those of a batch as the model takes them. Data is read for the first model; another form of the same network may take
// float16 where that takes float32, or the other way round.
func (m *Model) inputs(batch map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	all := maps.Clone(batch)
	for _, in := range m.Inputs {
		given := batch[in.Name]
		if given == nil || given.Type == in.Type || !given.Type.Float() {
			continue
		}
		values := make([]float64, given.Count())
		if err := given.Floats(values, 0, int64(len(values))); err != nil {
			return nil, err
		}
		var taken *tensor.Tensor
		switch in.Type {
		case tensor.Float32:
			taken = converted(values, given.Shape, func(v float64) float32 { return float32(v) })
		case tensor.Float16Type:
			taken = converted(values, given.Shape, func(v float64) tensor.Float16 { return tensor.ToFloat16(float32(v)) })
		default:
			continue
		}
		all[in.Name] = taken
	}
	return all, nil
}

func converted[T tensor.Element](values []float64, shape []int64, to func(float64) T) *tensor.Tensor {
	list := make([]T, len(values))
	for i, v := range values {
		list[i] = to(v)
	}
	return tensor.Of(list, shape...)
}
