package lattice

// Arithmetic holds what another implementation of the encoder needs besides the tables of a codec, see [Encoder].
type Arithmetic struct {
	// ReachOne and ReachTwo bound the points of the code: one coordinate's magnitude, and the sum of two.
	ReachOne, ReachTwo float32
	// RayShrink is the ratio of successive trials along the ray, MaxRefinements the number of moves that follow.
	RayShrink      float32
	MaxRefinements int
	// MaxOverloads is the number of overloading gains after which smaller ones are not tried.
	MaxOverloads int
	// MaxSteps bounds the magnitude of a weight in steps.
	MaxSteps float32
}

// Arithmetic returns the constants of the codec's encoder.
func (c *Codec) Arithmetic() Arithmetic {
	return Arithmetic{
		ReachOne: c.reach.one, ReachTwo: c.reach.two,
		RayShrink: rayShrink, MaxRefinements: maxRefinements, MaxOverloads: maxOverloads, MaxSteps: maxSteps,
	}
}
