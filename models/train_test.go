package models

import (
	"math"
	"testing"
)

// A few steps of training lower the loss well below that of guessing.
func TestTrainingLearns(t *testing.T) {
	trainer := newTrainer()
	test, err := draw(seedTest, 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	steps := 60
	if testing.Short() {
		steps = 3 // enough for the race detector to see everything
	}
	for step := range steps {
		batch, err := draw(seedTrain, step*batchSize, batchSize)
		if err != nil {
			t.Fatal(err)
		}
		trainer.step(batch, learnRate)
	}
	if got := trainer.model.Correct(test); !testing.Short() && got < 100 {
		t.Errorf("%d of 200 right after %d steps", got, steps)
	}
}

// The gradient that one step applies is the derivative of the loss, measured by moving single weights.
func TestGradient(t *testing.T) {
	if testing.Short() {
		t.Skip("many forward passes; a matter of arithmetic, not of concurrency")
	}
	batch, err := draw(seedTrain, 0, batchSize)
	if err != nil {
		t.Fatal(err)
	}
	trainer := newTrainer()
	loss := func() float64 {
		var sum float64
		p := make([]float32, classes)
		for i := range batch.Len() {
			softmax(p, trainer.model.Logits(batch.Image(i)))
			sum -= math.Log(float64(p[batch.Labels[i]]))
		}
		return sum / batchSize
	}
	for i := range trainer.samples {
		trainer.samples[i].setImage(batch.Image(i))
		trainer.backward(i, int(batch.Labels[i]))
	}
	for layer := range trainer.model.layers {
		l := &trainer.model.layers[layer]
		trainer.update(layer, 0)
		velocity := trainer.velocity.layers[layer].w // after one step from rest: the gradient itself
		steepest := 0
		for j, v := range velocity {
			if math.Abs(float64(v)) > math.Abs(float64(velocity[steepest])) {
				steepest = j
			}
		}
		const h = 2e-3 // small, so that few samples cross the kink of a ReLU
		was := l.w[steepest]
		l.w[steepest] = was + h
		above := loss()
		l.w[steepest] = was - h
		below := loss()
		l.w[steepest] = was
		want, got := (above-below)/(2*h), float64(velocity[steepest])
		if math.Abs(got-want) > 0.02*math.Abs(want) {
			t.Errorf("layer %d: gradient %g, measured %g", layer, got, want)
		}
	}
}

func TestExp(t *testing.T) {
	for x := -39.9; x <= 0; x += 0.05 {
		if got, want := exp(x), math.Exp(x); math.Abs(got/want-1) > 1e-9 {
			t.Errorf("exp(%g) = %g, want %g", x, got, want)
		}
	}
}
