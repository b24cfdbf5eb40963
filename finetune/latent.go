package finetune

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/tensor"
)

// latent is a quantized weight in training.
type latent struct {
	Weight
	recoder *quant.Recoder
	n, k    int
	u       []float32      // latent weights [N × K]
	w       []float32      // what their codes decode to
	values  *tensor.Tensor // w as the graph's input
	g       []float32      // gradient of the step
	opt     adam
	blur    float64 // rms distance between weights and codes, relative to the rms of the weights
	unit    float64 // the same in the unit of the weights: what learning rates are relative to

	logScale []float64 // natural logarithm of every scale, unrounded
	scaleOpt adam
	dot      []float64 // Σ g·w of every row
	square   []float64 // Σ g² of every row
}

func newLatent(w Weight) (*latent, error) {
	l := &latent{Weight: w}
	var err error
	if l.recoder, err = quant.NewRecoder(w.Matrix, w.Coder); err != nil {
		return nil, err
	}
	l.n, l.k = l.recoder.Dims()
	l.w = make([]float32, l.n*l.k)
	l.values = tensor.Of(l.w, int64(l.n), int64(l.k))
	l.recoder.Values(l.w, 0, l.n)
	if w.Frozen {
		return l, nil
	}
	l.u = append([]float32(nil), l.w...)
	l.opt = newAdam(len(l.u))
	if l.blur, err = codeError(w.Matrix.Codec); err != nil {
		return nil, err
	}
	l.unit = l.blur * rms(l.w)
	l.dot, l.square = make([]float64, l.n), make([]float64, l.n)
	l.logScale = make([]float64, l.recoder.Scales())
	l.readScales()
	l.scaleOpt = newAdam(len(l.logScale))
	return l, nil
}

// readScales sets logScale to the scales of the recoder.
func (l *latent) readScales() {
	for i := range l.logScale {
		l.logScale[i] = math.Log(float64(l.recoder.Scale(i)))
	}
}

// codeError is the rms error of a codec on N(0,1).
func codeError(c *lattice.Codec) (float64, error) {
	rng := rand.New(rand.NewPCG(1, 1))
	sample := make([]float32, 1<<12)
	for i := range sample {
		sample[i] = float32(rng.NormFloat64())
	}
	sse, err := c.Distortion(sample, c.NominalStep())
	return math.Sqrt(sse / float64(len(sample))), err
}

func rms(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum / float64(max(len(v), 1)))
}

// slowRate is the learning rate of scales and parameters relative to that of the weights: each acts on a whole row or channel.
const slowRate = 0.5

// moveScales takes a step on the logarithms of the scales: dL/d log s = Σ g·w over the rows that use s.
func (l *latent) moveScales(rate, factor float64, step int) {
	g := make([]float32, len(l.logScale))
	for row, d := range l.dot {
		g[l.recoder.Entry(row)] += float32(d)
	}
	x := make([]float32, len(g)) // the move
	l.scaleOpt.update(x, g, 0, len(x), slowRate*rate*l.blur, factor, step)
	for i, d := range x {
		if math.IsInf(l.logScale[i], -1) {
			continue // rows of zeros
		}
		l.logScale[i] += float64(d)
		l.recoder.SetScale(i, float32(math.Exp(l.logScale[i])))
	}
}

// restoreScales puts the scales to where logScale says.
func (l *latent) restoreScales() {
	for i, s := range l.logScale {
		l.recoder.SetScale(i, float32(math.Exp(s)))
	}
}

// stretch is some rows of a latent weight.
type stretch struct {
	l      *latent
	n0, n1 int
}

// stretchWeights is about how many weights a goroutine takes at a time.
const stretchWeights = 1 << 16

// stretches cuts all trained weights into pieces of work.
func stretches(all []*latent) []stretch {
	var parts []stretch
	for _, l := range all {
		if l.Frozen {
			continue
		}
		rows := max(stretchWeights/l.k, 1)
		for n0 := 0; n0 < l.n; n0 += rows {
			parts = append(parts, stretch{l, n0, min(n0+rows, l.n)})
		}
	}
	return parts
}

// measure sums g·w and g² over each row.
func (s stretch) measure() {
	l := s.l
	for row := s.n0; row < s.n1; row++ {
		var dot, square float64
		w := l.w[row*l.k:][:l.k]
		for i, g := range l.g[row*l.k:][:l.k] {
			dot += float64(g) * float64(w[i])
			square += float64(g) * float64(g)
		}
		l.dot[row], l.square[row] = dot, square
	}
}

// move takes a step on the latent weights and codes them.
func (s stretch) move(rate, factor float64, step int) error {
	l := s.l
	l.opt.update(l.u, l.g, s.n0*l.k, s.n1*l.k, rate*l.unit, factor, step)
	return s.encode()
}

// encode codes the latent weights.
func (s stretch) encode() error {
	l := s.l
	return l.recoder.Encode(l.w[s.n0*l.k:s.n1*l.k], l.u[s.n0*l.k:s.n1*l.k], s.n0, s.n1, l.recoder.NewScratch(s.n1-s.n0))
}

// parallel calls do for every part, on the threads that there are for it, and returns the error of the first part that failed.
func (t *trainer) parallel(do func(stretch) error) error {
	parts, threads := t.parts, t.opt.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, len(parts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(threads, len(parts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
				errs[i] = do(parts[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
