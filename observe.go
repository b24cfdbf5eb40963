package cosetq

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// calibration is a float model that is ready to be run with observers on the inputs of its weights.
type calibration struct {
	calibrationOptions
	model        string      // path
	file         *onnx.Model // open as long as its tensors are read
	fingerprint  string
	inputs       []tensor.Spec
	corrected    map[string]bool // tags of activations whose mean biases make up for
	products     *ort.Products
	observations []rewrite.Observation
	observed     *onnx.Model  // with the observers
	load         grad.Loader  // with the native library
	session      grad.Session // of observed; nil as long as there is a gradient
	gathered     gathered
	importance   *importance  // nil: no gradient
	unweighted   string       // why, for people
	free         func() int64 // see freeMemory
	widening
}

// calibrationOptions say what is observed, and where.
type calibrationOptions struct {
	sites   rewrite.Options
	shard   Shard
	threads int
	device  string // CUDA, or the processor
}

// observing has room for the one calibration that is at work: the native library keeps a single set of sums for the whole process.
var observing = make(chan struct{}, 1)

// newCalibration loads the model at path with an observer on the input of every candidate. It waits for the calibrations before it
// in this process to be released, or for ctx to end. No file is written: ONNX Runtime
// gets the changed graph from memory, and the weights from where they are.
func newCalibration(ctx context.Context, path string, o calibrationOptions) (*calibration, error) {
	library, err := NativeLibrary()
	if err != nil {
		return nil, fmt.Errorf("calibration runs in the native library: %w", err)
	}
	m, err := OpenModel(path)
	if err != nil {
		return nil, err
	}
	c := &calibration{calibrationOptions: o, model: path, file: m}
	c.free = c.freeMemory
	select {
	case observing <- struct{}{}:
	case <-ctx.Done():
		c.close()
		return nil, ctx.Err()
	}
	if err := c.open(m, library); err != nil {
		c.close()
		c.release()
		return nil, err
	}
	return c, nil
}

// release forgets what was gathered, which cannot be read any more, and lets the next calibration begin.
func (c *calibration) release() {
	c.gathered.reset()
	<-observing
}

func (c *calibration) open(m *onnx.Model, library string) error {
	err := checkModel(m)
	if err != nil {
		return err
	}
	if c.inputs, _, err = ort.Signature(m); err != nil {
		return err
	}
	if c.fingerprint, err = fingerprint(m); err != nil {
		return err
	}
	if err := c.place(m, true); err != nil {
		return err
	}
	return c.prepare(m, library)
}

// prepare gets everything ready to load models with observers.
func (c *calibration) prepare(m *onnx.Model, library string) error {
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return err
	}
	o := ort.SessionOptions{OpsLibrary: library, Config: withoutSpinning()}
	libraries := []string{library}
	if c.device == CUDA {
		if o.Provider, err = GPULibrary(); err != nil {
			return err
		}
		libraries = append(libraries, o.Provider)
	}
	if c.gathered, err = openGathered(libraries...); err != nil {
		return err
	}
	if c.products, err = ort.OpenProducts(library); err != nil {
		return err
	}
	if c.threads == 0 {
		c.threads = runtime.GOMAXPROCS(0)
	}
	if c.wide { // Casts of large weights as well are done while loading
		o.Config["optimization.constant_folding_max_output_size_in_bytes"] = "0"
	}
	o.Threads = c.threads - c.lanes() + 1
	folder, err := filepath.Abs(filepath.Dir(c.model))
	if err != nil {
		return err
	}
	c.load = loaderOf(rt, folder, o)
	c.take(m)
	return nil
}

// take makes m, with observers in it, the model that is run, and its importance's the one that is differentiated.
func (c *calibration) take(m *onnx.Model) {
	m.ReferToFile(pageSize)
	c.importance.model.ReferToFile(pageSize)
	c.observed, c.importance.load, c.importance.lanes = m, c.load, c.lanes()
}

func (c *calibration) close() {
	c.importance.close()
	c.file.Close()
	if c.session != nil {
		_ = c.session.Close()
		c.session = nil
	}
}

