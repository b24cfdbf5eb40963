package onnx

import (
	"fmt"
	"io"
	"math"
)

// Tensor is a named array (TensorProto). Its data are in exactly one place:
// RawData, one of the typed fields, an external file when DataLocation is
// [LocationExternal], or Data. RawData is in row-major order, little-endian,
// sub-byte elements packed from the low bits up. After [Open] it is a read-only
// view into the file: replace it, do not write into it.
type Tensor struct {
	Dims          []int64
	DataType      DataType
	Segment       *Segment
	FloatData     Packed[float32]
	Int32Data     Packed[int32]
	StringData    [][]byte
	Int64Data     Packed[int64]
	Name          string
	RawData       []byte
	DoubleData    Packed[float64]
	Uint64Data    Packed[uint64]
	DocString     string
	ExternalData  []*Property // keys location, offset, length, checksum
	DataLocation  DataLocation
	MetadataProps []*Property

	// Data, when set, supplies the raw data at the moment of writing and takes
	// the place of every other storage, so that a caller need not hold them.
	Data Data

	source
}

// Data produces the raw bytes of a tensor on demand. Both methods may be called
// several times and must agree each time.
type Data interface {
	Size() int64 // in bytes
	// WriteTo writes exactly Size bytes to w.
	WriteTo(w io.Writer) (int64, error)
}

// DataLocation says whether the data of a tensor are in the model or beside it.
type DataLocation int32

// The data locations of ONNX.
const (
	LocationDefault  DataLocation = 0
	LocationExternal DataLocation = 1
)

// Segment marks a tensor as a chunk of a larger one. ONNX defines it but gives
// it no meaning; it is kept and otherwise ignored.
type Segment struct {
	Begin, End int64

	source
}

// SparseTensor holds the values that are not zero and their indices, which are
// linearized (rank 1) or coordinates (rank 2).
type SparseTensor struct {
	Values  *Tensor // its name is the name of the sparse tensor
	Indices *Tensor
	Dims    []int64

	source
}

// NumElements returns the product of the dimensions: 1 for a scalar. The error
// wraps [ErrDims] when a dimension is negative or the product overflows.
func (t *Tensor) NumElements() (int64, error) { return numElements(t.Dims) }

func numElements(dims []int64) (int64, error) {
	n, zero := int64(1), false
	for _, d := range dims {
		if d < 0 {
			return 0, fmt.Errorf("%w %v: negative size", ErrDims, short(dims))
		}
		zero = zero || d == 0
		if d > 0 && n > math.MaxInt64/d {
			// An overflow beside a zero is still no size anyone can mean.
			return 0, fmt.Errorf("%w %v: the number of elements overflows", ErrDims, short(dims))
		}
		n *= max(d, 1)
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// short keeps error messages readable when a damaged file has a million dims.
func short(dims []int64) string {
	if len(dims) > 8 {
		return fmt.Sprintf("%v... (%d in all)", dims[:8], len(dims))
	}
	return fmt.Sprint(dims)
}

// ByteSize returns the bytes of the data in raw form, whatever form they are
// stored in. The error wraps [ErrDims] or, for strings and unknown types, [ErrDataType].
func (t *Tensor) ByteSize() (int64, error) {
	n, err := t.NumElements()
	if err != nil {
		return 0, err
	}
	return rawSize(t.DataType, n)
}

func rawSize(dt DataType, n int64) (int64, error) {
	bits := int64(dt.Bits())
	if bits == 0 {
		return 0, fmt.Errorf("%w %v: it has no raw form", ErrDataType, dt)
	}
	if n > (math.MaxInt64-7)/bits {
		return 0, fmt.Errorf("%w: %d elements of %v overflow", ErrDims, n, dt)
	}
	return (n*bits + 7) / 8, nil
}

// IsExternal reports whether the data lie in another file.
func (t *Tensor) IsExternal() bool { return t.Data == nil && t.DataLocation == LocationExternal }

// fail wraps err with the name of the tensor and its place in the file.
func (t *Tensor) fail(err error) error {
	fe := &FormatError{Offset: -1, Where: fmt.Sprintf("tensor %q", t.Name), Err: err}
	if t.doc != nil {
		fe.Path = t.doc.path
		fe.Offset = t.doc.offset(t.raw)
	}
	return fe
}

// RawBytes returns a view of the data in raw form, without a copy, when they are
// stored that way: in the model or in an external file. Its size is checked
// against shape and type. The view is valid until the model is closed and must
// not be written to. The error wraps [ErrNotRaw] when the data are in a typed
// field or produced by Data; [Tensor.Bytes] and [Tensor.Float32Range] read every form.
func (t *Tensor) RawBytes() ([]byte, error) {
	b, err := t.rawBytes()
	if err != nil {
		return nil, t.fail(err)
	}
	return b, nil
}

func (t *Tensor) rawBytes() ([]byte, error) {
	want, err := t.ByteSize()
	if err != nil {
		return nil, err
	}
	if t.Data != nil {
		return nil, fmt.Errorf("data are produced on demand: %w", ErrNotRaw)
	}
	if t.doc != nil && t.doc.isClosed() {
		return nil, ErrClosed
	}
	if t.DataLocation == LocationExternal {
		return t.externalBytes(want)
	}
	if len(t.RawData) == 0 && want > 0 && t.RawData == nil {
		return nil, ErrNotRaw
	}
	if int64(len(t.RawData)) != want {
		return nil, fmt.Errorf("%w: %v %v needs %d bytes, raw_data has %d", ErrTensorSize, t.DataType, short(t.Dims), want, len(t.RawData))
	}
	return t.RawData[:want:want], nil
}
