package cosetq

import (
	"context"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// sampledRows is the number of rows of a weight that tell how much more one codec loses than another.
const sampledRows = 128

// measure fills in the options: each layer is quantized alone with one codec, and what that costs the outputs is measured.
// What other codecs cost goes by the squared error that they leave in the same weight.
func (a *allocator) measure(ctx context.Context) error {
	jd, err := a.o.newJudge(a.m.Path(), a.weights) // first, so that what is missing is known before the work
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
	a.task, a.samples, a.trial = jd.task, jd.samples, jd.trial
	if jd.reader.Random() {
		a.r.Notes = append(a.r.Notes, "the data was made up; what layers cost was measured on inputs that mean nothing")
	}
	return a.measureLayers(ctx, jd, coded)
}

// measureLayers measures several layers at once, each in a session of its own.
func (a *allocator) measureLayers(ctx context.Context, jd *judge, coded map[*rewrite.Weight]*codedWeight) error {
	step := a.o.Progress.stage("measuring layers", int64(len(a.weights)))
	a.options = make([][]option, len(a.weights))
	free := make(chan *judge, jd.together)
	defer func() {
		for range jd.together {
			if one := <-free; one != jd {
				_ = one.reader.Close()
			}
		}
	}()
	free <- jd
	for range jd.together - 1 {
		other, err := jd.again(a.o)
		if err != nil {
			jd.together = len(free)
			return err
		}
		free <- other
	}
	var lock sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jd.together)
	for i, w := range a.weights {
		c := coded[w.Weight]
		if c.matrix == nil {
			step(1)
			continue
		}
		group.Go(caught(func() error {
			one := <-free
			defer func() { free <- one }()
			loss, err := one.loss(ctx, a.o, map[int]*codedWeight{i: c})
			if err != nil {
				return err
			}
			a.options[i], err = a.optionsOf(ctx, w, c, loss)
			lock.Lock()
			w.Release()
			lock.Unlock()
			step(1)
			return err
		}))
	}
	return group.Wait()
}

// optionsOf lists the ways to code a weight that costs the outputs a known loss with the code c.
func (a *allocator) optionsOf(ctx context.Context, w numbered, c *codedWeight, loss float64) ([]option, error) {
	codecs := a.candidates
	if f := a.fixed[w.Weight]; f != nil {
		codecs = []*lattice.Codec{f}
	}
	squares := func(codec *lattice.Codec) (float64, error) {
		options := coding(codec)
		options.Rotation, options.Threads = c.matrix.Rotation, 1
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
