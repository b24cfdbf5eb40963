package cosetq

import (
	"errors"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// openSamples opens data for a model with these inputs, which must hold a sample.
func openSamples(data string, inputs []tensor.Spec, o calib.Options) (calib.Reader, error) {
	reader, err := calib.Open(data, inputs, o)
	if err != nil {
		return nil, err
	}
	if reader.Len() == 0 {
		return nil, errors.Join(usage(errors.New("the data holds no samples"), "give a recipe with data"), reader.Close())
	}
	return reader, nil
}
