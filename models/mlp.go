package models

import "fmt"

// hidden and output sizes of the digits classifier; its input is an image of Pixels numbers.
const (
	hidden1 = 256
	hidden2 = 128
	classes = 10
)

// A layer is y = x·W + B.
type layer struct {
	in, out int
	w       []float32 // [in × out], row-major
	b       []float32 // [out]
}

// apply computes y = x·W + B. It goes by rows of W, so that the zeros of an image or of a ReLU cost nothing, and every
// output is summed in one order, whatever machine it runs on. The conversions keep products from being fused with sums.
func (l *layer) apply(y, x []float32) {
	copy(y, l.b)
	for i, v := range x {
		if v != 0 {
			axpy(y, v, l.w[i*l.out:][:l.out])
		}
	}
}

// axpy adds a·x to dst.
func axpy(dst []float32, a float32, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += float32(a * x[i])
	}
}

// An MLP is the digits classifier: three layers, with a ReLU after the first two.
type MLP struct{ layers [3]layer }

func newMLP() *MLP {
	sizes := [...]int{Pixels, hidden1, hidden2, classes}
	var m MLP
	for i := range m.layers {
		in, out := sizes[i], sizes[i+1]
		m.layers[i] = layer{in, out, make([]float32, in*out), make([]float32, out)}
	}
	return &m
}

// activations are the values of one sample, from the input to the logits.
type activations [4][]float32

func newActivations() activations {
	return activations{make([]float32, Pixels), make([]float32, hidden1), make([]float32, hidden2), make([]float32, classes)}
}

// setImage scales the pixels of an image to [0, 1], as the recipes do.
func (a *activations) setImage(image []byte) {
	for i, v := range image {
		a[0][i] = float32(float64(v) * pixelScale)
	}
}

// pixelScale takes a byte to [0, 1]. The recipes say the same.
const pixelScale = 1.0 / 255

func (m *MLP) forward(a *activations) (logits []float32) {
	for i := range m.layers {
		m.layers[i].apply(a[i+1], a[i])
		if i < len(m.layers)-1 {
			for j, v := range a[i+1] {
				a[i+1][j] = max(v, 0)
			}
		}
	}
	return a[len(m.layers)]
}

// Logits computes the classifier's ten outputs for one image in plain Go: the truth that runtimes are held against.
func (m *MLP) Logits(image []byte) []float32 {
	if len(image) != Pixels {
		panic(fmt.Sprintf("models: an image has %d pixels, not %d", Pixels, len(image)))
	}
	a := newActivations()
	a.setImage(image)
	return m.forward(&a)
}

// Correct counts the images whose label has the largest logit.
func (m *MLP) Correct(d Digits) int {
	right := make([]int, d.Len())
	inParallel(d.Len(), func(lo, hi int) {
		a := newActivations()
		for i := lo; i < hi; i++ {
			a.setImage(d.Image(i))
			if argmax(m.forward(&a)) == int(d.Labels[i]) {
				right[i] = 1
			}
		}
	})
	sum := 0
	for _, r := range right {
		sum += r
	}
	return sum
}

func argmax(v []float32) int {
	best := 0
	for i := range v {
		if v[i] > v[best] {
			best = i
		}
	}
	return best
}
