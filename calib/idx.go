package calib

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cosetq/cosetq/tensor"
)

// idxReader reads images of bytes in the IDX format of MNIST, each rows × columns.
type idxReader struct {
	recipe     *Recipe
	in         tensor.Spec
	data       store
	start      int64 // offset of the first image
	rows, cols int64
	count      int
	labels     []int // nil without labels
	shape      []int64
	table      [256]float32
}

func openIDX(r *Recipe, inputs []tensor.Spec, o Options) (Reader, error) {
	in, err := r.chooseInput(inputs, nil)
	if err != nil {
		return nil, err
	}
	scale, err := r.newScaler(1)
	if err != nil {
		return nil, err
	}
	data, dims, start, err := openIDXFile(r.resolve(r.Images))
	if err != nil {
		return nil, r.fail("images", "%w", err)
	}
	x := &idxReader{recipe: r, in: in, data: data, start: start, table: scale.table()[0]}
	if err := x.prepare(dims, o); err != nil {
		return nil, errors.Join(err, data.Close())
	}
	return x, nil
}

func (x *idxReader) prepare(dims []int64, o Options) (err error) {
	r := x.recipe
	if len(dims) != 3 {
		return r.fail("images", "%s has %d dimensions; images have 3: count, rows, columns", r.Images, len(dims))
	}
	x.rows, x.cols, x.count = dims[1], dims[2], limited(dims[0], o)
	if x.shape, err = r.sampleShape(x.rows*x.cols, []int64{1, x.rows, x.cols}); err != nil {
		return err
	}
	if err := r.checkFit("shape", x.in, x.shape); err != nil {
		return err
	}
	if r.Labels == "" {
		return nil
	}
	x.labels, err = readIDXLabels(r.resolve(r.Labels))
	if err != nil {
		return r.fail("labels", "%w", err)
	}
	if int64(len(x.labels)) != dims[0] {
		return r.fail("labels", "%s holds %d labels for %d images; they belong to different sets", r.Labels, len(x.labels), dims[0])
	}
	return nil
}

// sampleShape is the recipe's shape with a batch of one, or the given default, after checking that it holds one sample
// of the given size.
func (r *Recipe) sampleShape(size int64, otherwise []int64) ([]int64, error) {
	if len(r.Shape) == 0 {
		return otherwise, nil
	}
	shape := append([]int64{}, r.Shape...)
	if shape[0] == -1 {
		shape[0] = 1
	}
	if n, err := tensor.Count(shape); err != nil || n != size {
		return nil, r.fail("shape", "%s holds %d numbers per sample, and the data has %d", tensor.FormatShape(r.Shape), n, size)
	}
	return shape, nil
}

func (x *idxReader) Len() int     { return x.count }
func (x *idxReader) Random() bool { return false }
func (x *idxReader) Close() error { return x.data.Close() }

func (x *idxReader) Sample(i int) (*Sample, error) {
	raw := make([]byte, x.rows*x.cols)
	if _, err := x.data.ReadAt(raw, x.start+int64(i)*x.rows*x.cols); err != nil {
		return nil, x.recipe.fail("images", "image %d of %s: %w", i, x.recipe.Images, err)
	}
	values := make([]float32, len(raw))
	for row := range x.rows {
		for col := range x.cols {
			to := row*x.cols + col
			if x.recipe.Pixel.Transpose {
				to = col*x.rows + row
			}
			values[to] = x.table[raw[row*x.cols+col]]
		}
	}
	t, err := x.recipe.encode(values, x.in.Type, x.shape)
	if err != nil {
		return nil, err
	}
	return &Sample{Inputs: map[string]*tensor.Tensor{x.in.Name: t}, Label: labelOf(x.labels, i)}, nil
}

func labelOf(labels []int, i int) int {
	if labels == nil {
		return -1
	}
	return labels[i]
}

// openIDXFile reads the header: two zero bytes, the element type, the number of dimensions, then each as a big-endian
// 32-bit number. The file must hold exactly what the header announces.
func openIDXFile(path string) (data store, dims []int64, start int64, err error) {
	data, size, err := openUnpacked(path)
	if err != nil {
		return nil, nil, 0, err
	}
	fail := func(format string, args ...any) (store, []int64, int64, error) {
		return nil, nil, 0, errors.Join(fmt.Errorf("%s %w", path, fmt.Errorf(format, args...)), data.Close())
	}
	var magic [4]byte
	if _, err := data.ReadAt(magic[:], 0); err != nil || magic[0] != 0 || magic[1] != 0 {
		return fail("is not an IDX file: it does not start with two zero bytes")
	}
	if magic[2] != 8 {
		return fail("has element type 0x%02x; only unsigned bytes (0x08) are read", magic[2])
	}
	head := make([]byte, 4*int(magic[3]))
	if _, err := data.ReadAt(head, 4); err != nil {
		return fail("ends within its header: %w", err)
	}
	for i := range int(magic[3]) {
		dims = append(dims, int64(binary.BigEndian.Uint32(head[4*i:])))
	}
	start = 4 + int64(len(head))
	if n, err := tensor.Count(dims); err != nil || n != size-start {
		return fail("announces %s bytes and holds %d; it is cut or damaged", tensor.FormatShape(dims), size-start)
	}
	return data, dims, start, nil
}

func readIDXLabels(path string) ([]int, error) {
	data, dims, start, err := openIDXFile(path)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	if len(dims) != 1 {
		return nil, fmt.Errorf("%s has %d dimensions; labels have one", path, len(dims))
	}
	raw := make([]byte, dims[0])
	if _, err := data.ReadAt(raw, start); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	labels := make([]int, len(raw))
	for i, v := range raw {
		labels[i] = int(v)
	}
	return labels, nil
}
