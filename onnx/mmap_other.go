//go:build !unix || nommap

package onnx

import (
	"io"
	"os"
)

const mapped = false

// mapOpen reads the first size bytes of f, where files cannot be mapped: the
// same behaviour at the price of the memory.
func mapOpen(f *os.File, size int) ([]byte, func() error, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}

func release([]byte) {}
