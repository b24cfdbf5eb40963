package cosetq

import (
	"github.com/cosetq/cosetq/ort"
)

// gathered is what Observe nodes add up: in the native library and, where a calibration runs on the GPU, in the GPU library too.
// There, nodes that the provider cannot have run on the processor. The native library is the first.
type gathered []*ort.Observations

// openGathered opens the libraries that observe, which start from nothing.
func openGathered(libraries ...string) (gathered, error) {
	var g gathered
	for _, library := range libraries {
		o, err := ort.OpenObservations(library)
		if err != nil {
			return nil, err
		}
		g = append(g, o)
	}
	g.reset()
	return g, nil
}

func (g gathered) reset() {
	for _, o := range g {
		o.ResetAll()
	}
}

// holders lists for each tag the libraries that have rows of it.
func (g gathered) holders() (map[string]gathered, error) {
	holders := map[string]gathered{}
	for _, o := range g {
		tags, err := o.Tags()
		if err != nil {
			return nil, err
		}
		for _, tag := range tags {
			holders[tag] = append(holders[tag], o)
		}
	}
	return holders, nil
}

// get describes what all of them have under a tag.
func (g gathered) get(tag string) (all ort.Observation, err error) {
	for i, o := range g {
		about, err := o.Get(tag)
		switch {
		case err != nil:
			return all, err
		case i == 0 || all.Rows == 0:
			about.BadRows += all.BadRows
			all = about
			continue
		case about.Rows > 0:
			all.Min, all.Max = min(all.Min, about.Min), max(all.Max, about.Max)
		}
		all.Rows, all.BadRows, all.Weight = all.Rows+about.Rows, all.BadRows+about.BadRows, all.Weight+about.Weight
	}
	return all, nil
}

// gatheredMoments reads means from the sums that libraries hold.
type gatheredMoments struct {
	from gathered // those that have the tag
	tag  string
	rows int64 // 0: nothing was gathered, all is zero
}

func (g gatheredMoments) Mean(dst []float32) error {
	return g.divide(dst, func(o *ort.Observations, sums []float64) error { return o.Sums(g.tag, sums) })
}

func (g gatheredMoments) Rows(dst []float32, first, last int) error {
	return g.divide(dst, func(o *ort.Observations, sums []float64) error { return o.Moments(g.tag, first, last, sums) })
}

func (g gatheredMoments) divide(dst []float32, read func(o *ort.Observations, sums []float64) error) error {
	if g.rows == 0 {
		clear(dst)
		return nil
	}
	total, sums := make([]float64, len(dst)), make([]float64, len(dst))
	for i, o := range g.from {
		into := sums
		if i == 0 {
			into = total
		}
		if err := read(o, into); err != nil {
			return err
		}
		for j := 0; i > 0 && j < len(total); j++ {
			total[j] += sums[j]
		}
	}
	for i, v := range total {
		dst[i] = float32(v / float64(g.rows))
	}
	return nil
}
