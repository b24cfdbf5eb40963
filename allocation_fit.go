package cosetq

import (
	"fmt"
	"math"

	"github.com/cosetq/cosetq/lattice"
)

// bytes is what the code of a weight takes: alone, or where the size of the file counts, with what fills up its pages.
func (a *allocator) bytes(w numbered, codec *lattice.Codec) int64 {
	m := a.places.of(w, codec).matrix
	if a.o.TargetBits != 0 {
		return m.Bytes()
	}
	filled := func(b []byte) int64 {
		if len(b) < pageSize {
			return 0
		}
		return int64((pageSize - len(b)%pageSize) % pageSize)
	}
	return m.Bytes() + filled(m.Codes) + filled(m.Gains)
}

// sizeOf is what the model takes with these codecs.
func (a *allocator) sizeOf(codecs []*lattice.Codec) (size, error) {
	stand := map[int]*codedWeight{}
	for i, w := range a.weights {
		if a.options != nil && len(a.options[i]) == 0 {
			continue
		}
		stand[i] = a.places.of(w, codecs[i])
	}
	return a.o.sizeWith(a.m.Path(), a.output, nil, stand)
}

// excess is by how many bytes the model is larger with these codecs than the target of bits or bytes allows.
func (a *allocator) excess(codecs []*lattice.Codec) (int64, size, error) {
	s, err := a.sizeOf(codecs)
	if a.o.TargetBytes != 0 {
		return s.bytes - int64(a.o.TargetBytes), s, err
	}
	return int64(math.Ceil(float64(s.codes) - a.o.TargetBits*float64(s.weights)/8)), s, err
}

// uniform returns one codec for all weights that none is prescribed for.
func (a *allocator) uniform(codec *lattice.Codec) []*lattice.Codec {
	var codecs []*lattice.Codec
	for _, w := range a.weights {
		c := a.fixed[w.Weight]
		if c == nil {
			c = codec
		}
		codecs = append(codecs, c)
	}
	return codecs
}

// checkReach makes it an error, before any work is done, when a target of bits or bytes is too small.
func (a *allocator) checkReach() error {
	if a.o.MaxDrop != nil {
		return nil
	}
	over, least, err := a.excess(a.uniform(a.candidates[0]))
	if err != nil || over <= 0 {
		return err
	}
	return a.outOfReach(least)
}

// outOfReach is the error of a target that is less than the least that the model can take.
func (a *allocator) outOfReach(least size) error {
	with := fmt.Sprintf("%s throughout", a.candidates[0])
	if len(a.o.Layers) > 0 {
		with = fmt.Sprintf("%s wherever --layer prescribes nothing", a.candidates[0])
	}
	if a.o.TargetBytes != 0 {
		return usage(fmt.Errorf("--target-size %d cannot be met: with %s the model may take %d bytes", a.o.TargetBytes, with, least.bytes),
			"ask for more; `cosetq inspect %s` shows what else is in the file", a.m.Path())
	}
	return usage(fmt.Errorf("--target-bpw %v cannot be met: with %s it is %.3f bits per weight", a.o.TargetBits, with, least.bitsPerWeight()), "ask for more")
}

// fit returns the best point of the frontier within the target of bits or bytes.
func (a *allocator) fit() (int, error) {
	over, least, err := a.excess(a.codecsAt(0))
	if err != nil {
		return 0, err
	}
	if over > 0 {
		return 0, a.outOfReach(least)
	}
	// What the layers do not account for is about the same everywhere. Where it is not, the budget is cut until it fits.
	budget := a.frontier.Point(0).Bytes - over
	for {
		at := a.frontier.Within(budget)
		if at <= 0 {
			return 0, nil
		}
		over, s, err := a.excess(a.codecsAt(at))
		if err != nil {
			return 0, err
		}
		if over <= 0 {
			if at == a.frontier.Len()-1 {
				a.r.Notes = append(a.r.Notes, fmt.Sprintf("the target is not used up: the finest codecs take %.3f bits per weight, %s in all", s.bitsPerWeight(), Size(s.bytes)))
			}
			return at, nil
		}
		budget = a.frontier.Point(at).Bytes - over
	}
}

// describeUniform reports what one codec for all layers would lose.
func (a *allocator) describeUniform() error {
	for c, codec := range a.candidates {
		u := UniformLoss{Codec: codec.String()}
		for _, options := range a.options {
			if len(options) > 0 {
				u.PredictedLoss += options[min(c, len(options)-1)].Loss
			}
		}
		s, err := a.sizeOf(a.uniform(codec))
		if err != nil {
			return err
		}
		u.BitsPerWeight = s.bitsPerWeight()
		a.report.Uniform = append(a.report.Uniform, u)
	}
	return nil
}
