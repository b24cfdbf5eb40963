package eval_test

import (
	"context"
	"testing"

	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/tensor"
)

// half is a fake that takes float16.
type half struct{ *fake }

func (h half) Run(ctx context.Context, in map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	given, err := tensor.View[tensor.Float16](in["x"])
	if err != nil {
		return nil, err
	}
	var ids []float32
	for _, v := range given {
		ids = append(ids, v.Float32())
	}
	return h.fake.Run(ctx, map[string]*tensor.Tensor{"x": tensor.Of(ids, in["x"].Shape...)})
}

// A model in float16 is judged by data that is read for the same one in float32; those after it still get the data as it is.
func TestModelsOfOtherPrecision(t *testing.T) {
	count := func() *fake {
		return &fake{shape: []int64{2}, answer: func(i int) []float32 { return []float32{float32(i), 1} }}
	}
	low := count().model("half", -1)
	low.Runner, low.Inputs[0].Type = half{count()}, tensor.Float16Type
	for _, m := range metrics[eval.Agreement](t, eval.TaskAgreement, table{labels: make([]int, 5)}, count().model("a", -1), low, count().model("b", -1)) {
		if m.Top1 != 1 || m.MaxAbsErr != 0 {
			t.Errorf("%+v", m)
		}
	}
}
