//go:build cgo && linux

package ort_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// Attentions run on the kernels that are made for them, which nothing but time would tell apart from others.
func TestProviderAttentionKernels(t *testing.T) {
	library, about, device := aboutProvider(t)
	hopper := isHopper(device)
	none := func(*attentionCase) string { return "" }
	adds := func(c *attentionCase) string { return c.floats("mask", c.queries, c.past+c.queries) }
	keeps := func(c *attentionCase) string {
		keep := make([]bool, c.queries*(c.past+c.queries))
		for i := range keep {
			keep[i] = i%3 != 1
		}
		return c.add("mask", tensor.Of(keep, c.queries, c.past+c.queries))
	}
	for i, x := range []struct {
		name           string
		kind           tensor.Type
		queries, width int64
		mask           func(*attentionCase) string
		cap            float32
		want           ort.Attentions
	}{
		{"many", tensor.Float16Type, 200, 64, none, 0, ort.Attentions{Groups: 1}},
		{"wide", tensor.Float16Type, 200, 128, none, 0, ort.Attentions{Groups: 1}},
		{"masked", tensor.Float16Type, 200, 128, adds, 0, ort.Attentions{Groups: 1}},
		{"masked, odd", tensor.Float16Type, 201, 64, adds, 0, ort.Attentions{Groups: 1}},
		{"keeping", tensor.Float16Type, 200, 64, keeps, 0, ort.Attentions{Groups: 1}},
		{"keeping, odd", tensor.Float16Type, 201, 128, keeps, 0, ort.Attentions{Groups: 1}},
		{"capped", tensor.Float16Type, 200, 128, none, 3, ort.Attentions{Groups: 1}},
		{"capped and masked", tensor.Float16Type, 200, 64, adds, 3, ort.Attentions{Groups: 1}},
		{"wider", tensor.Float16Type, 200, 160, none, 0, ort.Attentions{Tiles: 1}},
		{"float", tensor.Float32, 200, 64, none, 0, ort.Attentions{Tiles: 1}},
		{"some", tensor.Float16Type, 20, 64, none, 0, ort.Attentions{Tiles: 1}},
		{"one", tensor.Float16Type, 1, 64, none, 0, ort.Attentions{Few: 1}},
		{"widest", tensor.Float32, 20, 300, none, 0, ort.Attentions{Rows: 1}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newAttentionCase(t, uint64(i), 31)
			c.kind, c.batches, c.queries, c.past, c.heads, c.kv, c.width = x.kind, 2, x.queries, 70, 4, 2, x.width
			c.standardOf(x.mask, x.cap)
			before := about.Attentions()
			if !c.compare(library, about) {
				t.Fatal("it did not run on the device")
			}
			after := about.Attentions()
			got := ort.Attentions{Rows: min(1, after.Rows-before.Rows), Few: min(1, after.Few-before.Few), Tiles: min(1, after.Tiles-before.Tiles), Groups: min(1, after.Groups-before.Groups)}
			want := x.want
			switch {
			case device == "host":
				want = ort.Attentions{Rows: 1}
			case !hopper && want.Groups == 1:
				want = ort.Attentions{Tiles: 1}
			}
			if got != want {
				t.Errorf("ran on %s, want %s", kernels(got), kernels(want))
			}
		})
	}
}

func isHopper(device string) bool {
	return strings.Contains(device, "NVIDIA H") || strings.Contains(device, "GH200")
}

func kernels(a ort.Attentions) string { return strings.TrimSuffix(fmt.Sprintf("%+v", a), "}")[1:] }

// standardOf is Attention of ONNX with such a mask and cap, all else as it is.
func (c *attentionCase) standardOf(mask func(*attentionCase) string, limit float32) {
	c.node = onnx.NewNode("Attention", nil, []string{"y", "key", "value"})
	if limit != 0 {
		c.set("softcap", limit)
	}
	cache := []int64{c.batches, c.kv, c.past, c.width}
	added := []int64{c.batches, c.kv, c.queries, c.width}
	c.node.Inputs = []string{c.floats("q", c.batches, c.heads, c.queries, c.width), c.floats("k", added...), c.floats("v", added...), mask(c),
		c.floats("past_key", cache...), c.floats("past_value", cache...)}
}
