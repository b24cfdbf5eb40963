package calib

import "math"

// maxSide bounds the sides of pictures, in pixels.
const maxSide = 1 << 15

// bitmap is an 8-bit picture: rows of pixels of interleaved channels.
type bitmap struct {
	width, height, channels int
	pix                     []byte
}

// filter is a resampling kernel, zero beyond support.
type filter struct {
	support float64
	weight  func(x float64) float64
}

var filters = map[string]filter{
	"":         {2, cubic},
	"bicubic":  {2, cubic},
	"bilinear": {1, func(x float64) float64 { return max(0, 1-math.Abs(x)) }},
}

// cubic is Keys' kernel with a = −1/2, as in Pillow.
func cubic(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

// resize scales a picture as Pillow does, to the bit: horizontally, then vertically, each pass in fixed point and
// rounded to bytes. With antialias the kernel widens when shrinking; without it only the nearest pixels count.
func resize(b bitmap, width, height int, f filter, antialias bool) bitmap {
	if width != b.width {
		b = resample(b, width, f, antialias, true)
	}
	if height != b.height {
		b = resample(b, height, f, antialias, false)
	}
	return b
}

// fixedPoint is the number of fraction bits of weights: 8 bits of value, 2 of headroom in 32, as in Pillow.
const fixedPoint = 32 - 8 - 2

// window is the weights of the input pixels from first on that make one output pixel.
type window struct {
	first   int
	weights []int32
}

func windows(in, out int, f filter, antialias bool) []window {
	scale := float64(in) / float64(out)
	stretch := 1.0
	if antialias {
		stretch = max(scale, 1)
	}
	support := f.support * stretch
	ws := make([]window, out)
	for i := range ws {
		center := (float64(i) + 0.5) * scale
		first := max(int(center-support+0.5), 0)
		last := min(int(center+support+0.5), in)
		weights := make([]float64, max(last-first, 0))
		sum := 0.0
		for j := range weights {
			weights[j] = f.weight((float64(j+first) - center + 0.5) / stretch)
			sum += weights[j]
		}
		ws[i] = window{first, make([]int32, len(weights))}
		for j, w := range weights {
			if sum != 0 {
				w /= sum
			}
			ws[i].weights[j] = int32(math.Floor(w*(1<<fixedPoint) + 0.5))
			if w < 0 {
				ws[i].weights[j] = int32(math.Ceil(w*(1<<fixedPoint) - 0.5))
			}
		}
	}
	return ws
}

// resample scales one side of a picture to size.
func resample(b bitmap, size int, f filter, antialias, horizontal bool) bitmap {
	out := bitmap{width: b.width, height: size, channels: b.channels}
	in, step, lines, lineStep := b.height, b.width*b.channels, b.width*b.channels, 1
	outStep, outLine := step, 1
	if horizontal {
		out.width, out.height = size, b.height
		in, step = b.width, b.channels
		lines, outStep = b.height*b.channels, b.channels
	}
	out.pix = make([]byte, out.width*out.height*out.channels)
	ws := windows(in, size, f, antialias)
	for l := range lines {
		src, dst := l*lineStep, l*outLine
		if horizontal { // line l is channel l % channels of row l / channels
			row, channel := l/b.channels, l%b.channels
			src, dst = row*b.width*b.channels+channel, row*size*b.channels+channel
		}
		for i, w := range ws {
			sum := int64(1) << (fixedPoint - 1)
			for j, k := range w.weights {
				sum += int64(k) * int64(b.pix[src+(w.first+j)*step])
			}
			out.pix[dst+i*outStep] = byte(min(max(sum>>fixedPoint, 0), 255))
		}
	}
	return out
}

// crop cuts out the central square of the given side.
func crop(b bitmap, side int) bitmap {
	left := int(math.RoundToEven(float64(b.width-side) / 2))
	top := int(math.RoundToEven(float64(b.height-side) / 2))
	out := bitmap{width: side, height: side, channels: b.channels, pix: make([]byte, 0, side*side*b.channels)}
	for y := top; y < top+side; y++ {
		from := (y*b.width + left) * b.channels
		out.pix = append(out.pix, b.pix[from:from+side*b.channels]...)
	}
	return out
}
