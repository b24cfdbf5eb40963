package calib

import (
	"errors"
	"slices"

	"github.com/cosetq/cosetq/tensor"
)

// npzReader reads an array of a NumPy archive, one sample per entry of its first dimension.
//
// An array of the size of one sample, which the recipe's shape tells, is one. An array of bytes shaped [N, H, W] or [N, H, W, C] with at most 4 channels holds images and is laid out as the recipe's
// pixel.layout says. Any other array is fed as it is stored, [N, ...], with scale, mean[0] and std[0] applied.
type npzReader struct {
	recipe *Recipe
	in     tensor.Spec
	array  *npyArray
	count  int
	labels []int
	size   int64 // elements of one sample
	shape  []int64

	images bool
	pixels int64 // of one image
	scale  scaler
	table  [][256]float32
}

func openNPZ(r *Recipe, inputs []tensor.Spec, o Options) (Reader, error) {
	open := func(path string, o Options) (Reader, error) { return openNPZInputs(r, inputs, path, o) }
	if len(inputs) <= 1 || r.Input != "" || r.Array != "" {
		in, err := r.chooseInput(inputs, nil)
		if err != nil {
			return nil, err
		}
		open = func(path string, o Options) (Reader, error) { return openArray(r, in, path, o) }
	}
	path := r.resolve(r.File)
	if r.isPattern() {
		return openNPZFiles(r, open, path, o)
	}
	return open(path, o)
}

// openArray opens the array of one archive.
func openArray(r *Recipe, in tensor.Spec, path string, o Options) (Reader, error) {
	arc, err := openArchive(path)
	if err != nil {
		return nil, r.fail("file", "%w", err)
	}
	defer arc.Close()
	array, err := arc.array(r.Array)
	if err != nil {
		return nil, r.fail("array", "%w", err)
	}
	n := &npzReader{recipe: r, in: in, array: array}
	if err := n.prepare(arc, o); err != nil {
		return nil, errors.Join(err, array.Close())
	}
	return n, nil
}

func (n *npzReader) prepare(arc *archive, o Options) (err error) {
	r, shape := n.recipe, n.array.shape
	if len(shape) == 0 || n.array.typ == tensor.Bool {
		return r.fail("array", "of type %s and shape %s holds no samples; it needs numbers, with the samples along its first dimension",
			n.array.typ, tensor.FormatShape(shape))
	}
	if whole, err := tensor.Count(shape); err == nil && r.oneSample(shape, whole) {
		shape = []int64{1, whole}
	}
	n.count = limited(shape[0], o)
	if n.size, err = tensor.Count(shape[1:]); err != nil {
		return r.fail("array", "%w", err)
	}
	channels := int64(1)
	natural := append([]int64{1}, shape[1:]...)
	n.images = n.array.typ == tensor.Uint8 && (len(shape) == 3 || len(shape) == 4 && shape[3] <= 4)
	if n.images {
		if len(shape) == 4 {
			channels = shape[3]
		}
		n.pixels = shape[1] * shape[2]
		natural = r.imageShape(shape[1], shape[2], channels)
	} else if r.Pixel.Layout != "" {
		return r.fail("pixel.layout", "is for images: an array of uint8 shaped [N,H,W,C]; this one is %s%s", n.array.typ, tensor.FormatShape(shape))
	}
	if n.scale, err = r.newScaler(channels); err != nil {
		return err
	}
	n.table = n.scale.table()
	if n.shape, err = r.sampleShape(n.size, natural); err != nil {
		return err
	}
	if err := r.checkFit("array", n.in, n.shape); err != nil {
		if hint := r.reshape(n.in, shape); len(r.Shape) == 0 && hint != unfit {
			return r.fail("array", "%s has its samples along the first dimension, and the model's input is %s; if all of it is one sample, %s",
				tensor.FormatShape(shape), n.in, hint)
		}
		return err
	}
	n.labels, err = r.readLabels(arc, shape[0])
	return err
}

// readLabels reads the array of labels, if the recipe names one.
func (r *Recipe) readLabels(arc *archive, samples int64) ([]int, error) {
	if r.Labels == "" {
		return nil, nil
	}
	array, err := arc.array(r.Labels)
	if err != nil {
		return nil, r.fail("labels", "%w", err)
	}
	defer array.Close()
	labels, err := array.ints()
	if err != nil {
		return nil, r.fail("labels", "array %s %w", r.Labels, err)
	}
	if int64(len(labels)) != samples {
		return nil, r.fail("labels", "array %s holds %d labels for %d samples; it needs the number of its class for each", r.Labels, len(labels), samples)
	}
	if i := slices.IndexFunc(labels, func(l int) bool { return l < 0 }); i >= 0 {
		return nil, r.fail("labels", "array %s has label %d for sample %d; classes count from 0, so leave out samples without one, or `labels` where none is needed",
			r.Labels, labels[i], i)
	}
	return labels, nil
}

// oneSample tells whether the recipe's shape makes one sample of a whole array that has no dimension for samples.
func (r *Recipe) oneSample(shape []int64, whole int64) bool {
	if len(r.Shape) == 0 {
		return false
	}
	size, err := tensor.Count(r.Shape[1:])
	return err == nil && size == whole && shape[0] != 1
}

func (n *npzReader) Len() int     { return n.count }
func (n *npzReader) Random() bool { return false }
func (n *npzReader) Close() error { return n.array.Close() }

func (n *npzReader) Sample(i int) (*Sample, error) {
	raw, err := n.array.read(int64(i)*n.size, int64(i+1)*n.size)
	if err != nil {
		return nil, n.recipe.fail("file", "sample %d of %s: %w", i, n.recipe.File, err)
	}
	var values []float32
	_, scaled := n.recipe.lines["pixel"]
	if n.images {
		values = n.recipe.layOut(raw.Data, n.pixels, n.table)
	} else {
		stored := make([]float64, n.size)
		if err := raw.Floats(stored, 0, n.size); err != nil {
			return nil, n.recipe.fail("array", "%w", err)
		}
		if n.in.Type.Integer() && !scaled {
			t, err := whole(stored, n.in.Type, n.shape, func(v float64) error {
				return n.recipe.fail("array", "holds %.20g, which the model's input %s cannot take", v, n.in)
			})
			if err != nil {
				return nil, err
			}
			return n.sample(i, t), nil
		}
		values = make([]float32, n.size)
		for j, v := range stored {
			values[j] = n.scale.apply(v, 0)
		}
	}
	t, err := n.recipe.encode(values, n.in.Type, n.shape)
	if err != nil {
		return nil, err
	}
	return n.sample(i, t), nil
}

func (n *npzReader) sample(i int, t *tensor.Tensor) *Sample {
	return &Sample{Inputs: map[string]*tensor.Tensor{n.in.Name: t}, Label: labelOf(n.labels, i)}
}

// imageShape is the shape of one image in the recipe's layout.
func (r *Recipe) imageShape(height, width, channels int64) []int64 {
	if r.Pixel.Layout == "nhwc" {
		return []int64{1, height, width, channels}
	}
	return []int64{1, channels, height, width}
}

// layOut scales interleaved bytes and puts them in the recipe's layout.
func (r *Recipe) layOut(raw []byte, pixels int64, table [][256]float32) []float32 {
	channels := len(table)
	values := make([]float32, len(raw))
	for p := range int(pixels) {
		for c := range channels {
			to := p*channels + c
			if r.Pixel.Layout != "nhwc" {
				to = c*int(pixels) + p
			}
			values[to] = table[c][raw[p*channels+c]]
		}
	}
	return values
}
