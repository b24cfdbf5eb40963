package tensor

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// SaveNPZ writes the named tensors as a .npz archive of NumPy, in the order of specs, under a temporary name and renames it.
func SaveNPZ(path string, specs []Spec, tensors map[string]*Tensor) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		_ = tmp.Close()
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	w := zip.NewWriter(tmp)
	for _, spec := range specs {
		entry, err := w.Create(spec.Name + ".npy")
		if err == nil {
			err = writeNPY(entry, tensors[spec.Name])
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", spec.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	// As other outputs have it; that of os.CreateTemp is for nobody else.
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// npyTypes are the element types that NumPy's format can hold.
var npyTypes = map[Type]string{
	Float32: "<f4", Float64: "<f8", Float16Type: "<f2", Int8: "|i1", Int16: "<i2", Int32: "<i4",
	Int64: "<i8", Uint8: "|u1", Uint16: "<u2", Uint32: "<u4", Uint64: "<u8", Bool: "|b1",
}

// writeNPY writes a tensor in NumPy's format, version 1.0.
func writeNPY(w io.Writer, t *Tensor) error {
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
