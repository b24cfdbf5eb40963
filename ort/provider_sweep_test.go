//go:build cgo && linux

package ort_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

type sweepInputs = []*tensor.Tensor

// takesNothing are operators that the CPU runs where a dimension is 0, and by the book: its sums keep the shape of nothing.
var takesNothing = map[string]bool{"Transpose": true, "Expand": true, "Where": true, "MatMul": true, "Cast": true, "Add": true, "Mul": true, "Equal": true, "Max": true,
	"Squeeze": true, "Unsqueeze": true, "Slice": true, "Softmax": true, "Concat": true, "Tile": true, "Relu": true, "Gelu": true, "IsNaN": true, "Shape": true, "Size": true,
	"Clip": true, "Trilu": true, "CumSum": true, "Not": true, "And": true, "Reshape": true, "Flatten": true}

// sweeps are operators by name, each with what makes its inputs and attributes.
var sweeps = map[string]func(s *sweep) sweepInputs{
	"Conv": func(s *sweep) sweepInputs {
		rank := s.between(1, 3)
		groups, in, out := s.oneOf(1, 1, 2, 3), s.oneOf(1, 2, 4), s.oneOf(1, 2, 3)
		spatial, kernel := s.many(int(rank), 5, 9), s.many(int(rank), 1, 3)
		s.window(spatial, kernel)
		s.set(onnx.IntAttr("group", groups))
		inputs := sweepInputs{s.floats(append([]int64{s.between(1, 3), groups * in}, spatial...)...), s.floats(append([]int64{groups * out, in}, kernel...)...)}
		if s.coin() {
			inputs = append(inputs, s.floats(groups*out))
		}
		return inputs
	},
	"ConvTranspose": func(s *sweep) sweepInputs {
		rank := s.between(1, 3)
		groups, in, out := s.oneOf(1, 1, 2, 3), s.oneOf(1, 2, 4), s.oneOf(1, 2, 3)
		spatial, kernel := s.many(int(rank), 2, 6), s.many(int(rank), 1, 4)
		s.sometimes(onnx.IntsAttr("dilations", s.many(int(rank), 1, 2)...))
		s.set(onnx.IntAttr("group", groups), onnx.IntsAttr("strides", s.many(int(rank), 2, 3)...))
		s.sometimes(onnx.IntsAttr("output_padding", s.many(int(rank), 0, 1)...))
		if s.coin() {
			pads := make([]int64, 2*rank)
			for i := range pads {
				pads[i] = s.between(0, kernel[i%int(rank)]-1)
			}
			s.set(onnx.IntsAttr("pads", pads...))
		}
		inputs := sweepInputs{s.floats(append([]int64{s.between(1, 3), groups * in}, spatial...)...), s.floats(append([]int64{groups * in, out}, kernel...)...)}
		if s.coin() {
			inputs = append(inputs, s.floats(groups*out))
		}
		return inputs
	},
	"MaxPool":           func(s *sweep) sweepInputs { return s.pool() },
	"AveragePool":       func(s *sweep) sweepInputs { s.sometimes(onnx.IntAttr("count_include_pad", 1)); return s.pool() },
	"GlobalAveragePool": func(s *sweep) sweepInputs { return sweepInputs{s.floats(s.dims(int(s.between(3, 5)))...)} },
	"GlobalMaxPool":     func(s *sweep) sweepInputs { return sweepInputs{s.floats(s.dims(int(s.between(3, 5)))...)} },
	"InstanceNormalization": func(s *sweep) sweepInputs {
		dims := s.many(int(s.between(3, 5)), 2, 6)
		s.sometimes(onnx.FloatAttr("epsilon", 1e-2))
		return sweepInputs{s.floats(dims...), s.floats(dims[1]), s.floats(dims[1])}
	},
	"GroupNormalization": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(18, 21)
		dims, groups := s.many(int(s.between(3, 5)), 2, 6), s.between(1, 3)
		dims[1] *= groups
		scales := dims[1]
		if s.opset == 18 {
			scales = groups
		}
		s.set(onnx.IntAttr("num_groups", groups))
		s.sometimes(onnx.FloatAttr("epsilon", 1e-2))
		return sweepInputs{s.floats(dims...), s.floats(scales), s.floats(scales)}
	},
	"BatchNormalization": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(7, 9, 14, 15)
		dims := s.many(int(s.between(2, 5)), 1, 5)
		s.sometimes(onnx.FloatAttr("epsilon", 1e-2))
		return sweepInputs{s.floats(dims...), s.floats(dims[1]), s.floats(dims[1]), s.floats(dims[1]), s.positive(dims[1])}
	},
	"LayerNormalization": func(s *sweep) sweepInputs {
		dims := s.many(int(s.between(1, 4)), 2, 6)
		axis := s.between(0, int64(len(dims))-1)
		s.set(onnx.IntAttr("axis", axis-s.oneOf(0, int64(len(dims)))))
		s.sometimes(onnx.FloatAttr("epsilon", 1e-2))
		inputs := sweepInputs{s.floats(dims...), s.floats(dims[axis:]...)}
		if s.coin() {
			inputs = append(inputs, s.floats(dims[axis:]...))
		}
		return inputs
	},
	"RMSNormalization": func(s *sweep) sweepInputs {
		s.opset = 23
		dims := s.many(int(s.between(1, 4)), 2, 6)
		axis := s.between(0, int64(len(dims))-1)
		s.set(onnx.IntAttr("axis", axis-s.oneOf(0, int64(len(dims)))))
		s.sometimes(onnx.FloatAttr("epsilon", 1e-2))
		return sweepInputs{s.floats(dims...), s.floats(dims[axis:]...)}
	},
	"com.microsoft::SkipLayerNormalization": func(s *sweep) sweepInputs {
		dims := []int64{s.between(1, 3), s.between(1, 4), s.between(2, 9)}
		skip := [][]int64{dims, {1, dims[1], dims[2]}, {dims[1], dims[2]}}[s.IntN(3)]
		inputs := sweepInputs{s.floats(dims...), s.floats(skip...), s.floats(dims[2]), nil, nil}
		for i := 3; i < 5; i++ {
			if s.coin() {
				inputs[i] = s.floats(dims[2])
			}
		}
		return inputs
	},
	"com.microsoft::SkipSimplifiedLayerNormalization": func(s *sweep) sweepInputs {
		dims := []int64{s.between(1, 3), s.between(1, 4), s.between(2, 9)}
		inputs := sweepInputs{s.floats(dims...), s.floats(dims...), s.floats(dims[2])}
		if s.coin() {
			inputs = append(inputs, s.floats(dims[2]))
		}
		return inputs
	},
	"Resize":   (*sweep).resize,
	"Upsample": func(s *sweep) sweepInputs { s.opset = s.oneOf(7, 9); return s.upsample() },
	"Pad": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(2, 11, 13, 18, 19)
		mode := s.name("constant", "edge", "reflect", "wrap")
		if s.opset < 19 && mode == "wrap" {
			mode = "edge"
		}
		s.sometimes(onnx.StringAttr("mode", mode))
		rank := int(s.between(1, 4))
		dims, axes := s.many(rank, 3, 5), rank
		x := s.floats(dims...)
		if s.opset > 11 {
			x = s.anything(dims...)
		}
		inputs := sweepInputs{x}
		var along []int64
		if s.opset >= 18 && s.coin() {
			along = s.some(rank, 1)
			axes = len(along)
		}
		low := int64(0)
		if s.rare() {
			low = -1
		}
		s.listed("pads", s.opset > 2, s.many(2*axes, low, 2), &inputs)
		if s.opset > 2 && (s.coin() || along != nil) {
			inputs = append(inputs, nil)
			if x.Type == tensor.Float32 && s.coin() {
				inputs[2] = tensor.Of([]float32{7})
				inputs[2].Shape = nil
			}
			if along != nil {
				inputs = append(inputs, tensor.Of(along, int64(len(along))))
			}
		}
		return inputs
	},
	"DepthToSpace": func(s *sweep) sweepInputs {
		size := s.between(1, 3)
		s.set(onnx.IntAttr("blocksize", size))
		s.sometimes(onnx.StringAttr("mode", s.name("DCR", "CRD")))
		return sweepInputs{s.floats(s.between(1, 2), size*size*s.between(1, 3), s.between(1, 4), s.between(1, 4))}
	},
	"SpaceToDepth": func(s *sweep) sweepInputs {
		size := s.between(1, 3)
		s.set(onnx.IntAttr("blocksize", size))
		return sweepInputs{s.floats(s.between(1, 2), s.between(1, 3), size*s.between(1, 3), size*s.between(1, 3))}
	},
	"TopK": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(10, 11, 21)
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		n := &dims[(axis+int64(len(dims)))%int64(len(dims))]
		*n = s.between(1, 40)
		s.set(onnx.IntAttr("axis", axis))
		x := s.few(dims...)
		if s.opset > 10 {
			x = s.numbers(dims...)
			s.sometimes(onnx.IntAttr("largest", 0))
		}
		return sweepInputs{x, ints(s.between(1, *n))}
	},
	"ArgMax": func(s *sweep) sweepInputs { return s.arg() },
	"ArgMin": func(s *sweep) sweepInputs { return s.arg() },
	"ScatterND": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		depth := s.between(1, int64(len(dims)))
		tuples := int64(s.IntN(int(product(dims[:depth])) + 1))
		places := s.Perm(int(product(dims[:depth])))[:tuples] // each once
		v := make([]int64, 0, tuples*depth)
		for _, p := range places {
			tuple, rest := make([]int64, depth), int64(p)
			for d := depth - 1; d >= 0; d-- {
				tuple[d], rest = rest%dims[d]-s.oneOf(0, dims[d]), rest/dims[d]
			}
			v = append(v, tuple...)
		}
		x := s.anything(dims...)
		y, err := tensor.New(x.Type, append([]int64{tuples}, dims[depth:]...)...)
		if err != nil {
			panic(err)
		}
		for i := range y.Data {
			y.Data[i] = x.Data[i%len(x.Data)]
		}
		return sweepInputs{x, tensor.Of(v, tuples, depth), y}
	},
	"ScatterElements": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		along := (axis + int64(len(dims))) % int64(len(dims))
		own := append([]int64{}, dims...)
		for d := range own {
			own[d] = s.between(1, dims[d])
		}
		s.set(onnx.IntAttr("axis", axis))
		own[along] = 1 // no place twice
		return sweepInputs{s.floats(dims...), s.integers(-dims[along], dims[along]-1, own...), s.floats(own...)}
	},
	"Gather": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		n := dims[(axis+int64(len(dims)))%int64(len(dims))]
		s.set(onnx.IntAttr("axis", axis))
		return sweepInputs{s.anything(dims...), s.integers(-n, n-1, s.dims(s.IntN(3))...)}
	},
	"GatherElements": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		along := (axis + int64(len(dims))) % int64(len(dims))
		own := append([]int64{}, dims...)
		for d := range own {
			own[d] = s.between(1, dims[d])
		}
		own[along] = s.between(1, 7)
		s.set(onnx.IntAttr("axis", axis))
		return sweepInputs{s.anything(dims...), s.integers(-dims[along], dims[along]-1, own...)}
	},
	"GatherND": func(s *sweep) sweepInputs {
		dims := s.many(int(s.between(1, 4)), 2, 3)
		batch := s.between(0, int64(len(dims))-1)
		depth := s.between(1, int64(len(dims))-batch)
		s.set(onnx.IntAttr("batch_dims", batch))
		return sweepInputs{s.anything(dims...), s.long(-2, 1, append(append(append([]int64{}, dims[:batch]...), s.dims(s.IntN(2))...), depth)...)}
	},
	"Clip": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(6, 11, 13)
		if s.opset == 6 {
			s.sometimes(onnx.FloatAttr("min", -0.5))
			s.sometimes(onnx.FloatAttr("max", 0.5))
			return sweepInputs{s.floats(s.dims(2)...)}
		}
		x := s.floats(s.dims(2)...)
		if s.opset == 13 {
			x = s.numbers(s.dims(2)...)
		}
		limit := func(v int64) *tensor.Tensor {
			switch x.Type {
			case tensor.Int32:
				return number([]int32{int32(v)})
			case tensor.Int64:
				return number([]int64{v})
			default:
				return alone(s.like([]float32{float32(v) / 4}, 1))
			}
		}
		inputs := sweepInputs{x, nil, nil}
		if s.coin() {
			inputs[1] = limit(s.between(-4, 2))
		}
		if s.coin() {
			inputs[2] = limit(s.between(-2, 4))
		}
		return inputs
	},
	"IsInf": func(s *sweep) sweepInputs {
		s.sometimes(onnx.IntAttr("detect_negative", 0))
		s.sometimes(onnx.IntAttr("detect_positive", 0))
		infinity := float32(math.Inf(1))
		return sweepInputs{tensor.Of([]float32{infinity, -infinity, 3, float32(math.NaN())}, 2, 2)}
	},
	"RotaryEmbedding": func(s *sweep) sweepInputs {
		s.opset = 23
		batch, length, heads, size := s.between(1, 3), s.between(1, 5), s.between(1, 3), s.oneOf(4, 8, 16)
		turned := s.oneOf(size, size/2)
		dims := []int64{batch, heads, length, size}
		if s.coin() {
			dims = []int64{batch, length, heads * size}
			s.set(onnx.IntAttr("num_heads", heads))
		}
		s.sometimes(onnx.IntAttr("interleaved", 1))
		s.set(onnx.IntAttr("rotary_embedding_dim", turned))
		if s.coin() {
			return sweepInputs{s.floats(dims...), s.floats(batch, length, turned/2), s.floats(batch, length, turned/2)}
		}
		return sweepInputs{s.floats(dims...), s.floats(9, turned/2), s.floats(9, turned/2), s.long(0, 8, batch, length)}
	},
	"com.microsoft::RotaryEmbedding": func(s *sweep) sweepInputs {
		batch, length, heads, size := s.between(1, 3), s.between(1, 5), s.between(1, 3), s.oneOf(8, 16)
		turned := s.oneOf(size, size/2)
		dims := []int64{batch, heads, length, size}
		if s.coin() {
			dims = []int64{batch, length, heads * size}
		}
		if turned != size || s.coin() {
			s.set(onnx.IntAttr("num_heads", heads), onnx.IntAttr("rotary_embedding_dim", turned))
		}
		s.sometimes(onnx.IntAttr("interleaved", 1))
		positions := s.long(0, 8, batch, length)
		if s.coin() {
			positions = ints(s.between(0, 3))
		}
		return sweepInputs{s.floats(dims...), positions, s.floats(9, turned/2), s.floats(9, turned/2)}
	},
	"Softmax":    func(s *sweep) sweepInputs { return s.softmax() },
	"LogSoftmax": func(s *sweep) sweepInputs { return s.softmax() },
	"Squeeze": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(1, 11, 13, 21)
		dims := s.dims(int(s.between(1, 5)))
		ones := []int64{}
		for d := range dims {
			if s.coin() {
				dims[d] = 1
				ones = append(ones, int64(d)-s.oneOf(0, int64(len(dims))*min(1, s.opset/11)))
			}
		}
		inputs := sweepInputs{s.anything(dims...)}
		if len(ones) > 0 && s.coin() {
			s.listed("axes", s.opset >= 13, ones, &inputs)
		}
		return inputs
	},
	"Unsqueeze": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(1, 11, 13, 21)
		dims := s.dims(int(s.between(1, 3)))
		axes := s.some(len(dims)+2, 1)[:1]
		if s.coin() {
			axes = s.some(len(dims)+2, 2)[:2]
		} else if axes[0] >= int64(len(dims)+1) || axes[0] < -int64(len(dims)+1) {
			axes[0] = 0
		}
		if s.opset == 1 {
			for i := range axes {
				axes[i] = (axes[i] + int64(len(dims)+len(axes))) % int64(len(dims)+len(axes))
			}
			if len(axes) == 2 && axes[0] == axes[1] {
				axes = axes[:1]
			}
		}
		inputs := sweepInputs{s.anything(dims...)}
		s.listed("axes", s.opset >= 13, axes, &inputs)
		return inputs
	},
	"Slice": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(1, 10, 11, 13)
		dims := s.dims(int(s.between(1, 4)))
		axes := s.some(len(dims), 1)
		if s.opset == 1 {
			for i := range axes {
				axes[i] = (axes[i] + int64(len(dims))) % int64(len(dims))
			}
		}
		inputs := sweepInputs{s.floats(dims...)}
		if s.opset > 1 {
			inputs[0] = s.anything(dims...)
		}
		s.listed("starts", s.opset > 1, s.many(len(axes), -7, 7), &inputs)
		s.listed("ends", s.opset > 1, s.many(len(axes), -7, 7), &inputs)
		s.listed("axes", s.opset > 1, axes, &inputs)
		if s.opset > 1 && s.coin() {
			steps := s.many(len(axes), 1, 3)
			for i := range steps {
				steps[i] *= s.oneOf(1, -1)
			}
			inputs = append(inputs, tensor.Of(steps, int64(len(steps))))
		}
		return inputs
	},
	"CumSum": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		s.sometimes(onnx.IntAttr("exclusive", 1))
		s.sometimes(onnx.IntAttr("reverse", 1))
		x := s.few(dims...)
		if s.coin() {
			x = s.integers(-9, 9, dims...)
		}
		return sweepInputs{x, number([]int64{s.axis(len(dims))})}
	},
	"Trilu": func(s *sweep) sweepInputs {
		s.sometimes(onnx.IntAttr("upper", s.between(0, 1)))
		inputs := sweepInputs{s.anything(s.dims(int(s.between(2, 4)))...)}
		if s.coin() {
			inputs = append(inputs, number([]int64{s.between(-6, 6)}))
		}
		return inputs
	},
	"Transpose": func(s *sweep) sweepInputs {
		rank := int(s.between(1, 5))
		perm := []int64{}
		for _, d := range s.Perm(rank) {
			perm = append(perm, int64(d))
		}
		s.sometimes(onnx.IntsAttr("perm", perm...))
		return sweepInputs{s.anything(s.dims(rank)...)}
	},
	"Expand": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		return sweepInputs{s.anything(s.broadcast(dims)...), s.shape(s.broadcast(dims))}
	},
	"Tile": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		return sweepInputs{s.anything(dims...), s.long(0, 3, int64(len(dims)))}
	},
	"Concat": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		s.set(onnx.IntAttr("axis", axis))
		first := s.anything(dims...)
		inputs := sweepInputs{first}
		for range s.IntN(3) {
			own := append([]int64{}, dims...)
			own[(axis+int64(len(dims)))%int64(len(dims))] = s.between(0, 4)
			x, err := tensor.New(first.Type, own...)
			if err != nil {
				panic(err)
			}
			inputs = append(inputs, x)
		}
		return inputs
	},
	"Where": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 4)))
		if s.coin() {
			return sweepInputs{s.truths(s.broadcast(dims)...), s.floats(s.broadcast(dims)...), s.floats(s.broadcast(dims)...)}
		}
		return sweepInputs{s.truths(s.broadcast(dims)...), s.long(-9, 9, s.broadcast(dims)...), s.long(-9, 9, s.broadcast(dims)...)}
	},
	"Gemm": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(7, 9, 11, 13)
		m, k, n := s.between(1, 9), s.between(1, 9), s.between(1, 9)
		a, b := []int64{m, k}, []int64{k, n}
		if s.coin() {
			s.set(onnx.IntAttr("transA", 1))
			a = []int64{k, m}
		}
		if s.coin() {
			s.set(onnx.IntAttr("transB", 1))
			b = []int64{n, k}
		}
		s.sometimes(onnx.FloatAttr("alpha", 0.5))
		s.sometimes(onnx.FloatAttr("beta", s.Float32()*float32(s.IntN(2))))
		inputs := sweepInputs{s.floats(a...), s.floats(b...)}
		if s.opset < 11 || s.coin() {
			inputs = append(inputs, s.floats([][]int64{{m, n}, {1, n}, {m, 1}, {n}, {1}, {}, {1, 1}}[s.IntN(7)]...))
		}
		return inputs
	},
	"MatMul": func(s *sweep) sweepInputs {
		m, k, n := s.between(1, 9), s.between(1, 9), s.between(1, 9)
		batch := s.dims(s.IntN(4))
		a, b := append(s.broadcast(append([]int64{}, batch...)), m, k), append(s.broadcast(append([]int64{}, batch...)), k, n)
		if s.rare() {
			a = []int64{k}
		}
		if s.rare() {
			b = []int64{k}
		}
		return sweepInputs{s.floats(a...), s.floats(b...)}
	},
	"com.microsoft::FusedMatMul": func(s *sweep) sweepInputs {
		m, k, n := s.between(1, 9), s.between(1, 9), s.between(1, 9)
		batch := s.dims(s.IntN(3))
		a, b := []int64{m, k}, []int64{k, n}
		if s.coin() {
			s.set(onnx.IntAttr("transA", 1))
			a = []int64{k, m}
		}
		if s.coin() {
			s.set(onnx.IntAttr("transB", 1))
			b = []int64{n, k}
		}
		s.sometimes(onnx.FloatAttr("alpha", 0.5))
		return sweepInputs{s.floats(append(append([]int64{}, batch...), a...)...), s.floats(append(append([]int64{}, batch...), b...)...)}
	},
	"Cast": func(s *sweep) sweepInputs {
		s.set(onnx.IntAttr("to", s.oneOf(int64(onnx.Float), int64(onnx.Float16), int64(onnx.Int32), int64(onnx.Int64), int64(onnx.Bool), int64(onnx.Uint8), int64(onnx.Int8))))
		return sweepInputs{s.anything(s.dims(2)...)}
	},
	"Elu": func(s *sweep) sweepInputs {
		s.sometimes(onnx.FloatAttr("alpha", 0.3))
		return sweepInputs{s.floats(s.dims(2)...)}
	},
	"LeakyRelu": func(s *sweep) sweepInputs {
		s.sometimes(onnx.FloatAttr("alpha", 0.3))
		return sweepInputs{s.floats(s.dims(2)...)}
	},
	"HardSigmoid": func(s *sweep) sweepInputs {
		s.sometimes(onnx.FloatAttr("alpha", 0.3))
		s.sometimes(onnx.FloatAttr("beta", 0.1))
		return sweepInputs{s.floats(s.dims(2)...)}
	},
	"Gelu": func(s *sweep) sweepInputs {
		s.sometimes(onnx.StringAttr("approximate", s.name("none", "tanh")))
		return sweepInputs{s.floats(s.dims(2)...)}
	},
	"com.microsoft::QuickGelu": func(s *sweep) sweepInputs {
		s.sometimes(onnx.FloatAttr("alpha", 1))
		return sweepInputs{s.floats(s.dims(2)...)}
	},
	"com.microsoft::BiasGelu": func(s *sweep) sweepInputs { return sweepInputs{s.floats(2, 3, 8), s.floats(8)} },
	"And": func(s *sweep) sweepInputs {
		d := s.dims(3)
		return sweepInputs{s.truths(s.broadcast(d)...), s.truths(s.broadcast(d)...)}
	},
	"Xor": func(s *sweep) sweepInputs {
		d := s.dims(3)
		return sweepInputs{s.truths(s.broadcast(d)...), s.truths(s.broadcast(d)...)}
	},
	"Shape": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(13, 15, 21)
		if s.opset > 13 {
			s.sometimes(onnx.IntAttr("start", s.between(-6, 6)))
			s.sometimes(onnx.IntAttr("end", s.between(-6, 6)))
		}
		return sweepInputs{s.anything(s.dims(int(s.between(1, 5)))...)}
	},
	"Size": func(s *sweep) sweepInputs { return sweepInputs{s.anything(s.dims(int(s.between(1, 5)))...)} },
	"Flatten": func(s *sweep) sweepInputs {
		dims := s.dims(int(s.between(1, 5)))
		s.sometimes(onnx.IntAttr("axis", s.between(-int64(len(dims)), int64(len(dims)))))
		return sweepInputs{s.anything(dims...)}
	},
	"Reshape": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(5, 13, 14, 21)
		dims := s.dims(int(s.between(1, 4)))
		to := []int64{product(dims)}
		for d := range dims {
			if s.coin() {
				break
			}
			to = append(to[:d], 0, product(dims[d+1:]))
		}
		if s.coin() && !s.empty {
			to[len(to)-1] = -1
		}
		if s.opset > 13 && s.rare() {
			s.set(onnx.IntAttr("allowzero", 1))
			to = dims
		}
		return sweepInputs{s.anything(dims...), s.shape(to)}
	},
	"Range": func(s *sweep) sweepInputs {
		low, high, step := s.between(-9, 9), s.between(-9, 9), s.oneOf(-3, -2, -1, 1, 2, 3)
		switch s.IntN(3) {
		case 0:
			return sweepInputs{number([]int64{low}), number([]int64{high}), number([]int64{step})}
		case 1:
			return sweepInputs{number([]int32{int32(low)}), number([]int32{int32(high)}), number([]int32{int32(step)})}
		}
		return sweepInputs{number([]float32{float32(low) / 2}), number([]float32{float32(high)}), number([]float32{float32(step) / 3})}
	},
	"ConstantOfShape": func(s *sweep) sweepInputs {
		if s.coin() {
			s.set(onnx.TensorAttr("value", onnx.NewTensor("", []int64{1}, []int64{s.between(-9, 9)})))
		} else if s.coin() {
			s.set(onnx.TensorAttr("value", onnx.NewTensor("", []int64{1}, []bool{true})))
		}
		return sweepInputs{s.shape(s.many(int(s.between(0, 4)), 0, 4))}
	},
	"Split": func(s *sweep) sweepInputs {
		s.opset = s.oneOf(2, 11, 13)
		dims := s.dims(int(s.between(1, 4)))
		axis := s.axis(len(dims))
		first, second := s.between(0, 4), s.between(1, 4)
		if s.opset == 2 {
			axis = (axis + int64(len(dims))) % int64(len(dims))
		}
		dims[(axis+int64(len(dims)))%int64(len(dims))] = first + second
		s.set(onnx.IntAttr("axis", axis))
		inputs := sweepInputs{s.floats(dims...)}
		s.listed("split", s.opset >= 13, []int64{first, second}, &inputs)
		return inputs
	},
}

