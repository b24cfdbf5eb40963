package models

import (
	"runtime"
	"sync"
)

// Side is the width and height of a digit image in pixels.
const Side = 28

// Pixels is the number of pixels of an image, and so of the inputs of the classifier.
const Pixels = Side * Side

// Digits is a set of digit images with their labels, 0 to 9.
type Digits struct {
	Images []byte // Pixels per image, row by row, 0 is black
	Labels []byte
}

// Len is the number of images.
func (d Digits) Len() int { return len(d.Labels) }

// Image is the i-th image.
func (d Digits) Image(i int) []byte { return d.Images[i*Pixels:][:Pixels] }

// The parts of the data set. Each has its own seed, so that no image stands in two of them.
const (
	seedTrain = 1
	seedCalib = 2
	seedTest  = 3
)

// Sizes of the stored parts.
const (
	TestImages  = 2000
	CalibImages = 500
)

// TestSet draws the held-out images that the classifier is judged by.
func TestSet() (Digits, error) { return draw(seedTest, 0, TestImages) }

// CalibSet draws the images to calibrate with. They come from the same distribution as the held-out ones.
func CalibSet() (Digits, error) { return draw(seedCalib, 0, CalibImages) }

// draw makes the images first … first+n-1 of an endless, reproducible sequence. It makes the same bytes on every
// machine, with any number of threads.
func draw(seed uint64, first, n int) (Digits, error) {
	faces, err := typefaces()
	if err != nil {
		return Digits{}, err
	}
	d := Digits{Images: make([]byte, n*Pixels), Labels: make([]byte, n)}
	inParallel(n, func(lo, hi int) {
		p := newPainter(faces)
		for i := lo; i < hi; i++ {
			d.Labels[i] = p.paint(d.Image(i), newRandom(seed, uint64(first+i)))
		}
	})
	return d, nil
}

// inParallel calls do with ranges that together are 0 … n-1.
func inParallel(n int, do func(lo, hi int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { do(n*w/workers, n*(w+1)/workers) })
	}
	wg.Wait()
}

// A painter draws single images; it holds the space that it needs for one.
type painter struct {
	faces           []typeface
	drawn, softened []float64
}

func newPainter(faces []typeface) *painter {
	return &painter{faces, make([]float64, Pixels), make([]float64, Pixels)}
}

// paint draws one digit of random value, typeface, position, stroke and noise, and tells its value. The ranges are wide
// enough that a good classifier gets some wrong: with all answers right, one could not see what quantization loses.
func (p *painter) paint(dst []byte, r random) (label byte) {
	digit := r.below(10)
	face := r.below(len(p.faces))
	p.faces[face][digit].transformed(distortion(r)).fill(p.drawn, Side)

	// Blurring and then stretching the contrast about a threshold makes strokes thicker or thinner.
	blur(p.softened, p.drawn, Side)
	threshold := r.between(0.15, 0.55)
	sharpness := r.between(1.5, 4)
	ink := r.between(0.35, 1)
	paper := r.between(-0.3, 0.1)
	grain := r.between(0.02, 0.22)
	for i, v := range p.softened {
		stroke := min(max(float64((v-threshold)*sharpness)+0.5, 0), 1)
		dst[i] = shade(paper + float64((ink-paper)*stroke) + float64(grain*r.normal()))
	}
	return byte(digit)
}

// distortion is a random change of size, width, slant, angle and place, in pixels of the image.
func distortion(r random) affine {
	height := r.between(13, 23)
	width := float64(height * r.between(0.75, 1.25))
	slant := r.between(-0.35, 0.35)
	// A rotation by 2·atan(t), up to ±23°: the rational form needs no sine, whose last bit differs between machines.
	t := r.between(-0.2, 0.2)
	t2 := float64(t * t)
	cos, sin := (1-t2)/(1+t2), 2*t/(1+t2)
	// Rotation · [width, slant·height; 0, height].
	lean := float64(slant * height)
	return affine{
		a: float64(cos * width), b: float64(cos*lean) - float64(sin*height),
		c: float64(sin * width), d: float64(sin*lean) + float64(cos*height),
		dx: Side/2 + r.between(-3.5, 3.5), dy: Side/2 + r.between(-3.5, 3.5),
	}
}
