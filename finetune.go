package cosetq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/internal/atomicfile"
)

// FinetuneOptions say how to train a quantized model.
type FinetuneOptions struct {
	Output    string // file to write; "" is the quantized input's name ending in .ft.onnx
	Overwrite bool   // replace the output if it exists

	Data   string // recipe of the data to train on, or random:N
	Labels bool   // learn the labels of the data, or the next tokens, instead of the float model's outputs
	Blocks bool   // train one block after the other, each against its own outputs in the float model
	Train  finetune.Options

	// Quantize says how to make the quantized model where none is given.
	Quantize QuantizeOptions

	Threads int    // of the runtime and of the training; 0 takes all cores
	Device  string // that runs the graphs: "" or cpu, or [CUDA], which rounds differently
}

// FinetuneReport is the outcome of [Finetune].
type FinetuneReport struct {
	Schema      string          `json:"schema"`
	Float       string          `json:"float"`
	Quantized   string          `json:"quantized,omitempty"`
	Loss        string          `json:"loss"`
	HeldOut     int             `json:"held_out"`
	Start       float64         `json:"held_out_loss_before"`
	Best        float64         `json:"held_out_loss_after"`
	Last        float64         `json:"held_out_loss_at_the_end"`
	BestStep    int             `json:"best_step"`
	Steps       int             `json:"steps"`
	Rate        float64         `json:"rate"`
	Retreats    int             `json:"retreats,omitempty"`
	Weights     int             `json:"weights"`
	Parameters  int             `json:"parameters"`
	Memory      finetune.Memory `json:"memory"`
	Interrupted bool            `json:"interrupted,omitempty"`
	Checkpoint  string          `json:"checkpoint,omitempty"`
	Notes       []string        `json:"notes,omitempty"`
	Files       []File          `json:"files"`
	Seconds     float64         `json:"seconds"`
	CPUSeconds  float64         `json:"cpu_seconds"`
	PeakRSS     int64           `json:"peak_rss_bytes"`
}

// defaultBatch is how many samples a pass takes: four windows of tokens fill a machine, of images it takes more.
const (
	defaultBatchTokens = 4
	defaultBatch       = 64
)

// Finetune trains the quantized weights of a model to do what its float form does, or what labels ask for, and writes the
// result. With quantized "", the float model is quantized first. When ctx ends the training early, the best state so far is
// written all the same, and the report says so.
func Finetune(ctx context.Context, float, quantized string, o FinetuneOptions) (*FinetuneReport, error) {
	start := time.Now()
	if o.Data == "" {
		return nil, usage(errors.New("--data is missing"), "give a data recipe")
	}
	if (o.Train.Steps > 0) == (o.Train.MaxTime > 0) {
		return nil, usage(errors.New("give either --steps or --max-time"), "--max-time 30m trains as long, --steps 1000 gives the same result on every run")
	}
	if o.Blocks && o.Train.Resume {
		return nil, usage(errors.New("--blocks and --resume are both given"), "no state of a training by blocks is kept: start it anew, or go on from its output without --blocks")
	}
	if err := checkThreads(o.Threads); err != nil {
		return nil, err
	}
	if err := checkDevice(o.Device); err != nil {
		return nil, err
	}
	input := quantized
	if input == "" {
		input = float
	}
	output, err := o.places(input, float)
	if err != nil {
		return nil, err
	}
	release, err := claim(output, false)
	if err != nil {
		return nil, err
	}
	defer release()
	if quantized == "" {
		temporary, remove, err := quantizeFirst(ctx, float, output, o)
		if err != nil {
			return nil, err
		}
		defer remove()
		quantized = temporary
	}
	t, err := newTraining(float, quantized, o)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if o.Blocks {
		t.options.Train.Checkpoint = "" // see finetune.TrainBlocks
	}
	result, err := t.run(ctx)
	if err != nil {
		return nil, ofData(t.ofBatch(err), o.Data)
	}
	r := &FinetuneReport{
		Schema: "cosetq/v1/finetune", Float: float, Quantized: input, Loss: t.options.Train.Loss.String(), HeldOut: result.HeldOut,
		Start: result.Start, Best: result.Best, Last: result.Last, BestStep: result.BestStep, Steps: result.Steps, Rate: result.Rate, Retreats: result.Retreats,
		Weights: len(result.Matrices), Parameters: len(result.Parameters), Memory: result.Memory, Interrupted: result.Interrupted,
	}
	if t.reader.Random() {
		r.Notes = append(r.Notes, "the data was made up; what was learned from it means nothing")
	}
	if o.Blocks {
		r.Notes = append(r.Notes, "no block has seen what its errors do to the model's output: compare with the model you started from, by `cosetq eval --task agreement`")
	}
	if note := trainingNote(result); note != "" {
		r.Notes = append(r.Notes, note)
	}
	if r.Files, err = t.save(output, result); err != nil {
		return nil, t.keep(result, err)
	}
	if checkpoint := t.options.Train.Checkpoint; result.Interrupted {
		r.Checkpoint = checkpoint
	} else if checkpoint != "" {
		if err := finetune.RemoveCheckpoint(checkpoint); err != nil {
			return nil, err
		}
	}
	r.Seconds, r.CPUSeconds, r.PeakRSS = time.Since(start).Seconds(), cpuSeconds(), PeakRSS()
	return r, nil
}

