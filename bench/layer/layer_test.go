package layer_test

import (
	"context"
	"testing"
	"time"

	"github.com/cosetq/cosetq/bench/layer"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

// TestForms runs every form and expects of each the error of its way to keep activations: weights seen wrongly would show.
func TestForms(t *testing.T) {
	ops := testenv.Ops(t)
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := layer.New(96, 256, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AddDynamicInt8(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []rewrite.NBitsOptions{{Bits: 4, Block: 32, AccuracyLevel: 1}, {Bits: 2, Block: 128, AccuracyLevel: 4}} {
		if err := l.AddNBits(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.AddCoded(context.Background(), codec, nil, map[string]string{"accurate": "1", "fast": "4"}); err != nil {
		t.Fatal(err)
	}
	// Without VNNI the sums of ONNX Runtime's dynamic int8 saturate, hence its wide limit.
	limits := []float64{1e-6, 1e-1, 1e-5, 2e-2, 1e-4, 2e-2}
	var runners []eval.Runner
	for _, f := range l.Forms {
		o := ort.SessionOptions{Threads: 1}
		if f.Native {
			o.OpsLibrary, o.Config = ops, map[string]string{"ai.coset.accuracy": f.Accuracy}
		}
		s, err := rt.NewSession(f.Path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		runners = append(runners, s)
	}
	evictions := 0
	start := time.Now()
	timings, err := l.Time(context.Background(), runners, layer.Options{Batch: 3, Rounds: 2,
		Clock: func() time.Duration { return time.Since(start) }, Evict: func() { evictions++ }})
	if err != nil {
		t.Fatal(err)
	}
	if len(timings) != len(limits) || evictions != 3*len(limits) {
		t.Fatalf("%d timings, %d evictions", len(timings), evictions)
	}
	for i, r := range timings {
		if r.Form != l.Forms[i].Name || r.Least <= 0 || r.Least > r.Hot || r.Cold <= 0 || !(r.Error < limits[i]) {
			t.Errorf("%+v: error limit %g", r, limits[i])
		}
	}
	l.Keep([]string{"2 bits"})
	if len(l.Forms) != 2 {
		t.Errorf("kept %+v, want the float form and one other", l.Forms)
	}
}
