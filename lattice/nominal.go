package lattice

import (
	"math"
	"math/rand/v2"
)

// nominalSteps holds the optimal steps of the presets for N(0,1), as measureNominalStep finds them.
var nominalSteps = map[string]float64{
	"d4:4:g3,4,5,7":   0.19069976884306727,
	"d4:2,4:g3,4,5,7": 0.09743777501486481,
	"d4:4,4:g3,4,5,6": 0.054882880011665608,
}

// NominalStep returns the step that minimizes the mean squared error of the codec on N(0,1), to about 1 %. A search for
// the step of a row starts at NominalStep times the row's root mean square.
func (c *Codec) NominalStep() float32 { return float32(c.nominal()) }

// nominalStep looks the step up or measures it.
func (c *Codec) nominalStep() float64 {
	if step, ok := nominalSteps[c.String()]; ok {
		return step
	}
	return c.measureNominalStep()
}

// measureNominalStep minimizes the distortion of a fixed sample over steps 2^(i/64).
func (c *Codec) measureNominalStep() float64 {
	rng := rand.New(rand.NewPCG(2505, 13164))
	sample := make([]float32, 1<<14)
	for i := range sample {
		sample[i] = float32(rng.NormFloat64())
	}
	at := func(i int) float64 {
		d, err := c.Distortion(sample, float32(math.Exp2(float64(i)/64)))
		if err != nil {
			return math.Inf(1)
		}
		return d
	}
	// The whole code spans about ±4 standard deviations at a good step; walk down from a step that is too large.
	i := 64 * int(math.Ceil(math.Log2(8/float64(c.gains[0]))))
	for stride := 32; stride >= 1; stride /= 2 {
		for at(i-stride) < at(i) {
			i -= stride
		}
		for at(i+stride) < at(i) {
			i += stride
		}
	}
	return math.Exp2(float64(i) / 64)
}
