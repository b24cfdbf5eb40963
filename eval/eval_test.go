package eval_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

// table is data whose sample i feeds the number i.
type table struct {
	labels  []int
	targets [][]int
}

func (d table) Len() int     { return max(len(d.labels), len(d.targets)) }
func (d table) Random() bool { return false }
func (d table) Close() error { return nil }
func (d table) Sample(i int) (*calib.Sample, error) {
	s := &calib.Sample{Inputs: map[string]*tensor.Tensor{"x": tensor.Of([]float32{float32(i)}, 1, 1)}, Label: -1}
	if d.labels != nil {
		s.Label = d.labels[i]
	}
	if d.targets != nil {
		s.Targets = d.targets[i]
	}
	return s, nil
}

// fake answers sample i with the numbers answer(i), shaped [batch, shape...].
type fake struct {
	shape  []int64
	answer func(i int) []float32
	sizes  []int // of the batches that came
}

func (f *fake) Run(_ context.Context, in map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	ids, err := tensor.View[float32](in["x"])
	if err != nil {
		return nil, err
	}
	f.sizes = append(f.sizes, len(ids))
	var all []float32
	for _, i := range ids {
		all = append(all, f.answer(int(i))...)
	}
	return map[string]*tensor.Tensor{"y": tensor.Of(all, append([]int64{int64(len(ids))}, f.shape...)...)}, nil
}

func (f *fake) model(name string, batch int64) eval.Model {
	return eval.Model{
		Path: name, Runner: f,
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: batch}, {Size: 1}}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.Float32}},
	}
}

func constant(v ...float32) *fake {
	return &fake{shape: []int64{int64(len(v))}, answer: func(int) []float32 { return v }}
}

