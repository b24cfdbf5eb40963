package finetune

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// Teacher is the float model whose outputs are the targets.
type Teacher struct {
	Output string // the output that teaches
	// Value runs the float model and returns a value of it. With cut not empty the model begins there: inputs has that value too,
	// and nothing in front of it runs.
	Value func(ctx context.Context, inputs map[string]*tensor.Tensor, cut, name string) (*tensor.Tensor, error)
	// Has reports whether the float model computes a value of that name.
	Has func(name string) bool
}

// source gives what graphs are fed: the inputs of the model and the target of the loss, for a batch of samples.
type source interface {
	batch(ctx context.Context, samples []int) (map[string]*tensor.Tensor, error)
}

// readSamples joins samples to inputs.
func readSamples(r calib.Reader, numbers []int) (inputs map[string]*tensor.Tensor, samples []*calib.Sample, err error) {
	for _, i := range numbers {
		s, err := r.Sample(i)
		if err != nil {
			return nil, nil, err
		}
		samples = append(samples, s)
	}
	inputs, err = calib.Join(samples)
	return inputs, samples, err
}

// taught is the source for whole models: targets are the outputs of a teacher, or labels.
type taught struct {
	reader  calib.Reader
	teacher *Teacher    // nil: the labels teach
	target  *grad.Value // graph input of the target
}

func (t *taught) batch(ctx context.Context, numbers []int) (map[string]*tensor.Tensor, error) {
	inputs, samples, err := readSamples(t.reader, numbers)
	if err != nil {
		return nil, err
	}
	with := func(target *tensor.Tensor) map[string]*tensor.Tensor {
		all := maps.Clone(inputs)
		all[t.target.Name] = target
		return all
	}
	if t.teacher == nil {
		y, err := oneHot(samples, t.target)
		return with(y), err
	}
	y, err := t.teacher.Value(ctx, inputs, "", t.teacher.Output)
	if err != nil {
		return nil, fmt.Errorf("finetune: the float model: %w", err)
	}
	if onnx.DataType(y.Type) != t.target.Type || !slices.Equal(y.Shape, t.target.Shape) {
		return nil, fmt.Errorf("finetune: output %q of the float model is not %v %v as that of the quantized one: are they the same model?", t.teacher.Output, t.target.Type, t.target.Shape)
	}
	return with(y), nil
}

// oneHot is the distribution that labels, or the tokens that follow, ask for.
func oneHot(samples []*calib.Sample, like *grad.Value) (*tensor.Tensor, error) {
	if like.Type != onnx.Float {
		return nil, fmt.Errorf("finetune: labels teach a model with an output of float, not of %v", like.Type)
	}
	classes := int(like.Shape[len(like.Shape)-1])
	v := make([]float32, like.Count())
	var labels []int
	for _, s := range samples {
		if s.Targets != nil {
			labels = append(labels, s.Targets...)
		} else {
			labels = append(labels, s.Label)
		}
	}
	if len(labels)*classes != len(v) {
		return nil, fmt.Errorf("finetune: %d labels for an output of %v: one is needed for each row", len(labels), like.Shape)
	}
	for row, c := range labels {
		switch {
		case c < 0:
			return nil, &calib.RecipeError{Msg: "holds no labels, and --labels asks for them; add labels to the recipe, or distil from the float model"}
		case c >= classes:
			return nil, &calib.RecipeError{Msg: fmt.Sprintf("holds label %d, and the output has classes 0 to %d", c, classes-1)}
		}
		v[row*classes+c] = 1
	}
	return tensor.Of(v, like.Shape...), nil
}

// agreement counts the rows in which the output has its largest number where the target has.
func agreement(output, target *tensor.Tensor) (same, rows int, err error) {
	y, err := floats(output)
	if err != nil {
		return 0, 0, err
	}
	t, err := floats(target)
	if err != nil {
		return 0, 0, err
	}
	if len(output.Shape) == 0 || len(y) != len(t) {
		return 0, 0, errors.New("finetune: output and target differ in shape")
	}
	cols := int(output.Shape[len(output.Shape)-1])
	for ; rows*cols < len(y); rows++ {
		if tensor.ArgMax(y[rows*cols:(rows+1)*cols]) == tensor.ArgMax(t[rows*cols:(rows+1)*cols]) {
			same++
		}
	}
	return same, rows, nil
}
