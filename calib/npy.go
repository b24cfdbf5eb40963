package calib

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// npyArray is one array in NumPy's format, read in place.
type npyArray struct {
	data  store
	start int64 // offset of the first element
	typ   tensor.Type
	shape []int64
}

func (a *npyArray) Close() error { return a.data.Close() }

var npyTypes = map[string]tensor.Type{
	"|u1": tensor.Uint8, "|i1": tensor.Int8, "|b1": tensor.Bool, "<u2": tensor.Uint16, "<i2": tensor.Int16,
	"<u4": tensor.Uint32, "<i4": tensor.Int32, "<u8": tensor.Uint64, "<i8": tensor.Int64,
	"<f2": tensor.Float16Type, "<f4": tensor.Float32, "<f8": tensor.Float64,
}

var (
	npyDescr   = regexp.MustCompile(`'descr'\s*:\s*'([^']*)'`)
	npyFortran = regexp.MustCompile(`'fortran_order'\s*:\s*(True|False)`)
	npyShape   = regexp.MustCompile(`'shape'\s*:\s*\(([^)]*)\)`)
)

// maxNPYHeader bounds the header; NumPy itself refuses more than 10000 characters.
const maxNPYHeader = 1 << 16

// parseNPY reads the header of an array and checks that its elements are all there.
func parseNPY(data store, size int64) (*npyArray, error) {
	var lead [12]byte
	n, err := data.ReadAt(lead[:], 0)
	if err != nil && err != io.EOF || n < 10 || string(lead[:6]) != npyMagic {
		return nil, errors.New("is not in NumPy's format")
	}
	start, length := int64(10), int64(binary.LittleEndian.Uint16(lead[8:]))
	if lead[6] >= 2 {
		start, length = 12, int64(binary.LittleEndian.Uint32(lead[8:]))
	}
	if length > maxNPYHeader {
		return nil, errors.New("has a header too long to be true")
	}
	head := make([]byte, length)
	if _, err := data.ReadAt(head, start); err != nil {
		return nil, fmt.Errorf("ends within its header: %w", err)
	}
	a := &npyArray{data: data, start: start + length}
	descr, fortran, shape := npyDescr.FindSubmatch(head), npyFortran.FindSubmatch(head), npyShape.FindSubmatch(head)
	if descr == nil || fortran == nil || shape == nil {
		return nil, errors.New("has a header without simple descr, fortran_order and shape")
	}
	var ok bool
	if a.typ, ok = npyTypes[string(descr[1])]; !ok {
		return nil, fmt.Errorf("has elements of type %q; save little-endian numbers or booleans", descr[1])
	}
	for _, d := range strings.Split(string(shape[1]), ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		v, err := strconv.ParseInt(d, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("has a shape with %q in it", d)
		}
		a.shape = append(a.shape, v)
	}
	if string(fortran[1]) == "True" && len(a.shape) > 1 {
		return nil, errors.New("is stored column by column; save numpy.ascontiguousarray(x)")
	}
	count, err := tensor.Count(a.shape)
	if err != nil || count > math.MaxInt64/8 || count*int64(a.typ.Size()) > size-a.start {
		return nil, fmt.Errorf("announces %s elements and is too short for them", tensor.FormatShape(a.shape))
	}
	return a, nil
}

// read converts elements from up to but excluding to.
func (a *npyArray) read(from, to int64) (*tensor.Tensor, error) {
	t, err := tensor.New(a.typ, to-from)
	if err != nil {
		return nil, err
	}
	_, err = a.data.ReadAt(t.Data, a.start+from*int64(a.typ.Size()))
	return t, err
}

// ints reads a whole array of integers, as labels are.
func (a *npyArray) ints() ([]int, error) {
	if !a.typ.Integer() {
		return nil, fmt.Errorf("holds %s, not integers; save y.astype(\"int64\"), or y.argmax(-1) of one number per class", a.typ)
	}
	n, err := tensor.Count(a.shape)
	if err != nil {
		return nil, err
	}
	t, err := a.read(0, n)
	if err != nil {
		return nil, err
	}
	values := make([]float64, n)
	if err := t.Floats(values, 0, n); err != nil {
		return nil, err
	}
	out := make([]int, n)
	for i, v := range values {
		out[i] = int(v)
	}
	return out, nil
}

// openNPYFile opens the one array of a .npy file.
func openNPYFile(path string) (*npyArray, error) {
	data, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	a, err := parseNPY(data, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s %w", path, err), data.Close())
	}
	return a, nil
}

// archive is an open .npz file: a zip file of .npy files. A .npy file alone is one of a single array, which has the name of the file.
type archive struct {
	file store
	zip  *zip.Reader // nil for a single array
	path string
}

// npyMagic is how an array starts.
const npyMagic = "\x93NUMPY"

func openArchive(path string) (*archive, error) {
	f, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	var start [len(npyMagic)]byte
	if n, _ := f.ReadAt(start[:], 0); string(start[:n]) == npyMagic {
		return &archive{file: f, path: path}, nil
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not a NumPy archive (.npz), nor an array (.npy): %w", path, err), f.Close())
	}
	return &archive{file: f, zip: z, path: path}, nil
}

func (a *archive) Close() error { return a.file.Close() }

// names lists the arrays, in alphabetical order.
func (a *archive) names() []string {
	if a.zip == nil {
		return []string{strings.TrimSuffix(filepath.Base(a.path), ".npy")}
	}
	var names []string
	for _, f := range a.zip.File {
		if n, ok := strings.CutSuffix(f.Name, ".npy"); ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// array opens one array; an empty name stands for the only one.
func (a *archive) array(name string) (*npyArray, error) {
	names := a.names()
	if name == "" {
		if len(names) != 1 {
			return nil, fmt.Errorf("%s holds the arrays %s; name one", a.path, strings.Join(names, ", "))
		}
		name = names[0]
	}
	switch {
	case a.zip == nil && name != names[0]:
		return nil, fmt.Errorf("%s is a single array and has none named %q beside it; numpy.savez(\"samples.npz\", x=x, y=y) stores several", a.path, name)
	case a.zip == nil:
		return openNPYFile(a.path)
	case !slices.Contains(names, name):
		return nil, fmt.Errorf("%s has no array %q%s", a.path, name, didYouMean(name, names))
	}
	for _, f := range a.zip.File {
		if f.Name != name+".npy" {
			continue
		}
		data, size, err := openMember(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.path, err)
		}
		arr, err := parseNPY(data, size)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: array %s %w", a.path, name, err), data.Close())
		}
		return arr, nil
	}
	return nil, fmt.Errorf("%s has no array %q", a.path, name)
}
