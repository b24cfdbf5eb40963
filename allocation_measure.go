package cosetq

import (
	"context"
	"strconv"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
)

// sampledRows is the number of rows of a weight that tell how much more one codec loses than another.
const sampledRows = 128

// measure fills in the options: each layer is quantized alone with one codec, and what that costs the outputs is measured.
// What other codecs cost goes by the squared error that they leave in the same weight.
func (a *allocator) measure(ctx context.Context) error {
	jd, err := a.o.newJudge(a.m.Path()) // first, so that what is missing is known before the work
	if err != nil {
		return err
	}
	defer jd.close()
	probes := codecOf{}
	for _, w := range a.weights {
		if probes[w.Weight] = a.fixed[w.Weight]; probes[w.Weight] == nil {
			probes[w.Weight] = a.candidates[len(a.candidates)/2]
		}
	}
	coded, err := a.o.quantizeAll(ctx, a.r, "trying codecs", probes, a.weights, a.h, a.j)
	if err != nil {
		return err
	}
	a.report.Samples, a.report.Measure = jd.reader.Len(), jd.measure()
	a.task, a.samples = jd.task, jd.samples
	if jd.reader.Random() {
		a.r.Notes = append(a.r.Notes, "the data was made up; what layers cost was measured on inputs that mean nothing")
	}
	step := a.o.Progress.stage("measuring layers", int64(len(a.weights)))
	for i, w := range a.weights {
		c := coded[w.Weight]
		if c.matrix == nil {
			a.options = append(a.options, nil)
			step(1)
			continue
		}
		loss, err := jd.loss(ctx, a.o, map[int]*codedWeight{i: c})
		if err != nil {
			return err
		}
		options, err := a.optionsOf(ctx, w, c, loss)
		if err != nil {
			return err
		}
		a.options = append(a.options, options)
		w.Release()
		step(1)
	}
	return nil
}

// optionsOf lists the ways to code a weight that costs the outputs a known loss with the code c.
func (a *allocator) optionsOf(ctx context.Context, w numbered, c *codedWeight, loss float64) ([]option, error) {
	codecs := a.candidates
	if f := a.fixed[w.Weight]; f != nil {
		codecs = []*lattice.Codec{f}
	}
	squares := func(codec *lattice.Codec) (float64, error) {
		options := coding(codec)
		options.Rotation, options.Threads = c.matrix.Rotation, a.o.Threads
		res, err := quant.Quantize(ctx, quant.Sample(w, sampledRows), options)
		if err != nil {
			return 0, err
		}
		return res.SumSquaredError, nil
	}
	var options []option
	probe := 0.0
	if len(codecs) > 1 {
		var err error
		if probe, err = squares(c.matrix.Codec); err != nil {
			return nil, err
		}
	}
	for _, codec := range codecs {
		p := option{codec, quant.Choice{Bytes: a.bytes(w, codec), Loss: loss}}
		if codec.String() != c.matrix.Codec.String() && probe > 0 {
			s, err := squares(codec)
			if err != nil {
				return nil, err
			}
			p.Loss *= s / probe
		}
		p.Loss = rounded(p.Loss)
		options = append(options, p)
	}
	return options, nil
}

// rounded keeps four digits: more would be noise, which must not decide on a codec.
func rounded(x float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'e', 3, 64), 64) // what was written can be read
	return r
}
