package rewrite

import (
	"bytes"
	"io"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// packed is the codes or the gains of a matrix that lies in a file: it lets go of the memory when it has been written.
type packed struct {
	m     *quant.Matrix
	gains bool
}

// tensor returns p as a tensor: a view of it, or a stream where it lies in a file.
func (p packed) tensor(dt onnx.DataType, dims []int64) *onnx.Tensor {
	if p.m.Release == nil {
		return onnx.NewRawTensor("", dt, dims, p.bytes())
	}
	return onnx.NewStreamTensor("", dt, dims, p)
}

func (p packed) bytes() []byte {
	if p.gains {
		return p.m.Gains
	}
	return p.m.Codes
}

// Size returns the number of bytes.
func (p packed) Size() int64 { return int64(len(p.bytes())) }

// ReadAt implements io.ReaderAt.
func (p packed) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.bytes()).ReadAt(b, off)
}

// piece is how much is written at once: little to hold, much to write.
const piece = 4 << 20

// WriteTo writes all bytes.
func (p packed) WriteTo(w io.Writer) (int64, error) {
	defer p.m.Release()
	var total int64
	for b := p.bytes(); len(b) > 0; {
		n, err := w.Write(b[:min(len(b), piece)])
		total += int64(n)
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}
