package cosetq

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// leastToHalve is the number of samples from which on halves of them are compared.
const leastToHalve = 16

// everyOther gives the samples at even places first: halves of data in some order then are alike.
type everyOther struct{ calib.Reader }

func (r everyOther) Sample(i int) (*calib.Sample, error) {
	if even := (r.Len() + 1) / 2; i >= even {
		return r.Reader.Sample(2*(i-even) + 1)
	}
	return r.Reader.Sample(2 * i)
}

// damp finds, for every matrix of moments, the damping with which what half of the data says does best on the rest. All of the data
// could do with less by that reckoning, but codes no better with it (docs/calibration.md).
func (c *calibration) damp(ctx context.Context, all, half *calib.Statistics) error {
	var pairs [][2]*calib.Observation
	for _, o := range all.Observations {
		pairs = append(pairs, [2]*calib.Observation{o, half.Find(o.Tag)})
	}
	for _, o := range all.Gradients {
		pairs = append(pairs, [2]*calib.Observation{o, half.Gradient(o.Tag)})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.threads)
	for _, p := range pairs {
		o, part := p[0], p[1]
		if !o.Full || part == nil || part.Rows == 0 || part.Rows == o.Rows {
			continue
		}
		group.Go(caught(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			train, test, err := divided(o, part, c.corrected[o.Tag])
			if err != nil {
				return err
			}
			o.Damping, err = quant.CrossDamping(train, test, c.products, 1)
			return err
		}))
	}
	return group.Wait()
}

// mostCompared bounds the columns that halves are compared in: of more of them, some spread evenly tell what they all need.
const mostCompared = 512

// comparedColumns is which of k columns halves are compared in.
func comparedColumns(k int) []int {
	columns := make([]int, min(k, mostCompared))
	for i := range columns {
		columns[i] = i * k / len(columns)
	}
	return columns
}

// divided returns the moments of a part of the rows of o, and of the rest, in the columns that are compared.
func divided(o, part *calib.Observation, corrected bool) (train, test *quant.Hessian, err error) {
	columns := comparedColumns(o.Columns)
	k := len(columns)
	train, test = &quant.Hessian{K: k, Samples: part.Rows}, &quant.Hessian{K: k, Samples: o.Rows - part.Rows}
	of, to := float64(o.Rows)/float64(test.Samples), float64(part.Rows)/float64(test.Samples)
	if train.Moments, err = part.Submatrix(columns); err != nil {
		return nil, nil, err
	}
	if test.Moments, err = o.Submatrix(columns); err != nil {
		return nil, nil, err
	}
	for i, v := range train.Moments {
		test.Moments[i] = of*test.Moments[i] - to*v
	}
	silence(test, train)
	if !corrected {
		return train, test, nil
	}
	mean, err := o.Mean()
	if err != nil {
		return nil, nil, err
	}
	meanOfPart, err := part.Mean()
	if err != nil {
		return nil, nil, err
	}
	weight := of*o.Weight - to*part.Weight
	train.Mean, test.Mean = make([]float64, k), make([]float64, k)
	for i, c := range columns {
		train.Mean[i] = meanOfPart[c]
		if test.Moments[i*k+i] > 0 {
			test.Mean[i] = (of*o.Weight*mean[c] - to*part.Weight*meanOfPart[c]) / weight
		}
	}
	centre(train, part.Weight)
	centre(test, weight)
	return train, test, nil
}

// silence clears the columns of rest of which hardly more is left than the rounding of float32, beside what part has.
func silence(rest, part *quant.Hessian) {
	const rounding = 1e-6
	k := rest.K
	for i := range k {
		if rest.Moments[i*k+i] > rounding*part.Moments[i*k+i] {
			continue
		}
		for j := range k {
			rest.Moments[i*k+j], rest.Moments[j*k+i] = 0, 0
		}
	}
}

// inputsOf counts the activations that each weight is multiplied by.
func inputsOf(points []rewrite.Observation, sites []rewrite.Site) map[*rewrite.Weight]int {
	inputs := map[*rewrite.Weight]int{}
	for _, p := range points {
		seen := map[*rewrite.Weight]bool{}
		for _, i := range p.Sites {
			if w := sites[i].Weight; w != nil && !seen[w] {
				seen[w] = true
				inputs[w]++
			}
		}
	}
	return inputs
}

// correctedTags lists the activations that only layers with a bias read, each of a weight of its own: see [hessians.corrects].
func correctedTags(sites []rewrite.Site) map[string]bool {
	points := rewrite.Observations(sites)
	inputs := inputsOf(points, sites)
	tags := map[string]bool{}
	for _, p := range points {
		tags[p.Tag] = true
		for _, i := range p.Sites {
			s := &sites[i]
			if s.Weight != nil && (!s.HasBias() || inputs[s.Weight] > 1) {
				tags[p.Tag] = false
			}
		}
	}
	return tags
}