// places returns the path of the output and completes that of the checkpoint. It fails before hours of training when one of the
// files cannot be written, or would take the place of another.
func (o *FinetuneOptions) places(input, float string) (output string, err error) {
	reads := Reads{Models: []string{input, float}, Data: []string{o.Data, o.Quantize.Data}, Files: []string{o.Quantize.Statistics}}
	if output, err = OutputPath(o.Output, reads, ".ft.onnx", true); err != nil {
		return "", err
	}
	if o.Train.Checkpoint == "" {
		o.Train.Checkpoint = output + ".training"
	}
	if err := reads.protect(finetune.CheckpointFiles(o.Train.Checkpoint)...); err != nil {
		return "", err
	}
	for _, place := range []string{o.Train.Checkpoint, output, output + dataEnding} {
		_, err := OutputPath(place, reads, "", o.Overwrite || o.Train.Resume)
		if errors.Is(err, fs.ErrExist) && place == o.Train.Checkpoint {
			err = usage(fmt.Errorf("%s is there: a training that did not end, or is still at work", place), "--resume goes on from where it was, --force starts anew")
		}
		if err != nil {
			return "", err
		}
	}
	return output, atomicfile.Check(output)
}

// keep stores what was trained when the result could not be saved, because of err, and returns the error to tell.
func (t *training) keep(r *finetune.Result, err error) error {
	if r.Keep == nil {
		return err
	}
	if keepErr := r.Keep(); keepErr != nil {
		return fmt.Errorf("%w; nor could the training be kept: %w", err, keepErr)
	}
	kind, hint := Classify(err)
	return &Error{Kind: kind, Err: err, Hint: hint + "; the training is kept in " + t.options.Train.Checkpoint + ": run the same command with --resume to write its result"}
}

// trainingNote says what went wrong in a training; "" when all went well.
func trainingNote(r *finetune.Result) string {
	diverged := ""
	if r.Retreats > 0 {
		diverged = fmt.Sprintf("the training diverged %d times, went back to its best codes each time, and ended at a rate of %.3g; ", r.Retreats, r.Rate)
	}
	switch {
	case r.BestStep == 0:
		return diverged + "no step was better on the samples held out than the start, so the codes are those of the start: try a lower --rate, or more data"
	case r.Last > r.Start:
		return diverged + fmt.Sprintf("the loss of the samples held out ended at %.5f, above the %.5f of the start; the codes are those of step %d: try a lower --rate", r.Last, r.Start, r.BestStep)
	case r.Retreats > 0:
		return diverged + "give that as --rate to begin with"
	}
	return ""
}

// quantizeFirst quantizes the float model to a temporary file beside the output, by LDLQ on the data unless another method is
// asked for.
func quantizeFirst(ctx context.Context, float, output string, o FinetuneOptions) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp(filepath.Dir(output), ".cosetq-*")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	q := o.Quantize
	q.Output, q.temporary, q.Device = filepath.Join(dir, "start.onnx"), true, cmp.Or(q.Device, o.Device)
	if q.Data == "" && q.Statistics == "" && q.Method != RTN {
		q.Data, q.Samples = o.Data, DefaultSamples
	}
	if _, err := Quantize(ctx, float, q); err != nil {
		remove()
		return "", nil, err
	}
	return q.Output, remove, nil
}
