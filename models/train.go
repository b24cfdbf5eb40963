package models

import "math"

// Settings of the training. Every image is drawn anew, so there are no epochs.
const (
	trainSteps = 3500
	batchSize  = 64
	learnRate  = 0.06 // falls to zero in a straight line
	momentum   = 0.9
	seedInit   = 4
)

// Train trains the digits classifier from random weights, by stochastic gradient descent with momentum. It comes to the
// same weights, bit for bit, on every machine and with any number of threads: sums go in a fixed order, and nothing is
// used that is not exactly rounded. progress, if not nil, is told after every step how many of all are done.
func Train(progress func(done, all int)) (*MLP, error) {
	t := newTrainer()
	for step := range trainSteps {
		batch, err := draw(seedTrain, step*batchSize, batchSize)
		if err != nil {
			return nil, err
		}
		rate := float32(learnRate * (1 - float64(step)/trainSteps))
		t.step(batch, rate)
		if progress != nil {
			progress(step+1, trainSteps)
		}
	}
	return t.model, nil
}

type trainer struct {
	model    *MLP
	velocity *MLP
	samples  [batchSize]activations
	// delta is the derivative of the loss by the outputs of the layers, per sample.
	delta [batchSize]activations
}

func newTrainer() *trainer {
	t := &trainer{model: newMLP(), velocity: newMLP()}
	r := newRandom(seedInit, 0)
	for i := range t.model.layers {
		l := &t.model.layers[i]
		scale := math.Sqrt(2 / float64(l.in))
		for j := range l.w {
			l.w[j] = float32(scale * r.normal())
		}
	}
	for i := range t.samples {
		t.samples[i], t.delta[i] = newActivations(), newActivations()
	}
	return t
}

// step moves the weights by one batch.
func (t *trainer) step(batch Digits, rate float32) {
	inParallel(batchSize, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			t.samples[i].setImage(batch.Image(i))
			t.backward(i, int(batch.Labels[i]))
		}
	})
	for i := range t.model.layers {
		t.update(i, rate)
	}
}

// backward computes the outputs and the deltas of one sample.
func (t *trainer) backward(sample, label int) {
	a, d := &t.samples[sample], &t.delta[sample]
	softmax(d[3], t.model.forward(a))
	d[3][label]--
	for j := range d[3] {
		d[3][j] /= batchSize
	}
	for i := len(t.model.layers) - 1; i > 0; i-- {
		l := &t.model.layers[i]
		for j, v := range a[i] {
			d[i][j] = 0
			if v > 0 { // the derivative of the ReLU
				d[i][j] = dot(l.w[j*l.out:][:l.out], d[i+1])
			}
		}
	}
}

// update adds up the gradient of one layer over the batch and takes the step. Its rows are independent of each other.
func (t *trainer) update(i int, rate float32) {
	l, v := &t.model.layers[i], &t.velocity.layers[i]
	inParallel(l.in, func(lo, hi int) {
		for row := lo; row < hi; row++ {
			velocity := v.w[row*l.out:][:l.out]
			decay(velocity)
			for s := range t.samples {
				if x := t.samples[s][i][row]; x != 0 {
					axpy(velocity, x, t.delta[s][i+1])
				}
			}
			axpy(l.w[row*l.out:][:l.out], -rate, velocity)
		}
	})
	decay(v.b)
	for s := range t.delta {
		axpy(v.b, 1, t.delta[s][i+1])
	}
	axpy(l.b, -rate, v.b)
}

func decay(velocity []float32) {
	for j := range velocity {
		velocity[j] *= momentum
	}
}

// dot sums four interleaved partial sums: one alone would wait for every addition to finish.
func dot(x, y []float32) float32 {
	y = y[:len(x)]
	var s [4]float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s[0] += float32(x[i] * y[i])
		s[1] += float32(x[i+1] * y[i+1])
		s[2] += float32(x[i+2] * y[i+2])
		s[3] += float32(x[i+3] * y[i+3])
	}
	for ; i < len(x); i++ {
		s[0] += float32(x[i] * y[i])
	}
	return s[0] + s[1] + (s[2] + s[3])
}

// softmax turns logits into probabilities.
func softmax(dst, logits []float32) {
	top := logits[argmax(logits)]
	var sum float64
	for i, v := range logits {
		e := exp(float64(v) - float64(top))
		dst[i] = float32(e)
		sum += e
	}
	for i := range dst {
		dst[i] = float32(float64(dst[i]) / sum)
	}
}

// exp is eˣ for x ≤ 0 to about 1e-12, in operations that every processor rounds alike (math.Exp is written in assembly
// on some): (1 + y + y²/2 + …)^(2⁶) with y = x/2⁶.
func exp(x float64) float64 {
	if x < -40 {
		return 0 // below the rounding of a probability
	}
	y := x / 64
	sum, term := 1.0, 1.0
	for k := 1; k <= 14; k++ {
		term = term * y / float64(k)
		sum += term
	}
	for range 6 {
		sum *= sum
	}
	return sum
}
