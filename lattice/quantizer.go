package lattice

import (
	"fmt"
	"math"
	"slices"
)

// Config describes a Quantizer. The zero value of every field but Lattice and Radices is the default.
type Config struct {
	// Lattice is Λ.
	Lattice Lattice
	// Radices are the q of every level, finest first; Uniform(q, M) gives the paper's.
	Radices []int
	// Beta is the scale: the vector x/Beta is moved to a lattice point. Default 1.
	Beta float64
	// Gains, if any, are factors of Beta of which every vector takes the one with the least error. They take the place
	// of scaling, so DisableScaling must be set.
	Gains []float64
	// Alpha is the exponent of geometric scaling: an overloading vector is coded at the scale Beta·2^(Alpha·T) with the
	// least T at which it fits. Default 1/3, the paper's; Coset's is 1.
	Alpha float64
	// MaxScalingIterations is the largest T. Default 10. A vector that overloads even there is clamped.
	MaxScalingIterations int
	// Uncentred leaves the code where the leaders put it, as the paper does. By default its mean is moved to 0.
	Uncentred bool
	// TieDither adds the fixed tiny vector of the tie rule before rounding, as the paper's authors do. It only decides
	// sources that lie exactly between lattice points.
	TieDither bool
	// Dither adds before rounding, and subtracts after decoding, a pseudo-random vector uniform on the Voronoi cell, drawn from
	// Seed and the index of the vector. The error is then independent of the source.
	Dither bool
	// Seed selects the dither.
	Seed uint64
	// DisableScaling keeps T = 0: an overloading vector is clamped along its ray towards the code's centre.
	DisableScaling bool
	// DisableOverloadProtection keeps T = 0 and lets an overloading vector wrap to a far point of the code.
	DisableOverloadProtection bool
}

// Uniform returns M = levels equal radices q.
func Uniform(q, levels int) []int { return slices.Repeat([]int{q}, max(levels, 0)) }

// Code is one vector coded by a Quantizer.
type Code struct {
	// Classes holds the class index of every level, finest first; Lattice.Digits splits one into d digits 0 … q−1.
	Classes []uint32
	// T is the number of scalings, and Gain the index of the gain.
	T, Gain int
	// Overload says that the vector did not fit at the scale it was coded at: it was clamped, or it wrapped.
	Overload bool
	// Index is the number of the vector in its batch, which selects its dither.
	Index uint64
}

// Quantizer is the HNLQ code of single vectors in float64. It is immutable and safe for concurrent use.
type Quantizer struct {
	config  Config
	dim     int
	unit    float64
	means   [][]float64 // [level][d], the level's share of the centre in real coordinates
	centre  []float64   // [d], the sum of means
	gains   []float64
	leaders []*Leaders // nil entries are computed on the fly
	weights []int32
}

const (
	// maxQuantizerClasses bounds q^d, so that a class index fits 32 bits.
	maxQuantizerClasses = 1 << 32
	// maxQuantizerProduct bounds q_0·q_1·…, so that a point's coordinates fit 32 bits.
	maxQuantizerProduct = 1 << 24
	// maxCoordinate bounds what is rounded to a lattice point.
	maxCoordinate = 1 << 28
)

