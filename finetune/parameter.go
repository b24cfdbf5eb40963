package finetune

import (
	"fmt"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/tensor"
)

// parameter is a bias or a parameter of a normalisation in training.
type parameter struct {
	name  string
	x     []float32
	value *tensor.Tensor // x in the type of the graph
	g     []float32
	opt   adam
	unit  float64
}

// smallestUnit is the unit of learning rates for parameters that are about zero.
const smallestUnit = 0.01

func newParameter(t *onnx.Tensor) (*parameter, error) {
	x, err := t.Float32s()
	if err != nil {
		return nil, fmt.Errorf("finetune: %w", err)
	}
	p := &parameter{name: t.Name, x: x, opt: newAdam(len(x)), unit: max(rms(x), smallestUnit)}
	p.value, err = tensor.New(tensor.Type(t.DataType), t.Dims...)
	if err != nil {
		return nil, fmt.Errorf("finetune: parameter %q: %w", t.Name, err)
	}
	p.refresh()
	return p, nil
}

// refresh puts x into the value.
func (p *parameter) refresh() {
	if half, err := tensor.View[tensor.Float16](p.value); err == nil {
		for i, v := range p.x {
			half[i] = tensor.ToFloat16(v)
		}
		return
	}
	v, _ := tensor.View[float32](p.value) // parameters are of these two types
	copy(v, p.x)
}

func (p *parameter) move(rate, factor float64, step int) {
	p.opt.update(p.x, p.g, 0, len(p.x), rate*p.unit, factor, step)
	p.refresh()
}

// floats returns the numbers of a gradient in float32.
func floats(t *tensor.Tensor) ([]float32, error) {
	if v, err := tensor.View[float32](t); err == nil {
		return v, nil
	}
	wide := make([]float64, t.Count())
	if err := t.Floats(wide, 0, t.Count()); err != nil {
		return nil, err
	}
	v := make([]float32, len(wide))
	for i, x := range wide {
		v[i] = float32(x)
	}
	return v, nil
}
