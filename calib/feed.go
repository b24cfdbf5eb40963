package calib

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// chooseInput finds the model input that the recipe feeds: the one it names, or the only one that is not in filled,
// which lists inputs that the reader fills on its own.
func (r *Recipe) chooseInput(inputs []tensor.Spec, filled func(in tensor.Spec) bool) (tensor.Spec, error) {
	var names, open []string
	var found tensor.Spec
	for _, s := range inputs {
		names = append(names, s.Name)
		switch {
		case s.Name == r.Input:
			found = s
		case filled == nil || !filled(s):
			open = append(open, s.Name)
			if r.Input == "" {
				found = s
			}
		}
	}
	switch {
	case r.Input != "" && found.Name == "":
		return found, r.fail("input", "the model has no input %q%s", r.Input, didYouMean(r.Input, names))
	case r.Input != "" && len(open) > 0:
		return found, r.fail("input", "the model also needs %s; kind npz feeds all inputs from arrays of their names, if neither input nor array is given", strings.Join(open, ", "))
	case r.Input == "" && len(open) == 0:
		return found, r.fail("input", "the model has no input for this data, only %s", strings.Join(names, ", "))
	case r.Input == "" && len(open) > 1:
		return found, r.fail("input", "the model has the inputs %s; kind npz feeds several, from arrays of their names", strings.Join(open, ", "))
	}
	return found, nil
}

// checkFit refuses data of a shape that the model does not take; key is the recipe's key to blame.
func (r *Recipe) checkFit(key string, in tensor.Spec, shape []int64) error {
	fed := append([]int64{}, shape...)
	if in.Ranked && len(in.Shape) > 0 && in.Shape[0].Size > 1 && len(fed) == len(in.Shape) && fed[0] == 1 {
		fed[0] = in.Shape[0].Size // samples are joined to the fixed batch
	}
	if !in.Accepts(in.Type, fed) {
		return r.fail(key, "the data gives %s per sample, and the model's input is %s; %s",
			tensor.FormatShape(shape), in, r.reshape(in, shape))
	}
	return nil
}

// unfit is what remains to be said of data that no shape makes fit.
const unfit = "change the recipe (shape, layout, seq or crop) or take another model"

// reshape says what would make data of a shape fit the input: a shape in the recipe where the number of values is right.
func (r *Recipe) reshape(in tensor.Spec, shape []int64) string {
	if len(in.Shape) < 2 || !slices.Contains(keysOf[r.Kind], "shape") {
		return unfit
	}
	want := []int64{-1}
	for _, d := range in.Shape[1:] {
		if !d.Fixed() {
			return unfit
		}
		want = append(want, d.Size)
	}
	have, err1 := tensor.Count(shape)
	need, err2 := tensor.Count(want[1:])
	if err1 != nil || err2 != nil || have != need {
		return unfit
	}
	text := strings.ReplaceAll(fmt.Sprint(want), " ", ", ")
	return "add shape: " + text + " to the recipe"
}

// encode turns values into a tensor of the type that the input has.
func (r *Recipe) encode(values []float32, t tensor.Type, shape []int64) (*tensor.Tensor, error) {
	switch t {
	case tensor.Float32:
		return tensor.Of(values, shape...), nil
	case tensor.Float64:
		return tensor.Of(convert(values, func(v float32) float64 { return float64(v) }), shape...), nil
	case tensor.Float16Type:
		return tensor.Of(convert(values, tensor.ToFloat16), shape...), nil
	case tensor.BFloat16Type:
		return tensor.Of(convert(values, tensor.ToBFloat16), shape...), nil
	}
	if t.Integer() || t == tensor.Bool {
		return whole(convert(values, func(v float32) float64 { return float64(v) }), t, shape, func(v float64) error {
			return r.fail("pixel", "gives %g, and the model's input has type %s; leave scale, mean and std out for a model that takes raw pixels", v, t)
		})
	}
	return nil, r.fail("", "the model's input has type %s, which this kind of data cannot give", t)
}

func convert[S float32 | float64, T tensor.Element](values []S, f func(S) T) []T {
	out := make([]T, len(values))
	for i, v := range values {
		out[i] = f(v)
	}
	return out
}

// whole makes a tensor of integers, or of bool, of values that are such. It does not round or clip: refuse says what is wrong with one.
func whole(values []float64, t tensor.Type, shape []int64, refuse func(v float64) error) (*tensor.Tensor, error) {
	out, err := integers(tensor.Spec{Type: t}, shape, func(j int64) int64 { return int64(values[j]) })
	if err != nil {
		return nil, err
	}
	back := make([]float64, len(values))
	if err := out.Floats(back, 0, int64(len(back))); err != nil {
		return nil, err
	}
	const exact = 1 << 53 // above, a float64 may stand for another integer
	for i, v := range values {
		if v != back[i] || v > exact || v < -exact {
			return nil, refuse(v)
		}
	}
	return out, nil
}

// scaler turns stored values into inputs, channel by channel.
type scaler struct {
	scale     float64
	mean, std []float64 // one per channel
}

// newScaler checks that mean and std fit the number of channels.
func (r *Recipe) newScaler(channels int64) (scaler, error) {
	spread := func(key string, list []float64, otherwise float64) ([]float64, error) {
		switch int64(len(list)) {
		case channels:
			return list, nil
		case 0:
			list = []float64{otherwise}
			fallthrough
		case 1:
			return slices.Repeat(list, int(channels)), nil
		}
		return nil, r.fail(key, "has %d values, and the data %d channels; give one per channel, or one for all", len(list), channels)
	}
	s := scaler{scale: 1}
	if r.Pixel.Scale != nil {
		s.scale = *r.Pixel.Scale
	}
	var err error
	if s.mean, err = spread("pixel.mean", r.Pixel.Mean, 0); err != nil {
		return s, err
	}
	s.std, err = spread("pixel.std", r.Pixel.Std, 1)
	return s, err
}

func (s scaler) apply(v float64, channel int) float32 {
	return float32((v*s.scale - s.mean[channel]) / s.std[channel])
}

// table lists what each byte becomes in each channel.
func (s scaler) table() [][256]float32 {
	t := make([][256]float32, len(s.mean))
	for c := range t {
		for v := range t[c] {
			t[c][v] = s.apply(float64(v), c)
		}
	}
	return t
}
