package calib

import (
	"errors"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// npzInputs feeds a model of several inputs from one archive: each from the array of its name, one sample per entry of the first
// dimension, as it is stored. What a decoder remembers of earlier tokens need not be stored: it is nothing.
type npzInputs struct {
	recipe *Recipe
	fed    []fedArray
	past   []tensor.Spec // inputs that remember nothing
	count  int
	labels []int
}

// fedArray is an array and the input that it feeds.
type fedArray struct {
	in    tensor.Spec
	array *npyArray
	size  int64   // elements of one sample
	shape []int64 // of one sample
}

// openNPZInputs opens one archive.
func openNPZInputs(r *Recipe, inputs []tensor.Spec, path string, o Options) (Reader, error) {
	for _, key := range []string{"shape", "pixel"} {
		if _, given := r.lines[key]; given {
			return nil, r.fail(key, "is for models with one input; the arrays for several are fed as they are stored")
		}
	}
	arc, err := openArchive(path)
	if err != nil {
		return nil, r.fail("file", "%w", err)
	}
	defer arc.Close()
	n := &npzInputs{recipe: r}
	if err := n.open(arc, inputs, o); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *npzInputs) open(arc *archive, inputs []tensor.Spec, o Options) error {
	r := n.recipe
	for _, in := range inputs {
		if !slices.Contains(arc.names(), in.Name) && startsWithoutPast(in, inputs, arc.names()) {
			n.past = append(n.past, in)
			continue
		}
		if !slices.Contains(arc.names(), in.Name) {
			return r.fail("file", "%s has the arrays %s, and the model has an input %s: store an array for each input under its name",
				r.File, strings.Join(arc.names(), ", "), in)
		}
		array, err := arc.array(in.Name)
		if err != nil {
			return r.fail("file", "%w", err)
		}
		n.fed = append(n.fed, fedArray{in: in, array: array})
		f, first := &n.fed[len(n.fed)-1], n.fed[0]
		if len(array.shape) == 0 {
			return r.fail("file", "array %s is one number; it needs the samples along its first dimension", in.Name)
		}
		if array.shape[0] != first.array.shape[0] {
			return r.fail("file", "array %s holds %d samples, and array %s %d", in.Name, array.shape[0], first.in.Name, first.array.shape[0])
		}
		if err := f.prepare(r); err != nil {
			return err
		}
	}
	if len(n.fed) == 0 {
		return r.fail("file", "%s has the arrays %s, and none is for an input of the model", r.File, strings.Join(arc.names(), ", "))
	}
	samples := n.fed[0].array.shape[0]
	n.count = limited(samples, o)
	var err error
	n.labels, err = r.readLabels(arc, samples)
	return err
}

// prepare decides on the shape of a sample: a batch of one, or where the input takes that as it is, an entry of the array.
func (f *fedArray) prepare(r *Recipe) (err error) {
	entry := f.array.shape[1:]
	if f.size, err = tensor.Count(entry); err != nil {
		return r.fail("file", "array %s: %w", f.in.Name, err)
	}
	have, want := f.array.typ, f.in.Type
	whole := func(t tensor.Type) bool { return t.Integer() || t == tensor.Bool }
	if alike := have == want || whole(have) && whole(want) || have.Float() && want.Float(); !alike {
		return r.fail("file", "array %s holds %s, and the model's input is %s", f.in.Name, have, f.in)
	}
	f.shape = append([]int64{1}, entry...)
	if f.in.Ranked && len(f.in.Shape) == len(entry) && f.in.Accepts(f.in.Type, entry) {
		f.shape = slices.Clone(entry)
	}
	return r.checkFit("file", f.in, f.shape)
}

func (n *npzInputs) Len() int     { return n.count }
func (n *npzInputs) Random() bool { return false }

func (n *npzInputs) Close() error {
	var all error
	for _, f := range n.fed {
		all = errors.Join(all, f.array.Close())
	}
	return all
}

func (n *npzInputs) Sample(i int) (*Sample, error) {
	s := &Sample{Inputs: map[string]*tensor.Tensor{}, Label: labelOf(n.labels, i)}
	for _, f := range n.fed {
		t, err := f.array.read(int64(i)*f.size, int64(i+1)*f.size)
		if err != nil {
			return nil, n.recipe.fail("file", "sample %d of array %s in %s: %w", i, f.in.Name, n.recipe.File, err)
		}
		if t.Type != f.in.Type {
			stored := make([]float64, f.size)
			if err := t.Floats(stored, 0, f.size); err != nil {
				return nil, n.recipe.fail("file", "array %s: %w", f.in.Name, err)
			}
			if f.in.Type.Float() {
				t, err = n.recipe.encode(convert(stored, func(v float64) float32 { return float32(v) }), f.in.Type, f.shape)
			} else {
				t, err = whole(stored, f.in.Type, f.shape, func(v float64) error {
					return n.recipe.fail("file", "array %s holds %.20g, which the model's input %s cannot take", f.in.Name, v, f.in)
				})
			}
			if err != nil {
				return nil, err
			}
		}
		t.Shape = f.shape
		s.Inputs[f.in.Name] = t
	}
	for _, in := range n.past {
		t, err := extraInput(in, []int64{1})
		if err != nil {
			return nil, n.recipe.fail("file", "%w", err)
		}
		s.Inputs[in.Name] = t
	}
	return s, nil
}