// gather runs the model over data and returns what was learned, which stays readable when the calibration is closed, until it is released. The folder
// takes what was learned of half of the data for as long as the other half is compared with it.
func (c *calibration) gather(ctx context.Context, data string, o calib.Options, folder string, progress Progress) (*calib.Statistics, error) {
	reader, err := openSamples(data, c.inputs, o)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var half *calib.StatisticsFile
	samples, err := c.run(ctx, reader, progress, func(samples int) error {
		s, err := c.statistics(dataUsed(data, reader, samples))
		if err == nil {
			half, err = s.Spill(folder)
		}
		return err
	})
	if half != nil {
		defer half.Close()
	}
	if err != nil {
		return nil, err
	}
	s, err := c.statistics(dataUsed(data, reader, samples))
	if err == nil && half != nil {
		err = c.damp(ctx, s, &half.Statistics)
	}
	return s, err
}

// run feeds all samples, every other one first, and returns the number of them. Halfway it calls half with the number so far, if
// there are enough to compare halves. Where the model asks for batches of a fixed size, samples that do not fill the last one are
// left out, unless it is the only one.
func (c *calibration) run(ctx context.Context, reader calib.Reader, progress Progress, half func(samples int) error) (int, error) {
	reader = everyOther{reader}
	first, err := reader.Sample(0)
	if err != nil {
		return 0, err
	}
	size, fixed := calib.BatchSize(c.inputs, first, 1) // gradients are compared within one sample
	step := progress.stage("calibrating", int64(reader.Len()))
	lanes, err := c.newLanes(ctx)
	if err != nil {
		return 0, err
	}
	defer lanes.close()
	done, halved := 0, reader.Len() < leastToHalve
	begin := func(b *calib.Batch) {
		if inputs, err := c.widened(b.Inputs); err == nil { // or its turn will tell
			c.importance.begin(b.First/size, inputs)
		}
	}
	room := func() bool { return c.importance.room(c.threads) }
	for b, err := range ahead(calib.Batches(reader, size, fixed), begin, room) {
		if err != nil {
			return done, err
		}
		if fixed && len(b.Samples) < size && b.First > 0 {
			break // what fills it up would count twice
		}
		if !halved && 2*done >= reader.Len() {
			halved = true
			if err := errors.Join(lanes.wait(), half(done)); err != nil {
				return done, err
			}
		}
		if err := c.observe(ctx, lanes, b, b.First/size, (reader.Len()+size-1)/size, step); err != nil {
			return done, err
		}
		done += len(b.Samples)
	}
	return done, lanes.settle()
}

// observe runs batch n of so many, or leaves it to a lane. Where the gradient of the first one fails, the batches are observed
// without.
func (c *calibration) observe(ctx context.Context, lanes *lanes, b *calib.Batch, n, batches int, step func(int)) error {
	added := func() { step(len(b.Samples)) }
	inputs, err := c.widened(b.Inputs)
	if err != nil {
		return err
	}
	if c.importance != nil {
		session, fed, err := c.importance.prepare(ctx, c.observations, n, batches, inputs, lanes.settle)
		run := func() error {
			_, err := session.Run(ctx, fed)
			return err
		}
		switch {
		case err == nil && n > 0:
			return lanes.run(run, added)
		case err == nil:
			err = run()
		}
		if err == nil {
			added()
		}
		if err == nil || n > 0 || ctx.Err() != nil {
			return err
		}
		c.importance.close()
		c.importance, c.unweighted = nil, err.Error()
		c.gathered.reset() // what nodes saw before the failure they will see again
	}
	if c.session == nil {
		if err := c.fits(); err != nil {
			if err := c.narrow(err); err != nil {
				return err
			}
			return c.observe(ctx, lanes, b, n, batches, step)
		}
		if c.session, err = c.load(c.observed, false); errors.Is(err, ort.ErrModel) && c.wide {
			if err := c.narrow(fmt.Errorf("ONNX Runtime does not load it in float32: %w", err)); err != nil {
				return err
			}
			return c.observe(ctx, lanes, b, n, batches, step)
		} else if errors.Is(err, ort.ErrModel) {
			return fail(BadModel, fmt.Errorf("%s: %w", c.model, err), "`cosetq inspect %s` shows what is in it", c.model)
		} else if err != nil {
			return err
		}
	}
	return lanes.run(func() error {
		_, err := c.session.Run(ctx, inputs)
		return err
	}, added)
}