// NewQuantizer checks the configuration and returns its Quantizer. Unlike a Codec's, its radices may be so large that q^d exceeds
// MaxClasses (E8 with q = 16): leaders are then computed when needed, and the centre is estimated from a fixed sample.
func NewQuantizer(config Config) (*Quantizer, error) {
	if config.Beta == 0 {
		config.Beta = 1
	}
	if config.Alpha == 0 {
		config.Alpha = 1.0 / 3
	}
	if config.MaxScalingIterations == 0 {
		config.MaxScalingIterations = 10
	}
	l := config.Lattice
	switch {
	case !positive(config.Beta):
		return nil, fmt.Errorf("lattice: beta %v is not positive and finite", config.Beta)
	case !positive(config.Alpha):
		return nil, fmt.Errorf("lattice: alpha %v is not positive and finite", config.Alpha)
	case config.MaxScalingIterations < 0:
		return nil, fmt.Errorf("lattice: %d scaling iterations: want 0 for the default, or more", config.MaxScalingIterations)
	case len(config.Radices) == 0:
		return nil, fmt.Errorf("lattice: no radices given: want one per level, as in Uniform(4, 2)")
	case len(config.Gains) > 0 && !config.DisableScaling:
		return nil, fmt.Errorf("lattice: gains take the place of scaling: set DisableScaling with them")
	}
	for _, g := range config.Gains {
		if !positive(g) {
			return nil, fmt.Errorf("lattice: gain %v is not positive and finite", g)
		}
	}
	config.Radices, config.Gains = slices.Clone(config.Radices), slices.Clone(config.Gains)
	q := &Quantizer{config: config, dim: l.Dim(), unit: l.Unit(), centre: make([]float64, l.Dim()), gains: config.Gains}
	if len(q.gains) == 0 {
		q.gains = []float64{1}
	}
	product := 1
	for _, radix := range config.Radices {
		if err := l.checkRadix(radix, maxQuantizerClasses); err != nil {
			return nil, err
		}
		if product > maxQuantizerProduct/radix { // before its leaders are asked for: 32 bits hold no larger radix
			return nil, fmt.Errorf("lattice: radices %v multiply to more than %d", config.Radices, maxQuantizerProduct)
		}
		var table *Leaders
		if _, ok := l.classes(radix, MaxClasses); ok {
			table, _ = l.Leaders(radix)
		}
		mean := make([]float64, q.dim)
		if !config.Uncentred {
			for j, m := range l.leaderMean(radix, table) {
				mean[j] = float64(product) * m * q.unit
				q.centre[j] += mean[j]
			}
		}
		q.means = append(q.means, mean)
		q.leaders = append(q.leaders, table)
		q.weights = append(q.weights, int32(product))
		product *= radix
	}
	return q, nil
}

func positive(x float64) bool { return x > 0 && !math.IsInf(x, 1) }

// Encode codes the vector x[:d] as number 0 of a batch. It fails when x has another length or is not finite, or when, without
// overload protection, x exceeds 2^28 scales.
func (q *Quantizer) Encode(x []float64) (Code, error) { return q.EncodeAt(0, x) }

// EncodeAt codes the vector x[:d] as number index of a batch.
func (q *Quantizer) EncodeAt(index uint64, x []float64) (Code, error) {
	if len(x) != q.dim {
		return Code{}, fmt.Errorf("lattice: encode a vector of %d with %v: want %d", len(x), q.config.Lattice, q.dim)
	}
	for j, c := range x {
		if math.IsNaN(c) || math.IsInf(c, 0) {
			return Code{}, fmt.Errorf("lattice: encode: coordinate %d is %v", j, c)
		}
	}
	offset := q.offset(index)
	best := Code{Classes: make([]uint32, len(q.leaders)), Index: index}
	if len(q.gains) == 1 {
		return best, q.encodeScaled(&best, x, &offset)
	}
	least := math.Inf(1)
	for g := range q.gains {
		code := Code{Classes: make([]uint32, len(q.leaders)), Index: index, Gain: g}
		if err := q.encodeScaled(&code, x, &offset); err != nil {
			return Code{}, err
		}
		var decoded [MaxDim]float64
		q.decode(decoded[:q.dim], code, 0)
		var e float64
		for j, c := range x {
			e += (c - decoded[j]) * (c - decoded[j])
		}
		if e < least {
			best, least = code, e
		}
	}
	return best, nil
}

// encodeScaled codes x with the gain of code, by the configured handling of overload.
func (q *Quantizer) encodeScaled(code *Code, x []float64, offset *[MaxDim]float64) error {
	for {
		ok, inRange := q.encodeShrunk(code, x, offset, 1)
		if ok {
			return nil
		}
		if q.config.DisableOverloadProtection {
			if !inRange {
				return fmt.Errorf("lattice: encode %v: more than 2^28 scales without overload protection", x)
			}
			code.Overload = true
			return nil
		}
		if q.config.DisableScaling || code.T == q.config.MaxScalingIterations {
			break
		}
		code.T++
	}
	code.Overload = true
	q.clampRay(code, x, offset)
	return nil
}

// clampRay codes s·x with the largest s in [0, 1] that bisection finds to fit; failing all, the point 0, which every code has.
func (q *Quantizer) clampRay(code *Code, x []float64, offset *[MaxDim]float64) {
	const halvings = 40 // enough to come from 2^28 scales to the code and then within 0.1 %
	low, high := 0.0, 1.0
	for range halvings {
		if s := (low + high) / 2; q.fits(code, x, offset, s) {
			low = s
		} else {
			high = s
		}
	}
	if !q.fits(code, x, offset, low) {
		clear(code.Classes)
	}
}

