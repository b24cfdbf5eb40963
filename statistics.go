package cosetq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// chooseMethod fills in the default method and refuses combinations that make no sense.
func (o *QuantizeOptions) chooseMethod() error {
	given := o.Data != "" || o.Statistics != ""
	switch o.Method {
	case "":
		o.Method = RTN
		if given {
			o.Method = LDLQ
		}
	case LDLQ:
		if !given {
			return usage(errors.New("--method ldlq needs data"), "give --data RECIPE, or --calib with a file that `cosetq calibrate` wrote")
		}
	case RTN:
	default:
		return oneOf("method", o.Method, RTN, LDLQ)
	}
	switch o.Rotate {
	case "":
		o.Rotate = RotateNone
		if o.Method == LDLQ {
			o.Rotate = RotateAuto
		}
	case RotateAuto, RotateNone, RotateHadamard:
	default:
		return oneOf("rotate", o.Rotate, RotateAuto, RotateNone, RotateHadamard)
	}
	switch {
	case o.Data != "" && o.Statistics != "" && !o.allocates():
		return usage(errors.New("--data and --calib are both given"), "leave one of them out")
	case o.Samples < 0:
		return usage(fmt.Errorf("--samples %d is negative", o.Samples), "0 takes all samples")
	}
	return nil
}

// hessians knows what statistics say of the inputs of each weight. A nil one knows nothing.
type hessians struct {
	statistics *calib.Statistics
	inputs     map[*rewrite.Weight][]*calib.Observation // those there are; a weight used in several places may have several
	unbiased   map[*rewrite.Weight]bool                 // those with a site that has no bias to correct
	tags       map[*rewrite.Weight]string               // of the gradients at their outputs
	close      func() error
}

// openHessians reads the statistics file, or gathers statistics from data, for the sites of m. It returns nil when the
// method needs none.
func (o *QuantizeOptions) openHessians(ctx context.Context, r *QuantizeReport, m *onnx.Model, sites []rewrite.Site, j *journal.Journal) (*hessians, error) {
	if o.Method != LDLQ {
		return nil, nil
	}
	h := &hessians{inputs: map[*rewrite.Weight][]*calib.Observation{}, unbiased: map[*rewrite.Weight]bool{}, tags: rewrite.GradientTags(sites), close: func() error { return nil }}
	var err error
	path := o.Statistics
	if path == "" {
		path = filepath.Join(j.Dir(), statisticsInJournal)
		if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
			err = o.gather(ctx, m.Path(), path)
		}
		if err == nil {
			err = r.noteGathering(path)
		}
	}
	if err == nil {
		err = h.open(path, m)
	}
	if err != nil {
		return nil, err
	}
	if h.statistics.Random() {
		r.Notes = append(r.Notes, "the calibration data was made up; weights are rounded for inputs that mean nothing")
	}
	for i := range sites {
		if s := &sites[i]; s.Weight != nil && !s.HasBias() {
			h.unbiased[s.Weight] = true
		}
	}
	points := rewrite.Observations(sites)
	for _, point := range points {
		found := h.statistics.Find(point.Tag)
		if found == nil || found.Rows == 0 || found.Columns != point.Columns {
			continue
		}
		seen := map[*rewrite.Weight]bool{}
		for _, i := range point.Sites {
			if w := sites[i].Weight; !seen[w] {
				seen[w] = true
				h.inputs[w] = append(h.inputs[w], found)
			}
		}
	}
	if len(points) > 0 && len(h.inputs) == 0 {
		return nil, errors.Join(usage(errors.New("the data reached none of the weights, or with nothing but NaN and infinity"),
			"give other data, or none: quantize then rounds to nearest; `cosetq run` shows what the model makes of a sample"), h.close())
	}
	return h, nil
}

// checkStatistics makes sure, before a dry run, that the statistics file is one of m.
func (o *QuantizeOptions) checkStatistics(m *onnx.Model) error {
	if o.Statistics == "" {
		return nil
	}
	var h hessians
	if err := h.open(o.Statistics, m); err != nil {
		return err
	}
	return h.close()
}

