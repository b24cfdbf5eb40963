package calib

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/tensor"
)

// Language models exported from the usual trainers have inputs beside the token ids that follow from them alone.

// isExtra tells whether an input is one of them.
func isExtra(in tensor.Spec, inputs []tensor.Spec) bool {
	return extraValue(in.Name) != nil || startsWithoutPast(in, inputs, nil)
}

// isCache tells whether an input holds the keys or values of the tokens before a window: there are none, and it is fed empty.
func isCache(in tensor.Spec) bool {
	return strings.HasPrefix(strings.ToLower(in.Name), "past") && in.Type.Float() && len(in.Shape) > 2 &&
		slices.ContainsFunc(in.Shape, isCacheLength)
}

// isCacheLength tells whether a dimension of a cache counts tokens: open, and no batch.
func isCacheLength(d tensor.Dim) bool {
	return !d.Fixed() && !strings.Contains(strings.ToLower(d.Name), "batch")
}

// cacheShape is the shape of an empty cache; the batch comes first unless another dimension has its name.
func cacheShape(in tensor.Spec, batch int64) []int64 {
	shape := make([]int64, len(in.Shape))
	for i, d := range in.Shape {
		switch {
		case d.Fixed():
			shape[i] = d.Size
		case i == 0 || !isCacheLength(d):
			shape[i] = batch
		default: // a ring of places has them even as long as none is taken
			shape[i] = d.Least
		}
	}
	return shape
}

// isCacheSwitch tells whether an input of a merged decoder chooses the branch that reads the cache, which is off.
func isCacheSwitch(in tensor.Spec) bool {
	return in.Name == "use_cache_branch" && in.Type == tensor.Bool
}

// startsWithoutPast tells whether an input for which no array is given follows from the others: a cache is empty and its switch off,
// if arrays are given for no cache at all. What a decoder keeps of its encoder is no past, unless the branch that is off alone reads it.
func startsWithoutPast(in tensor.Spec, inputs []tensor.Spec, arrays []string) bool {
	if slices.ContainsFunc(inputs, func(other tensor.Spec) bool { return isCache(other) && slices.Contains(arrays, other.Name) }) {
		return false
	}
	name := strings.ToLower(in.Name)
	ofEncoder := strings.Contains(name, "encoder") || strings.Contains(name, "cross")
	return isCacheSwitch(in) || isCache(in) && (!ofEncoder || slices.ContainsFunc(inputs, isCacheSwitch))
}

// extraValue gives element j of a row of such an input; nil for other names. Every token of a window counts (mask 1),
// belongs to the first segment (0), and is numbered from 0.
func extraValue(name string) func(j int64) int64 {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, "attention_mask"), name == "input_mask":
		return func(int64) int64 { return 1 }
	case strings.HasSuffix(name, "token_type_ids"), name == "segment_ids":
		return func(int64) int64 { return 0 }
	case strings.HasSuffix(name, "position_ids"):
		return func(j int64) int64 { return j }
	}
	return nil
}

// extraInput fills such an input for ids of the given shape, whose last dimension is the row.
func extraInput(in tensor.Spec, shape []int64) (*tensor.Tensor, error) {
	switch {
	case isCache(in):
		return tensor.New(in.Type, cacheShape(in, shape[0])...)
	case isCacheSwitch(in):
		return integers(in, []int64{1}, func(int64) int64 { return 0 })
	}
	row := shape[len(shape)-1]
	value := extraValue(in.Name)
	if in.Type.Float() {
		t, err := tensor.New(tensor.Float32, shape...)
		if err != nil || in.Type != tensor.Float32 {
			return nil, fmt.Errorf("%s has a type that this data cannot give", in)
		}
		all, err := tensor.View[float32](t)
		for j := range all {
			all[j] = float32(value(int64(j) % row))
		}
		return t, err
	}
	return integers(in, shape, func(j int64) int64 { return value(j % row) })
}

// integers makes a tensor of the input's integer type, or bool.
func integers(in tensor.Spec, shape []int64, value func(j int64) int64) (*tensor.Tensor, error) {
	switch in.Type {
	case tensor.Int64:
		return fill(shape, value), nil
	case tensor.Int32:
		return fill(shape, func(j int64) int32 { return int32(value(j)) }), nil
	case tensor.Int16:
		return fill(shape, func(j int64) int16 { return int16(value(j)) }), nil
	case tensor.Int8:
		return fill(shape, func(j int64) int8 { return int8(value(j)) }), nil
	case tensor.Uint8:
		return fill(shape, func(j int64) uint8 { return uint8(value(j)) }), nil
	case tensor.Uint16:
		return fill(shape, func(j int64) uint16 { return uint16(value(j)) }), nil
	case tensor.Uint32:
		return fill(shape, func(j int64) uint32 { return uint32(value(j)) }), nil
	case tensor.Uint64:
		return fill(shape, func(j int64) uint64 { return uint64(value(j)) }), nil
	case tensor.Bool:
		return fill(shape, func(j int64) bool { return value(j) != 0 }), nil
	}
	return nil, fmt.Errorf("%s has a type that this data cannot give", in)
}

func fill[T tensor.Element](shape []int64, value func(j int64) T) *tensor.Tensor {
	n, err := tensor.Count(shape)
	if err != nil {
		panic(err) // shapes are checked when a reader is opened
	}
	values := make([]T, n)
	for j := range values {
		values[j] = value(int64(j))
	}
	return tensor.Of(values, shape...)
}