func (q *Quantizer) fits(code *Code, x []float64, offset *[MaxDim]float64, shrink float64) bool {
	ok, _ := q.encodeShrunk(code, x, offset, shrink)
	return ok
}

// encodeShrunk writes the classes of the point nearest to shrink·x/scale + offset, and reports whether that point is in the
// code, and whether it could be rounded at all. x is divided before the offset is added, so that scaling leaves dither and centre alone.
func (q *Quantizer) encodeShrunk(code *Code, x []float64, offset *[MaxDim]float64, shrink float64) (ok, inRange bool) {
	scale := q.scale(code)
	var y [MaxDim]float64
	for j, c := range x {
		y[j] = shrink*(c/scale) + offset[j]
		if !(math.Abs(y[j]) <= maxCoordinate) {
			return false, false
		}
		if q.config.TieDither {
			y[j] += tieBreak[j]
		}
	}
	var v, leader [MaxDim]int32
	q.config.Lattice.Nearest(v[:], y[:])
	for m, radix := range q.config.Radices {
		k := q.config.Lattice.Class(v[:], radix)
		code.Classes[m] = k
		q.leader(leader[:], m, k)
		for j := range q.dim {
			v[j] = (v[j] - leader[j]) / int32(radix)
		}
	}
	return v == [MaxDim]int32{}, true
}

// scale returns β·gain·2^(αT).
func (q *Quantizer) scale(code *Code) float64 {
	return q.config.Beta * q.gains[code.Gain] * math.Exp2(q.config.Alpha*float64(code.T))
}

// leader writes to dst[:d] the leader of a class of a level.
func (q *Quantizer) leader(dst []int32, level int, k uint32) {
	if t := q.leaders[level]; t != nil {
		copy(dst, t.At(int(k)))
		return
	}
	q.config.Lattice.leaderOf(dst, k, q.config.Radices[level])
}

// Decode writes to dst[:d] the vector of a code. It fails when dst has another length or the code is not one of this
// Quantizer.
func (q *Quantizer) Decode(dst []float64, code Code) error { return q.DecodeCoarse(dst, code, 0) }

// DecodeCoarse decodes from the coarse levels alone, ignoring the levels below from (successive refinement): the classes of
// the ignored levels may be anything. from = 0 decodes everything.
func (q *Quantizer) DecodeCoarse(dst []float64, code Code, from int) error {
	l := q.config.Lattice
	switch {
	case len(dst) != q.dim:
		return fmt.Errorf("lattice: decode into a vector of %d with %v: want %d", len(dst), l, q.dim)
	case len(code.Classes) != len(q.leaders) || from < 0 || from > len(q.leaders):
		return fmt.Errorf("lattice: decode %d levels from level %d: the code has %d", len(code.Classes), from, len(q.leaders))
	case code.T < 0 || code.T > q.config.MaxScalingIterations || code.Gain < 0 || code.Gain >= len(q.gains):
		return fmt.Errorf("lattice: decode: T %d or gain index %d is out of range", code.T, code.Gain)
	}
	for m, k := range code.Classes[from:] {
		if n, _ := l.classes(q.config.Radices[from+m], maxQuantizerClasses); uint64(k) >= n {
			return fmt.Errorf("lattice: decode level %d: class index %d of %d classes", from+m, k, n)
		}
	}
	q.decode(dst, code, from)
	return nil
}

// decode is DecodeCoarse of a valid code. An ignored level counts with its mean.
func (q *Quantizer) decode(dst []float64, code Code, from int) {
	var v, leader [MaxDim]int32
	offset := q.offset(code.Index)
	for m := range q.leaders {
		if m < from {
			for j, mean := range q.means[m] {
				offset[j] -= mean
			}
			continue
		}
		q.leader(leader[:], m, code.Classes[m])
		for j := range q.dim {
			v[j] += q.weights[m] * leader[j]
		}
	}
	scale := q.scale(&code)
	for j := range dst {
		dst[j] = scale * (float64(v[j])*q.unit - offset[j])
	}
}

// Quantize writes to dst[:d] the vector that x[:d] decodes to. dst may be x.
func (q *Quantizer) Quantize(dst, x []float64) error {
	code, err := q.Encode(x)
	if err != nil {
		return err
	}
	return q.Decode(dst, code)
}
