package onnx

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers may want to tell apart with errors.Is. Every one of them
// arrives wrapped with the place it happened at.
var (
	// ErrTruncated: the file ends inside a field, or a field claims more bytes than there are.
	ErrTruncated = errors.New("the data ends before the field does; the file is truncated or damaged")
	// ErrWire: the bytes are no protobuf encoding.
	ErrWire = errors.New("not a valid protobuf encoding; the file is damaged or no ONNX model")
	// ErrTooDeep: messages are nested deeper than about 100 levels of subgraphs.
	ErrTooDeep = errors.New("nested too deeply")
	// ErrNotModel: the file holds no graph.
	ErrNotModel = errors.New("no graph in it: this is not an ONNX model")
	// ErrTensorSize: the data of a tensor do not have the size that its shape and type ask for.
	ErrTensorSize = errors.New("data size does not match the shape and type")
	// ErrDims: a dimension is negative or the product of all overflows.
	ErrDims = errors.New("invalid dimensions")
	// ErrDataType: the operation is not defined for the data type.
	ErrDataType = errors.New("unsuitable data type")
	// ErrNotRaw: the data are stored in a typed field, so that no view of raw bytes exists.
	ErrNotRaw = errors.New("stored in a typed field, not as raw bytes")
	// ErrLocation: external data are placed where a model must not reach.
	ErrLocation = errors.New("external data location is not allowed")
	// ErrClosed: the model, or the one a tensor was taken from, was closed.
	ErrClosed = errors.New("the model is closed")
	// ErrTooLarge: the model without its external data would exceed the 2 GiB limit of protobuf.
	ErrTooLarge = errors.New("larger than the 2 GiB a protobuf file may have")
	// ErrSameFile: a model would be written onto a file that it is being read from.
	ErrSameFile = errors.New("refusing to write onto a file that the model is read from")
	// ErrNotFile: a folder, device or pipe has the name that a file is to get; renaming would take it away.
	ErrNotFile = errors.New("it is no regular file")
	// ErrChanged: a file was truncated or rewritten in place while it was open.
	ErrChanged = errors.New("the file changed while it was read")
	// ErrVerify: what was written does not read back as what was meant.
	ErrVerify = errors.New("the written file does not read back as it was written")
)

// FormatError says what is wrong with a file, and where.
type FormatError struct {
	Path   string // the file, "" when the model did not come from one
	Offset int64  // byte offset of the field in the file, -1 when there is none
	Where  string // the field, such as "graph.node[3].attribute[0].t"
	Err    error
}

func (e *FormatError) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	} else {
		b.WriteString("onnx: ")
	}
	if e.Where != "" {
		b.WriteString(e.Where)
		if e.Offset >= 0 {
			fmt.Fprintf(&b, " (byte %d)", e.Offset)
		}
		b.WriteString(": ")
	} else if e.Offset >= 0 {
		fmt.Fprintf(&b, "byte %d: ", e.Offset)
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// inside prefixes the place of a FormatError with the field that contains it.
func inside(err error, name string, index int) error {
	var fe *FormatError
	if !errors.As(err, &fe) {
		return err
	}
	if index >= 0 {
		name = fmt.Sprintf("%s[%d]", name, index)
	}
	if fe.Where != "" {
		name += "." + fe.Where
	}
	fe.Where = name
	return err
}