// checkData makes sure that the model could be calibrated on the data: what it names is there, and its first sample fits.
func (o *QuantizeOptions) checkData(m *onnx.Model) error {
	if o.Data == "" || o.Method != LDLQ {
		return nil
	}
	inputs, _, err := ort.Signature(m)
	if err != nil {
		return err
	}
	reader, err := openSamples(o.Data, inputs, calib.Options{Limit: o.Samples, Seed: o.Seed})
	if err != nil {
		return err
	}
	defer reader.Close()
	_, err = reader.Sample(0)
	return err
}

// open reads a statistics file and makes sure that it is of this model.
func (h *hessians) open(path string, m *onnx.Model) error {
	file, err := OpenStatistics(path)
	if err != nil {
		return err
	}
	print, err := fingerprint(m)
	if err == nil && print != file.Fingerprint {
		err = usage(fmt.Errorf("%s: %w: it was made from %s, which differs from %s in its graph or its weights", path, calib.ErrFingerprint, file.Model, m.Path()),
			"run `cosetq calibrate %s` again", m.Path())
	}
	if err == nil && file.Shard != "" {
		err = usage(fmt.Errorf("%s is share %s of the statistics", path, file.Shard), "join all shares with `cosetq calibrate --merge`")
	}
	if err != nil {
		_ = file.Close()
		return err
	}
	h.statistics, h.close = &file.Statistics, file.Close
	return nil
}

// gather calibrates the model into a file of the journal, from which a resumed run goes on.
func (o *QuantizeOptions) gather(ctx context.Context, model, path string) error {
	c, err := newCalibration(ctx, model, calibrationOptions{o.Sites, Shard{}, o.Threads, o.Device})
	if err != nil {
		return err
	}
	defer c.release()
	defer c.close()
	s, err := c.gather(ctx, o.Data, calib.Options{Limit: o.Samples, Seed: o.Seed}, filepath.Dir(path), o.Progress)
	if err != nil {
		return err
	}
	notes, err := json.Marshal(c.notes())
	if err == nil {
		// First: where the statistics are, so are their notes.
		err = atomicfile.Write(path+notesEnding, 0o666, func(f *os.File) error {
			_, err := f.Write(notes)
			return err
		})
	}
	if err == nil {
		_, err = s.Save(path, false)
	}
	return err
}

// notesEnding is what the file with the notes of a calibration adds to the name of its statistics.
const notesEnding = ".notes"

// noteGathering takes over the notes of the calibration that made the statistics at path, in this run or in one that was stopped.
func (r *QuantizeReport) noteGathering(path string) error {
	text, err := os.ReadFile(path + notesEnding)
	var notes []string
	if err == nil {
		err = json.Unmarshal(text, &notes)
	}
	r.Notes = append(r.Notes, notes...)
	return err
}

// of returns the Hessian of the inputs of a weight, nil when there is none. The moments of several inputs are weighed by how
// many rows each had; one of which only the diagonal is known makes the whole diagonal.
func (h *hessians) of(w *rewrite.Weight) (*quant.Hessian, error) {
	if h == nil || len(h.inputs[w]) == 0 {
		return nil, nil
	}
	inputs := h.inputs[w]
	result := &quant.Hessian{K: inputs[0].Columns}
	full := true
	for _, o := range inputs {
		full = full && o.Full
		result.Samples += o.Rows
	}
	damped := true
	for _, o := range inputs {
		share := float64(o.Rows) / float64(result.Samples)
		damped = damped && o.Damping > 0
		result.Damping += share * o.Damping
		moments, target := o.Diagonal, &result.Diagonal
		if full {
			moments, target = o.Matrix, &result.Moments
		}
		if err := addScaled(target, moments, share); err != nil {
			return nil, err
		}
		if err := addScaled(&result.Mean, o.Mean, share); err != nil {
			return nil, err
		}
	}
	if !damped {
		result.Damping = 0
	}
	if full && h.corrects(w) {
		centre(result, inputs[0].Weight)
	}
	if w.Gathered() {
		spread(result)
	}
	return result, nil
}

