package finetune_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/tensor"
)

// A training that is stopped at any batch, be it one to learn from or one to judge by, ends in the same codes once it is resumed.
func TestResumeFromAnyBatch(t *testing.T) {
	m, teacher := twoLayers(t)
	data, err := calib.Open("random:60", []tensor.Spec{{Name: "x", Type: tensor.Float32, Ranked: true, Shape: []tensor.Dim{{Size: -1}, {Size: side}}}}, calib.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	calls, stopAt, stop := 0, 0, func() {}
	value := teacher.Value
	teacher.Value = func(ctx context.Context, inputs map[string]*tensor.Tensor, cut, name string) (*tensor.Tensor, error) {
		if calls++; calls == stopAt {
			stop()
			return nil, ctx.Err()
		}
		return value(ctx, inputs, cut, name)
	}
	train := func(o finetune.Options) *finetune.Result {
		t.Helper()
		var ctx context.Context
		ctx, stop = context.WithCancel(t.Context())
		defer stop()
		calls = 0
		r, err := finetune.Train(ctx, m, data, teacher, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	o := finetune.Options{Steps: 24, Batch: 8, HeldOut: 16, Every: 12, Rate: 0.05, Threads: 1}
	whole := train(o)
	if whole.BestStep != o.Steps {
		t.Fatalf("step %d is the best: the test tells nothing of the last one", whole.BestStep)
	}
	all := calls
	for at := 3; at <= all; at++ { // the first two judge the start, before which there is nothing to go on from
		o.Checkpoint, o.Resume, stopAt = filepath.Join(t.TempDir(), "state"), false, at
		if r := train(o); !r.Interrupted {
			t.Fatalf("not stopped at batch %d", at)
		}
		o.Resume, stopAt = true, 0
		r := train(o)
		if r.Steps != whole.Steps || r.BestStep != whole.BestStep || r.Best != whole.Best || r.Last != whole.Last {
			t.Errorf("stopped at batch %d of %d: step %d of %d with %v, in the end %v; unbroken %d of %d with %v, %v",
				at, all, r.BestStep, r.Steps, r.Best, r.Last, whole.BestStep, whole.Steps, whole.Best, whole.Last)
		}
		for name, want := range whole.Matrices {
			if got := r.Matrices[name]; !bytes.Equal(got.Codes, want.Codes) || !bytes.Equal(got.Gains, want.Gains) {
				t.Errorf("stopped at batch %d of %d: other codes of %s", at, all, name)
			}
		}
	}
}
