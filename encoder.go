package cosetq

import (
	"fmt"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
)

// CUDA is the device of [QuantizeOptions] that codes on the GPU.
const CUDA = "cuda"

// encoderOn returns the encoder of a device: for "" that of [fastEncoder]; for [CUDA] that of the GPU, or an error of the kind
// Unavailable where there is none. The results are the same on every device.
func encoderOn(device string, codec *lattice.Codec) (lattice.RowCoder, error) {
	switch device {
	case "", "cpu":
		return fastEncoder(codec), nil
	case CUDA:
		path, err := cudaops.FindCUDALibrary("")
		if err != nil {
			return nil, fail(Unavailable, err, "leave the device out to code on the CPU")
		}
		e, err := ort.OpenCUDAEncoder(path, codec)
		if err != nil {
			return nil, fail(Unavailable, err, "leave the device out to code on the CPU")
		}
		return e, nil
	}
	return nil, usage(fmt.Errorf("device %q", device), "it is cpu or cuda")
}

// fastEncoder returns the encoder of the native library, or nil where there is none: the results are the same without it.
func fastEncoder(codec *lattice.Codec) lattice.RowCoder {
	path, err := cudaops.FindLibrary("")
	if err != nil {
		return nil
	}
	e, err := ort.OpenEncoder(path, codec)
	if err != nil {
		return nil
	}
	return e
}