// number is a tensor without dimensions.
func number[T tensor.Element](v []T) *tensor.Tensor { return alone(tensor.Of(v, 1)) }

func alone(x *tensor.Tensor) *tensor.Tensor {
	x.Shape = []int64{}
	return x
}

func (s *sweep) pool() sweepInputs {
	rank := int(s.between(1, 3))
	spatial, kernel := s.many(rank, 5, 9), s.many(rank, 1, 3)
	s.opset = s.oneOf(12, 21)
	s.window(spatial, kernel)
	s.sometimes(onnx.IntAttr("ceil_mode", 1))
	s.set(onnx.IntsAttr("kernel_shape", kernel...))
	return sweepInputs{s.floats(append([]int64{s.between(1, 2), s.between(1, 3)}, spatial...)...)}
}

func (s *sweep) arg() sweepInputs {
	dims := s.dims(int(s.between(1, 4)))
	s.sometimes(onnx.IntAttr("axis", s.axis(len(dims))))
	s.sometimes(onnx.IntAttr("keepdims", 0))
	s.sometimes(onnx.IntAttr("select_last_index", 1))
	return sweepInputs{s.numbers(dims...)}
}

func (s *sweep) softmax() sweepInputs {
	s.opset = s.oneOf(1, 11, 13)
	dims := s.dims(int(s.between(2, 4)))
	axis := s.axis(len(dims))
	if s.opset == 1 {
		axis = (axis + int64(len(dims))) % int64(len(dims))
	}
	s.sometimes(onnx.IntAttr("axis", axis))
	return sweepInputs{s.floats(dims...)}
}