// freeMemory is how many bytes are free where the model runs, 0 where that is not known.
func (c *calibration) freeMemory() int64 {
	if c.device != CUDA {
		return freeMemory()
	}
	path, err := GPULibrary()
	if err != nil {
		return 0
	}
	p, err := ort.OpenProvider(path)
	if err != nil {
		return 0
	}
	return p.FreeMemory()
}

// notes says what a user should know of how it went.
func (c *calibration) notes() (notes []string) {
	if c.narrowed != "" {
		notes = append(notes, "calibrated in the 16 bits that the model computes in, because "+c.narrowed)
	}
	if c.importance != nil && c.importance.again {
		notes = append(notes, "memory had no room for all activations of a sample: they were computed again block by block, which takes longer")
	}
	if c.unweighted != "" {
		notes = append(notes, "all rows of an activation weigh alike, because the gradient of the outputs is not known: "+c.unweighted)
	}
	return notes
}

// statistics returns what was gathered, read from the native library as it is asked for.
func (c *calibration) statistics(data calib.DataUsed) (*calib.Statistics, error) {
	s := &calib.Statistics{Model: filepath.Base(c.model), Fingerprint: c.fingerprint, Program: Version(), Shard: c.shard.String(), Data: []calib.DataUsed{data}}
	var gradients []rewrite.Observation
	if c.importance != nil {
		gradients, s.Draws = c.importance.gradients, c.importance.draws
	}
	reached, err := c.gathered.holders()
	if err != nil {
		return nil, err
	}
	entryOf := func(o *rewrite.Observation) (*calib.Observation, error) {
		entry := &calib.Observation{Tag: o.Tag, Activation: o.Activation, Weights: o.Weights, Columns: o.Columns, Full: o.Full}
		moments := gatheredMoments{from: reached[o.Tag], tag: o.Tag}
		if moments.from != nil {
			about, err := moments.from.get(o.Tag)
			if err != nil {
				return nil, err
			}
			if about.Columns != o.Columns {
				return nil, fail(BadModel, fmt.Errorf("activation %q has %d columns, its weight %d", o.Activation, about.Columns, o.Columns), "")
			}
			entry.Rows, entry.BadRows, entry.Min, entry.Max = about.Rows, about.BadRows, about.Min, about.Max
			if about.Rows > 0 {
				entry.Weight = about.Weight / float64(about.Rows)
			}
			moments.rows = about.Rows
		}
		entry.Moments = moments
		return entry, nil
	}
	for i := range c.observations {
		entry, err := entryOf(&c.observations[i])
		if err != nil {
			return nil, err
		}
		s.Observations = append(s.Observations, entry)
	}
	for i := range gradients {
		if reached[gradients[i].Tag] == nil {
			continue // of another shard
		}
		entry, err := entryOf(&gradients[i])
		if err != nil {
			return nil, err
		}
		s.Gradients = append(s.Gradients, entry)
	}
	s.Sort()
	return s, nil
}

// dataUsed identifies the data of a run: random:N or a recipe.
func dataUsed(data string, reader calib.Reader, samples int) calib.DataUsed {
	used := calib.DataUsed{Recipe: data, Kind: "random", Samples: samples, Random: reader.Random()}
	if strings.HasPrefix(data, "random:") {
		return used
	}
	used.Recipe = filepath.Base(data)
	used.Kind = ""
	if r, err := calib.ReadRecipe(data); err == nil { // it was read before; the kind is for people
		used.Kind = r.Kind
	}
	return used
}
