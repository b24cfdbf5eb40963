package finetune_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// BenchmarkStep times, on the 24M Llama, what a step is made of: ONNX Runtime's forward pass of the float model, the graph of a
// step (loss and gradients), and coding all weights. It reports GFLOP/s, counting two operations for each weight and token in a
// forward pass and six in a step.
func BenchmarkStep(b *testing.B) {
	path := testenv.Llama(b)
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(b)})
	if err != nil {
		b.Fatal(err)
	}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	m, err := onnx.Open(path)
	must(err)
	defer m.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	must(err)
	codec, err := lattice.Preset(2)
	must(err)
	var coder lattice.RowCoder
	if lib, err := cudaops.FindLibrary(""); err == nil {
		if e, err := ort.OpenEncoder(lib, codec); err == nil {
			coder = e
		}
	}
	var replacements []rewrite.Replacement
	weights := int64(0)
	for _, s := range sites {
		if s.Status == rewrite.Candidate {
			res, err := quant.Quantize(context.Background(), s.Weight, quant.Options{Codec: codec, Encoder: coder})
			must(err)
			replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: res.Matrix})
			weights += s.Weights
		}
	}
	_, err = rewrite.Apply(m, replacements, "bench")
	must(err)
	exposed, err := rewrite.Expose(m)
	must(err)
	m.ReferToFile(4096)
	load := func(m *onnx.Model, literal bool) (grad.Session, error) {
		data, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		o := ort.SessionOptions{}
		if literal {
			o.Optimization = ort.OptimizeDisabled
		}
		return rt.NewSessionFromBytes(data, filepath.Dir(path), o)
	}
	float, err := rt.NewSession(path, ort.SessionOptions{})
	must(err)
	defer float.Close()
	const windows, seq = 4, 256
	ids := make([]int64, windows*seq)
	for i := range ids {
		ids[i] = int64(32 + i*7%90)
	}
	fed := map[string]*tensor.Tensor{m.Graph.Inputs[0].Name: tensor.Of(ids, windows, seq)}
	batch := map[string]*tensor.Tensor{}
	for k, v := range fed {
		batch[k] = v
	}
	type coded struct {
		r    *quant.Recoder
		w, u []float32
	}
	var all []coded
	var names []string
	for _, e := range exposed {
		r, err := quant.NewRecoder(e.Matrix, coder)
		must(err)
		w := make([]float32, e.Matrix.N*e.Matrix.K)
		r.Values(w, 0, e.Matrix.N)
		fed[e.Input] = tensor.Of(w, int64(e.Matrix.N), int64(e.Matrix.K))
		names = append(names, e.Input)
		all = append(all, coded{r, w, append([]float32(nil), w...)})
	}
	g, err := grad.Trace(context.Background(), m, load, fed)
	must(err)
	out := g.Value(g.Outputs()[0])
	loss, target, err := g.AddLoss(grad.KL, out.Name)
	must(err)
	grads, err := g.Backward(loss, names, nil)
	must(err)
	step, err := load(g.Model(append(grads, loss)...), false)
	must(err)
	defer step.Close()
	teacher, err := float.Run(context.Background(), batch)
	must(err)
	fed[target.Name] = teacher[out.Name]

	timed := func(f func()) float64 {
		start := time.Now()
		f()
		return time.Since(start).Seconds()
	}
	var forward, backward, coding float64
	for b.Loop() {
		forward += timed(func() { _, err := float.Run(context.Background(), batch); must(err) })
		backward += timed(func() { _, err := step.Run(context.Background(), fed); must(err) })
		coding += timed(func() {
			for _, c := range all {
				n, _ := c.r.Dims()
				must(c.r.Encode(c.w, c.u, 0, n, c.r.NewScratch(n)))
			}
		})
	}
	n := float64(b.N)
	tokens := float64(windows * seq)
	b.ReportMetric(2*float64(weights)*tokens*n/forward/1e9, "forward-GFLOP/s")
	b.ReportMetric(6*float64(weights)*tokens*n/backward/1e9, "step-GFLOP/s")
	b.ReportMetric(forward/n, "forward-s")
	b.ReportMetric(backward/n, "step-s")
	b.ReportMetric(coding/n, "coding-1-thread-s")
}
