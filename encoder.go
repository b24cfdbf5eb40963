package cosetq

import (
	"fmt"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
)

// CUDA is the device of [QuantizeOptions] and [CalibrateOptions] that is an NVIDIA GPU.
const CUDA = "cuda"

// codingOn is [coding] on a device: for [CUDA] rows are coded on the GPU, or the error is of the kind Unavailable where there is
// none. The results are the same on every device.
func codingOn(device string, codec *lattice.Codec) (quant.Options, error) {
	o := coding(codec)
	if device != CUDA {
		return o, nil
	}
	path, err := GPULibrary()
	if err != nil {
		return o, err
	}
	e, err := ort.OpenCUDAEncoder(path, codec)
	if err != nil {
		return o, noGPU(err)
	}
	o.Encoder = e
	return o, nil
}

// GPULibrary returns the path of the library for NVIDIA GPUs, which finds one. Otherwise the error, of the kind Unavailable, says why.
func GPULibrary() (string, error) {
	path, err := cudaops.FindCUDALibrary("")
	if err != nil {
		return "", noGPU(err)
	}
	p, err := ort.OpenProvider(path)
	if err == nil {
		_, err = p.Device()
	}
	if err != nil {
		return "", noGPU(err)
	}
	return path, nil
}

func noGPU(err error) error {
	return fail(Unavailable, fmt.Errorf("--device cuda: %w", err), "leave --device out for the CPU; `cosetq doctor` tells what the GPU needs")
}

// NativeLibrary returns the path of the native library whose functions this program can call: one that was built from the same
// sources. Otherwise the error, of the kind Unavailable, says what is there. Models run with others as well.
func NativeLibrary() (string, error) {
	path, err := cudaops.FindLibrary("")
	if err != nil {
		return "", fail(Unavailable, err, "run `make build`, or `cosetq doctor` to see what is missing")
	}
	l, err := ort.OpenOps(path)
	if err != nil {
		return "", err
	}
	if l.Interface() != cudaops.Interface() {
		return "", fail(Unavailable, fmt.Errorf("native library %s was not built from the sources of this program", path),
			"run `make build`, or set %s to the library that came with this program", cudaops.EnvLibrary)
	}
	return path, nil
}

// coding returns the options that code with a codec, and with the native library as far as it goes: the results are the same
// without it.
func coding(codec *lattice.Codec) quant.Options {
	o := quant.Options{Codec: codec}
	path, err := NativeLibrary()
	if err != nil {
		return o
	}
	if e, err := ort.OpenEncoder(path, codec); err == nil {
		o.Encoder, o.Groups = e, e
	}
	if p, err := ort.OpenProducts(path); err == nil {
		o.Products = p
	}
	return o
}
