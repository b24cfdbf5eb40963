package lattice

// Feedback is what rounding with feedback (LDLQ, see package quant) knows of the inputs of one weight. Places stand in the order
// of coding, 8 to a group; groups are coded last to first.
type Feedback struct {
	Groups int
	// Lower is the block unit-lower factor L of the Hessian, [8·Groups × 8·Groups] row-major: an error e_p moves place q of an
	// earlier group by e_p·L_pq. Nil moves nothing.
	Lower []float32
	// Metrics holds for each group two matrices [8 × 8]: the lower Cholesky factor of its metric, and what errors of a block move
	// the earlier blocks of the group by.
	Metrics []float32
}

// MetricGroups is work for a [MetricCoder]: one group of each of len(Steps) rows.
type MetricGroups struct {
	X       []float32 // [rows][8], what is to be coded: finite, and below 2^40 steps
	Steps   []float32 // [rows]; 0 codes zeros
	Metric  []float32 // [2][8 × 8], one of Feedback.Metrics
	Indices []uint16  // [rows][level][block]
	Gains   []uint8   // [rows]
	Weights []float32 // [rows][8], what the codes stand for
	Losses  []float32 // [rows], (X − Weights)·M·(X − Weights)ᵀ
}

// MetricCoder codes groups in a metric, as package quant does, bit for bit.
type MetricCoder interface {
	// EncodeInMetric fills in Indices, Gains, Weights and Losses. It may be called from several goroutines.
	EncodeInMetric(g MetricGroups) error
}

// FeedbackRows is what comes of rows coded with feedback; rows of places are in the order of coding.
type FeedbackRows struct {
	Indices []uint16  // [rows][group][level][block]
	Gains   []uint8   // [rows][group]
	Errors  []float32 // weights less coded weights, [rows × places]
	Losses  []float64 // of each row in the metrics; +Inf where feedback ran away
}

// FeedbackCoder codes rows of one weight with feedback, as package quant does, bit for bit.
type FeedbackCoder interface {
	// CodeRows codes len(steps) rows of weights and fills in all of r. It may be called from several goroutines.
	CodeRows(r FeedbackRows, weights, steps []float32) error
}

// FeedbackDevice is a [RowCoder] on a device that also codes with feedback.
type FeedbackDevice interface {
	RowCoder
	WithFeedback(f Feedback) (FeedbackCoder, error)
}
