package cosetq

import (
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// size is what a quantized model takes.
type size struct {
	bytes   int64 // of its files, without the recipe
	codes   int64 // of the codes, with all that belongs to them
	weights int64 // the numbers coded
}

// bitsPerWeight is 8·codes/weights.
func (s size) bitsPerWeight() float64 { return 8 * float64(s.codes) / float64(s.weights) }

// placeholder is a stand-in for the code of a weight, of the size that it will have at most.
func (o *QuantizeOptions) placeholder(w numbered, codec *lattice.Codec) *codedWeight {
	n, k := w.Dims()
	var rotation *quant.Rotation
	if o.Rotate != RotateNone && !w.Gathered() {
		rotation = quant.NewRotation(k, o.Seed)
	}
	return &codedWeight{matrix: quant.Placeholder(codec, n, k, rotation)}
}

// sizeWith computes what the model takes with these codes, by the number of the weight: to the byte, but for the signs of weights
// that turn out to need no rotation. codec is that of the recipe, nil where a target chooses.
func (o *QuantizeOptions) sizeWith(input, output string, codec *lattice.Codec, stand map[int]*codedWeight) (size, error) {
	m, err := OpenModel(input)
	if err != nil {
		return size{}, err
	}
	defer m.Close()
	done, err := applyTo(m, o.Sites, stand)
	if err != nil {
		return size{}, err
	}
	s := size{codes: done.Bytes, weights: done.Weights}
	if err := o.noteRecipe(m, codec); err != nil {
		return size{}, err
	}
	s.bytes, err = m.SavedBytes(output, saveOptions())
	return s, err
}

// plan fills the report of a dry run: sizes follow from the shapes alone. codec is that of the recipe.
func (r *QuantizeReport) plan(o *QuantizeOptions, codec *lattice.Codec, codecs codecOf, sites []rewrite.Site, output string) error {
	r.planLayers(codecs, sites)
	stand := map[int]*codedWeight{}
	for _, w := range (Shard{}).share(weightsOf(sites)) {
		stand[w.number] = o.placeholder(w, codecs[w.Weight])
	}
	if r.Bytes = r.InputBytes; len(stand) == 0 {
		return nil
	}
	s, err := o.sizeWith(r.Input, output, codec, stand)
	r.Bytes, r.BitsPerWeight = s.bytes, s.bitsPerWeight()
	return err
}

// planLayers lists the layers of a dry run.
func (r *QuantizeReport) planLayers(codecs codecOf, sites []rewrite.Site) {
	for i := range sites {
		s := &sites[i]
		layer := layerOf(s)
		if s.Status == rewrite.Candidate {
			codec := codecs[s.Weight]
			layer.Codec, layer.Bytes = codec.String(), quant.PlannedBytes(codec, s.N, s.K)
			layer.BitsPerWeight = 8 * float64(layer.Bytes) / float64(s.Weights)
			r.describeChoice(&layer, s.Weight)
		}
		r.Layers = append(r.Layers, layer)
	}
	_, r.Coverage = rewrite.Coverage(sites)
	r.Codec = codecs.names()
}