func (s *sweep) resize() sweepInputs {
	s.opset = s.oneOf(10, 11, 13, 18, 19)
	mode := s.name("nearest", "linear", "cubic")
	if s.opset == 10 {
		if mode == "cubic" {
			mode = "linear"
		}
		s.set(onnx.StringAttr("mode", mode))
		return sweepInputs{s.floats(1, 2, 3, 5), s.scales(4)}
	}
	s.set(onnx.StringAttr("mode", mode))
	if mode == "nearest" {
		s.sometimes(onnx.StringAttr("nearest_mode", s.name("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")))
	}
	place := s.name("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
	if place == "half_pixel_symmetric" && s.opset < 19 {
		place = "asymmetric"
	}
	s.sometimes(onnx.StringAttr("coordinate_transformation_mode", place))
	if mode == "cubic" {
		s.sometimes(onnx.FloatAttr("cubic_coeff_a", -0.5))
		s.sometimes(onnx.IntAttr("exclude_outside", 1))
	}
	dims := []int64{s.between(1, 2), s.between(1, 3), s.between(1, 7), s.between(1, 7)}
	inputs := sweepInputs{s.floats(dims...), nil, nil, nil}
	if s.coin() { // as old exporters write what they leave out
		inputs[1] = tensor.Of([]float32{}, 0)
	}
	axes := []int64{}
	if s.opset >= 18 && s.coin() {
		axes = []int64{2, s.oneOf(3, -1)}
		s.set(onnx.IntsAttr("axes", axes...))
	}
	if s.coin() {
		inputs[2] = s.scales(4)
		if len(axes) > 0 {
			v, _ := tensor.View[float32](inputs[2])
			inputs[2] = tensor.Of(v[2:], 2)
		}
		return inputs[:3]
	}
	if s.coin() {
		inputs[2] = tensor.Of([]float32{}, 0)
	}
	sizes := []int64{dims[0], dims[1], s.between(1, 12), s.between(1, 12)}
	if len(axes) > 0 {
		sizes = sizes[2:]
	}
	inputs[3] = ints(sizes...)
	return inputs
}

// scales are those of images, the last two of so many dimensions.
func (s *sweep) scales(rank int) *tensor.Tensor {
	v := make([]float32, rank)
	for i := range v {
		v[i] = 1
		if i >= rank-2 {
			v[i] = []float32{0.5, 1, 2, 1.5, 3, 0.7, 2.3}[s.IntN(7)]
		}
	}
	return tensor.Of(v, int64(rank))
}

func (s *sweep) upsample() sweepInputs {
	s.sometimes(onnx.StringAttr("mode", s.name("nearest", "linear")))
	x := s.floats(1, 2, 3, 5)
	v, _ := tensor.View[float32](s.scales(4))
	for i := range v {
		v[i] = max(v[i], 1)
	}
	if s.opset == 7 {
		s.set(onnx.FloatsAttr("scales", v...))
		return sweepInputs{x}
	}
	return sweepInputs{x, tensor.Of(v, 4)}
}

// Operators with random attributes, of every version that has them another way, are what they are on the CPU.
func TestProviderSweep(t *testing.T) {
	library, about, _ := aboutProvider(t)
	for _, op := range []string{"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"} {
		sweeps[op] = func(s *sweep) sweepInputs {
			s.opset = s.oneOf(1, 11, 13, 18)
			dims := s.dims(int(s.between(1, 4)))
			axes := s.some(len(dims), 1)
			if s.opset == 1 {
				for i := range axes {
					axes[i] = (axes[i] + int64(len(dims))) % int64(len(dims))
				}
			}
			s.sometimes(onnx.IntAttr("keepdims", s.between(0, 1)))
			inputs := sweepInputs{s.few(dims...)}
			by := s.opset >= 18 || op == "ReduceSum" && s.opset >= 13
			if s.coin() {
				s.listed("axes", by, axes, &inputs)
			} else if by {
				s.sometimes(onnx.IntAttr("noop_with_empty_axes", 1))
			}
			return inputs
		}
	}
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Pow", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "PRelu"} {
		sweeps[op] = func(s *sweep) sweepInputs {
			dims := s.dims(int(s.between(1, 4)))
			a, b := s.broadcast(dims), s.broadcast(dims)
			if op == "PRelu" {
				a = dims
			}
			if op == "Mod" {
				if s.coin() {
					s.set(onnx.IntAttr("fmod", 1))
					return sweepInputs{s.floats(a...), s.positive(b...)}
				}
				return sweepInputs{s.long(-9, 9, a...), s.long(1, 5, b...)}
			}
			if s.rare() && op != "PRelu" {
				return sweepInputs{s.long(-9, 9, a...), s.long(1, 5, b...)}
			}
			if op == "Pow" || op == "Div" {
				return sweepInputs{s.positive(a...), s.positive(b...)}
			}
			return sweepInputs{s.few(a...), s.few(b...)}
		}
	}
	for _, op := range []string{"Abs", "Neg", "Relu", "Sign", "Ceil", "Floor", "Round", "Cos", "Sin", "Erf", "Exp", "HardSwish", "Sigmoid", "Softplus", "Tanh", "IsNaN", "Identity"} {
		sweeps[op] = func(s *sweep) sweepInputs { return sweepInputs{s.few(s.dims(int(s.between(1, 4)))...)} }
	}
	for _, op := range []string{"Log", "Sqrt", "Reciprocal"} {
		sweeps[op] = func(s *sweep) sweepInputs { return sweepInputs{s.positive(s.dims(int(s.between(1, 4)))...)} }
	}
	sweeps["Not"] = func(s *sweep) sweepInputs { return sweepInputs{s.truths(s.dims(int(s.between(1, 4)))...)} }
	cases := 40
	if testenv.Slow() {
		cases = 600
	}
	for op, inputs := range sweeps {
		t.Run(strings.ReplaceAll(op, "::", "."), func(t *testing.T) {
			ran, there := 0, 0
			for seed := range uint64(cases) {
				s := &sweep{Rand: rand.New(rand.NewPCG(seed, 17)), opset: 21}
				s.half = seed%4 == 3
				s.empty = seed%8 == 5 && takesNothing[op]
				c := single("", op, inputs(s))
				c.nodes[0].Attributes = s.attrs
				if op == "TopK" {
					c = c.splits()
				}
				if op == "Split" {
					c = c.splits()
				}
				c.opset, c.known, c.exact = s.opset, s.coin(), true
				path, fed := c.build(t)
				text := fmt.Sprintf("seed %d, opset %d:", seed, s.opset)
				for _, a := range s.attrs {
					text += fmt.Sprintf(" %s=%v%v%v%s", a.Name, a.I, a.F, a.Ints, a.S)
				}
				for _, x := range c.inputs {
					if x != nil {
						text += fmt.Sprintf(" %s%v", x.Type, x.Shape)
					}
				}
				want, err := runNodes(t, path, "", fed)
				if err != nil {
					continue
				}
				there++
				before := about.Traffic().Runs
				got, err := runNodes(t, path, library, fed)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				limit := 2e-5
				if s.half {
					limit = 3e-3
				}
				if !slices.Equal(want.Shape, got.Shape) {
					t.Errorf("%s: %v, want %v", text, got.Shape, want.Shape)
				} else if d := distance(t, want, got); !(d < limit) {
					t.Errorf("%s: off by %g", text, d)
				}
				if about.Traffic().Runs > before {
					ran++
				}
			}
			t.Logf("%d of %d on the device", ran, there)
			if there < cases/4 || ran < there/2 {
				t.Errorf("%d of %d cases that the CPU runs were on the device", ran, there)
			}
		})
	}
}
