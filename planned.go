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

// placeholders stand in for the codes of weights, of the size that those will have at most. Which weights have biases that will be
// corrected follows from the model, if the data reaches them.
type placeholders struct {
	o         *QuantizeOptions
	corrected map[*rewrite.Weight]bool
}

func (o *QuantizeOptions) placeholders(sites []rewrite.Site) placeholders {
	p := placeholders{o, map[*rewrite.Weight]bool{}}
	if o.Method != LDLQ {
		return p
	}
	for w, inputs := range inputsOf(rewrite.Observations(sites), sites) {
		p.corrected[w] = inputs == 1
	}
	for i := range sites {
		if s := &sites[i]; !s.HasBias() {
			p.corrected[s.Weight] = false
		}
	}
	return p
}

// of is the placeholder of one weight.
func (p placeholders) of(w numbered, codec *lattice.Codec) *codedWeight {
	n, k := w.Dims()
	var rotation *quant.Rotation
	if p.o.Rotate != RotateNone && !w.Gathered() {
		rotation = quant.NewRotation(k, p.o.Seed)
	}
	c := &codedWeight{matrix: quant.Placeholder(codec, n, k, rotation)}
	if p.corrected[w.Weight] {
		c.Correction = make([]float32, n)
	}
	return c
}

// sizeWith computes what the model takes with these codes, by the number of the weight: to the byte, but for weights that turn out to
// need no rotation, with which it is smaller. codec is that of the recipe, nil where a target chooses.
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
	rewrite.JoinBatches(m)
	s := size{codes: done.Bytes, weights: done.Weights}
	if err := o.noteRecipe(m, codec); err != nil {
		return size{}, err
	}
	s.bytes, err = m.SavedBytes(output, saveOptions())
	if o.Rotate == RotateAuto {
		s.bytes += rewrite.Unturned(m)
	}
	return s, err
}

// plan fills the report of a dry run: sizes follow from the shapes alone. codec is that of the recipe.
func (r *QuantizeReport) plan(o *QuantizeOptions, codec *lattice.Codec, codecs codecOf, sites []rewrite.Site, output string) error {
	r.planLayers(codecs, sites)
	stand, places := map[int]*codedWeight{}, o.placeholders(sites)
	for _, w := range (Shard{}).share(weightsOf(sites)) {
		stand[w.number] = places.of(w, codecs[w.Weight])
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
