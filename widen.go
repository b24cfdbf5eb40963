package cosetq

import (
	"errors"
	"fmt"
	"maps"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// widening says how a model that computes in float16 is calibrated: in float32, in which alone gradients are computed. Its file, its
// fingerprint and the names of what is observed are those of the model as it is.
type widening struct {
	wide     bool        // the model that runs is not what it was
	asIs     *onnx.Model // what it was
	narrowed string      // why the model was run as it is after all, for people
}

// place puts an observer on the input of every candidate of m, which computes in float32 from then on if wide asks for it.
func (c *calibration) place(m *onnx.Model, wide bool) error {
	patterns := c.sites
	patterns.Embedding = true // what shares an embedding may be asked for later
	sites, err := rewrite.FindSites(m, patterns)
	if err != nil {
		return err
	}
	if wide {
		c.asIs = onnx.Clone(m)
		if c.wide, err = rewrite.Widen(m); err != nil {
			return fmt.Errorf("%s: %w", c.model, err)
		}
	}
	c.importance = &importance{model: onnx.Clone(m), sites: sites, ahead: map[int]chan []float32{}, free: func() int64 { return c.free() }, mapped: c.device != CUDA}
	c.corrected = correctedTags(sites)
	c.observations, err = rewrite.Observe(m, sites, c.shard.observations)
	switch {
	case errors.Is(err, rewrite.ErrNothing):
		return fail(Nothing, fmt.Errorf("%s: nothing to calibrate for: %s", c.model, leftOut(sites)), "`cosetq inspect %s --layers` lists every node", c.model)
	case err != nil:
		return fmt.Errorf("%s: %w", c.model, err)
	}
	return nil
}

// fits tells of a model that is wider than it was if memory has no room for it. As it was it may have run all the same.
func (c *calibration) fits() error {
	if !c.wide {
		return nil
	}
	free := c.free()
	if need, room := floatBytes(c.observed, c.device != CUDA), free/8*7; free > 0 && need > room {
		return fmt.Errorf("in float32 %w", noRoom(need, room))
	}
	return nil
}

// narrow goes back to the model as it is, before anything is observed, because of what became of it in float32.
func (c *calibration) narrow(cause error) error {
	c.wide, c.narrowed, c.unweighted = false, cause.Error(), ""
	m := c.asIs
	if err := c.place(m, false); err != nil {
		return err
	}
	c.take(m)
	return nil
}

// widened is what the model is to be fed.
func (c *calibration) widened(inputs map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	if !c.wide {
		return inputs, nil
	}
	fed := maps.Clone(inputs)
	for name, t := range fed {
		if t.Type != tensor.Float16Type && t.Type != tensor.BFloat16Type {
			continue
		}
		var err error
		if fed[name], err = t.Converted(tensor.Float32); err != nil {
			return nil, err
		}
	}
	return fed, nil
}
