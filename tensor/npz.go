package tensor

import (
	"archive/zip"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cosetq/cosetq/internal/atomicfile"
)

// SaveNPZ writes the named tensors as a .npz archive of NumPy, in the order of specs; bfloat16, which NumPy lacks, as float32, which
// holds each of its values. The file appears whole or not at all.
func SaveNPZ(path string, specs []Spec, tensors map[string]*Tensor) error {
	return atomicfile.Write(path, 0o644, func(f *os.File) error { return writeNPZ(f, specs, tensors) })
}

func writeNPZ(f io.Writer, specs []Spec, tensors map[string]*Tensor) error {
	w := zip.NewWriter(f)
	for _, spec := range specs {
		if tensors[spec.Name] == nil {
			return fmt.Errorf("tensor %q: it is not among those to be written", spec.Name)
		}
		entry, err := w.Create(spec.Name + ".npy")
		if err == nil {
			err = writeNPY(entry, tensors[spec.Name])
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", spec.Name, err)
		}
	}
	return w.Close()
}

// npyTypes are the element types that NumPy's format can hold.
var npyTypes = map[Type]string{
	Float32: "<f4", Float64: "<f8", Float16Type: "<f2", Int8: "|i1", Int16: "<i2", Int32: "<i4",
	Int64: "<i8", Uint8: "|u1", Uint16: "<u2", Uint32: "<u4", Uint64: "<u8", Bool: "|b1",
}

// writeNPY writes a tensor in NumPy's format, version 1.0.
func writeNPY(w io.Writer, t *Tensor) error {
	if t.Type == BFloat16Type {
		b, err := View[BFloat16](t)
		if err != nil {
			return err
		}
		v := make([]float32, len(b))
		for i, x := range b {
			v[i] = x.Float32()
		}
		t = Of(v, t.Shape...)
	}
	descr, ok := npyTypes[t.Type]
	if !ok {
		return fmt.Errorf("NumPy files hold no %s", t.Type)
	}
	var dims strings.Builder
	for _, d := range t.Shape {
		fmt.Fprintf(&dims, "%d,", d)
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, dims.String())
	header += strings.Repeat(" ", 63-(len(header)+10)%64) + "\n"
	start := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	for _, part := range [][]byte{start, []byte(header), t.Data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
