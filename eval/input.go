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
		if in.Type != tensor.Float32 && in.Type != tensor.Float16Type {
			continue
		}
		var err error
		if all[in.Name], err = given.Converted(in.Type); err != nil {
			return nil, err
		}
	}
	return all, nil
}
