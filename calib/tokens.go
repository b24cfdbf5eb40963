package calib

import (
	"errors"
	"math"
	"path/filepath"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// tokenReader cuts windows of seq tokens out of one long row of token ids. Window w of n starts at
// w × max(seq, ⌊(length − seq − 1) / n⌋), so that none overlap; every token's target is the one after it, so a window reads
// seq + 1 tokens. Without a limit, n is the number of windows that fit, one right after the other.
//
// For kind bytes the ids are the bytes of the file. For kind tokens they are the elements of a one-dimensional integer
// array in a .npy or .npz file, or of any other file read as little-endian integers of the recipe's dtype.
type tokenReader struct {
	recipe *Recipe
	ids    *npyArray // a raw file is an array without a header
	seq    int64
	stride int64
	count  int
	in     tensor.Spec
	extra  []tensor.Spec // inputs beside the ids, see fillExtra
}

func openTokens(r *Recipe, inputs []tensor.Spec, o Options) (Reader, error) {
	in, err := r.chooseInput(inputs, func(in tensor.Spec) bool { return isExtra(in, inputs) })
	if err != nil {
		return nil, err
	}
	t := &tokenReader{recipe: r, in: in}
	for _, s := range inputs {
		if s.Name != in.Name {
			t.extra = append(t.extra, s)
		}
	}
	if t.ids, err = r.openIDs(); err != nil {
		return nil, err
	}
	if err := t.prepare(o); err != nil {
		return nil, errors.Join(err, t.ids.Close())
	}
	return t, nil
}

func (r *Recipe) openIDs() (*npyArray, error) {
	path := r.resolve(r.File)
	ext := strings.ToLower(filepath.Ext(path))
	if r.Array != "" && ext != ".npz" {
		return nil, r.fail("array", "is for .npz files, and %s is none", r.File)
	}
	if r.DType != "" && (ext == ".npy" || ext == ".npz") {
		return nil, r.fail("dtype", "is for raw files; %s says itself what it holds", r.File)
	}
	if r.Kind == "tokens" {
		switch ext {
		case ".npy":
			a, err := openNPYFile(path)
			if err != nil {
				return nil, r.fail("file", "%w", err)
			}
			return a, nil
		case ".npz":
			arc, err := openArchive(path)
			if err != nil {
				return nil, r.fail("file", "%w", err)
			}
			defer arc.Close()
			a, err := arc.array(r.Array)
			if err != nil {
				return nil, r.fail("array", "%w", err)
			}
			return a, nil
		}
		if r.DType == "" {
			return nil, r.fail("dtype", "is missing; %s is neither .npy nor .npz, so say what integers it holds: uint16, int32, ...", r.File)
		}
	}
	data, size, err := openFile(path)
	if err != nil {
		return nil, r.fail("file", "%w", err)
	}
	typ := tensor.Uint8
	for t := tensor.Uint8; t <= tensor.Uint64; t++ {
		if t.String() == r.DType {
			typ = t
		}
	}
	if size%int64(typ.Size()) != 0 {
		return nil, errors.Join(r.fail("dtype", "%s has %d bytes, which is no whole number of %s", r.File, size, typ), data.Close())
	}
	return &npyArray{data: data, typ: typ, shape: []int64{size / int64(typ.Size())}}, nil
}

func (t *tokenReader) prepare(o Options) error {
	r := t.recipe
	if len(t.ids.shape) != 1 || !t.ids.typ.Integer() {
		return r.fail("file", "%s holds %s%s; token ids are one row of integers, so save ids.reshape(-1)",
			r.File, t.ids.typ, tensor.FormatShape(t.ids.shape))
	}
	if !t.in.Type.Integer() {
		return r.fail("input", "%s does not take token ids; take a model with an integer input", t.in)
	}
	t.seq = r.Seq
	if n := len(t.in.Shape); t.seq == 0 && t.in.Ranked && n > 0 && t.in.Shape[n-1].Fixed() {
		t.seq = t.in.Shape[n-1].Size
	}
	if t.seq < 1 {
		return r.fail("seq", "is missing; say how many tokens a window has, since the model does not")
	}
	if err := r.checkFit("seq", t.in, []int64{1, t.seq}); err != nil {
		return err
	}
	length := t.ids.shape[0]
	if length <= t.seq {
		return r.fail("file", "%s holds %d tokens, fewer than one window of %d and the token after it", r.File, length, t.seq)
	}
	t.count = limited((length-1)/t.seq, o)
	t.stride = max(t.seq, (length-t.seq-1)/int64(t.count))
	return nil
}

func (t *tokenReader) Len() int     { return t.count }
func (t *tokenReader) Random() bool { return false }
func (t *tokenReader) Close() error { return t.ids.Close() }

func (t *tokenReader) Sample(i int) (*Sample, error) {
	from := int64(i) * t.stride
	raw, err := t.ids.read(from, from+t.seq+1)
	if err != nil {
		return nil, t.recipe.fail("file", "window %d of %s: %w", i, t.recipe.File, err)
	}
	ids := make([]float64, t.seq+1) // exact: ids are far below 2^53
	if err := raw.Floats(ids, 0, t.seq+1); err != nil {
		return nil, t.recipe.fail("file", "%w", err)
	}
	s := &Sample{Inputs: map[string]*tensor.Tensor{}, Label: -1, Targets: make([]int, t.seq)}
	for j, v := range ids {
		if v < 0 || v > math.MaxInt32 {
			return nil, t.recipe.fail("file", "%s: token %d is %.0f, which is no token id; is dtype right?", t.recipe.File, from+int64(j), v)
		}
		if j > 0 {
			s.Targets[j-1] = int(v)
		}
	}
	shape := []int64{1, t.seq}
	if s.Inputs[t.in.Name], err = integers(t.in, shape, func(j int64) int64 { return int64(ids[j]) }); err != nil {
		return nil, t.recipe.fail("input", "%w", err)
	}
	for _, e := range t.extra {
		if s.Inputs[e.Name], err = extraInput(e, shape); err != nil {
			return nil, t.recipe.fail("input", "%w", err)
		}
	}
	return s, nil
}