// gradients returns the moments of the gradients at the outputs of a weight, nil when there are none.
func (h *hessians) gradients(w *rewrite.Weight) (*quant.Hessian, error) {
	if h == nil {
		return nil, nil
	}
	o := h.statistics.Gradient(h.tags[w])
	n, _ := w.Dims()
	if o == nil || o.Rows == 0 || o.Columns != n || !o.Full {
		return nil, nil
	}
	moments, err := o.Matrix()
	return &quant.Hessian{K: n, Moments: moments, Samples: h.statistics.Draws, Damping: o.Damping}, err
}

// spread mixes the moments of a weight whose rows are an embedding as well with a multiple of the identity, of the same trace: what
// is taken out of the table as it is suffers from an error in every column alike.
func spread(h *quant.Hessian) {
	var trace float64
	for i := range h.K {
		if h.Moments != nil {
			trace += h.Moments[i*h.K+i]
		} else {
			trace += h.Diagonal[i]
		}
	}
	for i := range h.Moments {
		h.Moments[i] /= 2
	}
	for i := range h.Diagonal {
		h.Diagonal[i] /= 2
	}
	for i := range h.K {
		if h.Moments != nil {
			h.Moments[i*h.K+i] += trace / float64(2*h.K)
		} else {
			h.Diagonal[i] += trace / float64(2*h.K)
		}
	}
}

// corrects reports whether the bias of every layer with this weight takes up the mean of its error. Where a weight has
// several inputs there is no one correction.
func (h *hessians) corrects(w *rewrite.Weight) bool { return len(h.inputs[w]) == 1 && !h.unbiased[w] }

// centred is the share of the mean that the moments of a layer with a corrected bias leave out: the rest is for the doubt
// about the mean, which comes from a sample.
const centred = 0.99

// centre takes from E[w x xᵀ] what the mean of x puts into it, since the bias will make up for the mean of the error.
func centre(h *quant.Hessian, weight float64) {
	k := h.K
	for i := range k {
		for j := range k {
			h.Moments[i*k+j] -= centred * weight * h.Mean[i] * h.Mean[j]
		}
	}
	for i := range k { // rounding must not leave more between two columns than they have themselves
		for j := range i {
			limit := math.Sqrt(h.Moments[i*k+i] * h.Moments[j*k+j])
			v := max(-limit, min(limit, h.Moments[i*k+j]))
			h.Moments[i*k+j], h.Moments[j*k+i] = v, v
		}
	}
}

// correction is what to add to the bias of a layer, or nil. Where a weight has several inputs there is no one correction.
func (h *hessians) correction(w *rewrite.Weight, res *quant.Result) []float32 {
	if h == nil || !h.corrects(w) || res.Feedback == nil || res.Feedback.Bias == nil {
		return nil
	}
	c := make([]float32, len(res.Feedback.Bias))
	for i, v := range res.Feedback.Bias {
		c[i] = float32(v)
	}
	return c
}

// describe reports how a weight was rounded.
func (h *hessians) describe(layer *codedWeight, w *rewrite.Weight, res *quant.Result) {
	layer.Method = RTN
	switch {
	case h == nil:
	case res.Feedback != nil:
		layer.Method = LDLQ
		layer.Loss, layer.NearestLoss = &res.Feedback.Loss, &res.Feedback.Nearest
		if res.Feedback.Alone != nil {
			layer.Fallback = res.Feedback.Alone.Error()
		}
	case res.Fallback != nil:
		layer.Fallback = res.Fallback.Error()
	case len(h.inputs[w]) == 0 && w.Gathered(): // rows are taken as they are: nearest is best
	case len(h.inputs[w]) == 0:
		layer.Fallback = "no statistics: the data never reached it with finite numbers, or it was left out of the calibration"
	}
}

// addScaled adds share times what read gives to sum.
func addScaled(sum *[]float64, read func() ([]float64, error), share float64) error {
	v, err := read()
	if err != nil {
		return err
	}
	if *sum == nil {
		*sum = make([]float64, len(v))
	}
	for i, x := range v {
		(*sum)[i] += share * x
	}
	return nil
}