func metrics[M any](t *testing.T, task string, data calib.Reader, models ...eval.Model) []M {
	t.Helper()
	r, err := eval.Run(context.Background(), task, models, data, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out []M
	for _, m := range r.Models {
		out = append(out, m.Metrics.(M))
	}
	return out
}

func TestClassification(t *testing.T) {
	oneHot := &fake{shape: []int64{3}, answer: func(i int) []float32 {
		v := make([]float32, 3)
		v[i%3] = 1
		return v
	}}
	data := table{labels: []int{0, 1, 2, 0, 2, 2, 0, 1, 2, 0, 1}} // sample 4 is wrong
	for _, batch := range []int64{-1, 1, 4} {
		got := metrics[eval.Classification](t, eval.TaskClassification, data, oneHot.model("m", batch))[0]
		if got != (eval.Classification{Top1: 10.0 / 11, Correct: 10, Count: 11}) {
			t.Errorf("batch %d: %+v", batch, got)
		}
	}
	if got := fmt.Sprint(oneHot.sizes); got != "[8 3 1 1 1 1 1 1 1 1 1 1 1 4 4 4]" {
		t.Errorf("batches of %s samples: dynamic by 8, fixed 1 one by one, fixed 4 filled up", got)
	}
}

func TestPerplexityOfKnownDistributions(t *testing.T) {
	data := table{targets: [][]int{{0, 1}, {1, 1}}}
	ln3 := float32(math.Log(3)) // logits 0 and ln 3: probabilities 1/4 and 3/4; 1000 + ln 3 loses bits in float32
	m := &fake{shape: []int64{2, 2}, answer: func(int) []float32 { return []float32{0, ln3, 1000, 1000 + ln3} }}
	got := metrics[eval.Perplexity](t, eval.TaskPerplexity, data, m.model("m", -1))[0]
	want := (math.Log(4) + 3*math.Log(4.0/3)) / 4
	if got.Tokens != 4 || math.Abs(got.NLL-want) > 1e-5 || math.Abs(float64(got.Perplexity)-math.Exp(got.NLL)) > 1e-12 || math.Abs(got.BitsPerToken-got.NLL/math.Ln2) > 1e-12 {
		t.Errorf("%+v, want nll %g", got, want)
	}
	uniform := &fake{shape: []int64{2, 256}, answer: func(int) []float32 { return make([]float32, 512) }}
	if got := metrics[eval.Perplexity](t, eval.TaskPerplexity, data, uniform.model("u", -1))[0]; math.Abs(got.BitsPerToken-8) > 1e-12 {
		t.Errorf("uniform over bytes: %g bits, want 8", got.BitsPerToken)
	}
}

func TestAgreement(t *testing.T) {
	data := table{labels: make([]int, 5)}
	ref, same := constant(3, 4, 0), constant(3, 4, 0)
	off := constant(3, 0, 4) // squared error 32 of 25, dot 9 of 25
	for _, batch := range []int64{-1, 4} {
		got := metrics[eval.Agreement](t, eval.TaskAgreement, data, ref.model("a", batch), same.model("b", batch), off.model("c", batch))
		if s := got[1]; s.Top1 != 1 || s.KL != 0 || s.Cosine != 1 || !math.IsInf(float64(s.SQNR), 1) || s.MaxAbsErr != 0 {
			t.Errorf("same outputs: %+v", s)
		}
		p := []float64{math.Exp(3), math.Exp(4), 1}
		z := p[0] + p[1] + p[2]
		kl := (p[1]*4 - p[2]*4) / z // Σ p (log p − log q), both with the same normalizer
		if s := got[2]; s.Top1 != 0 || math.Abs(s.KL-kl) > 1e-9 || math.Abs(s.Cosine-9.0/25) > 1e-12 || math.Abs(float64(s.SQNR)-10*math.Log10(25.0/32)) > 1e-12 || s.MaxAbsErr != 4 {
			t.Errorf("other outputs: %+v, want kl %g", s, kl)
		}
	}
}

// The divergence is of the model from the reference, not the other way round, and an error counts whatever its sign.
func TestAgreementHasADirection(t *testing.T) {
	got := metrics[eval.Agreement](t, eval.TaskAgreement, table{labels: make([]int, 3)}, constant(2, 0, 0).model("a", -1), constant(-1, 0, 1).model("b", -1))[1]
	var zp, zq, kl float64
	p, q := []float64{2, 0, 0}, []float64{-1, 0, 1}
	for i := range p {
		zp += math.Exp(p[i])
		zq += math.Exp(q[i])
	}
	for i := range p {
		kl += math.Exp(p[i]) / zp * (p[i] - math.Log(zp) - q[i] + math.Log(zq))
	}
	if math.Abs(got.KL-kl) > 1e-9 || got.MaxAbsErr != 3 {
		t.Errorf("KL %v, want %v; largest error %v, want 3", got.KL, kl, got.MaxAbsErr)
	}
}

func TestReportAsJSON(t *testing.T) {
	r, err := eval.Run(context.Background(), eval.TaskAgreement, []eval.Model{constant(1, 2).model("a.onnx", -1)}, table{labels: []int{0}}, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.Models[0].Seconds = 0.5
	got, err := json.Marshal(r)
	want := `{"schema":"cosetq/v1/eval","task":"agreement","samples":1,"models":[{"path":"a.onnx","metrics":{"top1_agreement":1,"kl":0,"cosine":1,"sqnr_db":null,"max_abs_err":0},"seconds":0.5}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	nan := &fake{shape: []int64{2}, answer: func(i int) []float32 {
		if i == 9 {
			return []float32{0, float32(math.NaN())}
		}
		return []float32{0, 1}
	}}
	labels, tokens := table{labels: make([]int, 12)}, table{targets: [][]int{{300}}}
	three := table{labels: []int{0, 3}}
	recipe, finite, fit := new(*calib.RecipeError), new(*eval.NonFiniteError), new(*eval.FitError)
	logits := &fake{shape: []int64{1, 256}, answer: func(int) []float32 { return make([]float32, 256) }}
	for _, c := range []struct {
		task   string
		data   table
		models []eval.Model
		as     any
		want   string
	}{
		{eval.TaskClassification, labels, []eval.Model{nan.model("m", -1)}, finite, "sample 9 holds NaN"},
		{eval.TaskAgreement, labels, []eval.Model{constant(0, 1).model("a", -1), nan.model("b", -1)}, finite, "b: output y of sample 9"},
		{eval.TaskClassification, three, []eval.Model{constant(1, 2, 3).model("m", -1)}, recipe, "sample 1 has label 3"},
		{eval.TaskClassification, table{targets: [][]int{{1}}}, []eval.Model{constant(1, 2).model("m", -1)}, recipe, "has no labels"},
		{eval.TaskClassification, labels, []eval.Model{constant(1).model("m", -1)}, fit, "one number per class"},
		{eval.TaskPerplexity, labels, []eval.Model{constant(1, 2).model("m", -1)}, recipe, "holds no tokens"},
		{eval.TaskPerplexity, tokens, []eval.Model{constant(1, 2).model("m", -1)}, fit, "needs logits [1,1,vocabulary]"},
		{eval.TaskPerplexity, tokens, []eval.Model{logits.model("m", -1)}, recipe, "another tokenizer"},
		{eval.TaskAgreement, labels, []eval.Model{constant(1, 2).model("a", -1), constant(1).model("b", -1)}, fit, "same outputs"},
		{eval.TaskAgreement, labels, []eval.Model{constant().model("a", -1), constant().model("b", -1)}, fit, "nothing to compare"},
		{eval.TaskPerplexity, tokens, []eval.Model{(&fake{shape: []int64{1, 0}, answer: func(int) []float32 { return nil }}).model("m", -1)}, fit, "needs logits"},
		{"clasification", labels, []eval.Model{constant(1, 2).model("a", -1)}, nil, `did you mean "classification"`},
	} {
		_, err := eval.Run(context.Background(), c.task, c.models, c.data, eval.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || c.as != nil && !errors.As(err, c.as) {
			t.Errorf("%s: %v; want %q", c.task, err, c.want)
		}
	}
}

// A program that offers the tasks, as a menu or a completion does, offers those that there are.
func TestTasks(t *testing.T) {
	data := table{labels: []int{0, 0, 0}, targets: [][]int{{0}, {0}, {0}}}
	for _, task := range eval.Tasks() {
		f := constant(1, 2)
		if task == eval.TaskPerplexity {
			f.shape = []int64{1, 2} // one token
		}
		r, err := eval.Run(context.Background(), task, []eval.Model{f.model("a", -1)}, data, eval.Options{})
		if err != nil || r.Task != task || len(r.Models) != 1 {
			t.Errorf("%s: %+v, %v", task, r, err)
		}
	}
}

// How far outputs are apart that a program has run itself, sample by sample.
func ExampleDeviation() {
	var d eval.Deviation
	for _, sample := range [][2][]float32{{{3, 4}, {3, 4}}, {{0, 5}, {1, 5}}} {
		if err := d.Add(tensor.Of(sample[0], 1, 2), tensor.Of(sample[1], 1, 2)); err != nil {
			panic(err)
		}
	}
	fmt.Printf("%.1f dB, cosine %.3f, largest error %v\n", d.SQNR(), d.Cosine(), d.MaxAbsErr())
	exact, err := json.Marshal(new(eval.Deviation).SQNR())
	fmt.Printf("without error %s, %v\n", exact, err)
	// Output:
	// 17.0 dB, cosine 0.990, largest error 1
	// without error null, <nil>
}

// whole answers the same numbers whatever the batch, and without it in front.
type whole []float32

func (w whole) Run(context.Context, map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	return map[string]*tensor.Tensor{"y": tensor.Of([]float32(w), int64(len(w)))}, nil
}

// An output that has no batch, and fewer numbers than a batch has samples, is compared all the same.
func TestAgreementWithoutABatch(t *testing.T) {
	ref, off := constant().model("a", -1), constant().model("b", -1)
	ref.Runner, off.Runner = whole{3, 4, 0}, whole{3, 0, 4}
	got := metrics[eval.Agreement](t, eval.TaskAgreement, table{labels: make([]int, 5)}, ref, off)
	if s := got[1]; s.Top1 != 0 || math.Abs(s.Cosine-9.0/25) > 1e-12 || s.MaxAbsErr != 4 {
		t.Errorf("%+v", s)
	}
}

func TestModelsShareABatch(t *testing.T) {
	for _, c := range []struct {
		batches []int64
		want    string
	}{
		{[]int64{-1, 4}, "[4 4]"}, {[]int64{4, -1}, "[4 4]"}, {[]int64{1, -1}, "[1 1 1 1 1]"}, {[]int64{-1, 1}, "[1 1 1 1 1]"},
		{[]int64{4, 1}, "error"}, {[]int64{1, 4}, "error"},
	} {
		var models []eval.Model
		f := constant(1, 0)
		for i, b := range c.batches {
			g := constant(1, 0)
			if i == 0 {
				g = f
			}
			models = append(models, g.model("m", b))
		}
		got := "error"
		if _, err := eval.Run(context.Background(), eval.TaskClassification, models, table{labels: make([]int, 5)}, eval.Options{}); err == nil {
			got = fmt.Sprint(f.sizes)
		}
		if got != c.want {
			t.Errorf("declared batches %v ran as %s, want %s", c.batches, got, c.want)
		}
	}
}

func TestProgress(t *testing.T) {
	var seen []string
	o := eval.Options{Batch: 2, Progress: func(done, total int) { seen = append(seen, fmt.Sprintf("%d/%d", done, total)) }}
	if _, err := eval.Run(context.Background(), eval.TaskClassification, []eval.Model{constant(1, 0).model("m", -1)}, table{labels: make([]int, 5)}, o); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, " "); got != "2/5 4/5 5/5" {
		t.Error(got)
	}
}

func ExampleRun() {
	m := constant(0.1, 0.9).model("model.onnx", -1)
	report, err := eval.Run(context.Background(), eval.TaskClassification, []eval.Model{m}, table{labels: []int{1, 1, 0, 1}}, eval.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%+v\n", report.Models[0].Metrics)
	// Output: {Top1:0.75 Correct:3 Count:4}
}
