package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// A cache that is full and moves on by a token is read before it is written, where a program binds it as past and as present.
func TestProviderMovesCachesInPlace(t *testing.T) {
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		absent(t, "python", "%v; run `make setup-python`", err)
	}
	const runs, tokens, width = 6, 8, 16 // the third run is recorded
	all := numbers(3, (tokens+runs)*width)
	for _, c := range []struct {
		name    string
		kept    []int64 // tokens of the past
		inputs  []string
		present func() []float32
	}{
		{"newest last", []int64{1, tokens}, []string{"kept", "new"}, func() []float32 { return all[runs*width:] }},
		{"newest first", []int64{0, tokens - 1}, []string{"new", "kept"}, func() []float32 {
			var v []float32
			for run := runs - 1; run >= 0; run-- {
				v = append(v, all[(tokens+run)*width:(tokens+run+1)*width]...)
			}
			return append(v, all[:(tokens-runs)*width]...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := onnx.NewModel(10, 18, "cache")
			m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("past", onnx.Float, 1, tokens, width), onnx.NewValueInfo("new", onnx.Float, 1, 1, width)}
			m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("present", onnx.Float, 1, tokens, width)}
			m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("from", []int64{1}, c.kept[:1]), onnx.NewTensor("to", []int64{1}, c.kept[1:]), onnx.NewTensor("axis", []int64{1}, []int64{1})}
			m.Graph.Nodes = []*onnx.Node{onnx.NewNode("Slice", []string{"past", "from", "to", "axis"}, []string{"kept"}),
				onnx.NewNode("Concat", c.inputs, []string{"present"}, onnx.IntAttr("axis", 1))}
			path := filepath.Join(t.TempDir(), "cache.onnx")
			if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			got := pipe(t, all, python, filepath.Join("testdata", "in_place.py"), testenv.HostProvider(t), path, fmt.Sprint(runs), fmt.Sprint(tokens), fmt.Sprint(width))
			if want := c.present(); !slices.Equal(got, want) {
				t.Errorf("the cache has %v, want %v", got, want)
			}
		})
	}
}

// Both branches of an If do so in turn, recorded and not.
func TestProviderMovesCachesInBranches(t *testing.T) {
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		absent(t, "python", "%v; run `make setup-python`", err)
	}
	const runs, tokens, width = 12, 5, 16
	all := numbers(4, (tokens+runs)*width)
	m := onnx.NewModel(10, 18, "cache")
	g := m.Graph
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("past", onnx.Float, 1, tokens, width), onnx.NewValueInfo("new", onnx.Float, 1, 1, width), onnx.NewValueInfo("newest_first", onnx.Bool, 1)}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("present", onnx.Float, 1, tokens, width)}
	for name, v := range map[string]int64{"zero": 0, "one": 1, "end": tokens, "axis": 1, "last": tokens - 1} {
		g.Initializers = append(g.Initializers, onnx.NewTensor(name, []int64{1}, []int64{v}))
	}
	body := func(from, to string, inputs ...string) *onnx.Graph {
		return &onnx.Graph{Name: from, Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("all", onnx.Float, 1, tokens, width)}, Nodes: []*onnx.Node{
			onnx.NewNode("Slice", []string{"past", from, to, "axis"}, []string{"kept"}), onnx.NewNode("Concat", inputs, []string{"all"}, onnx.IntAttr("axis", 1))}}
	}
	g.Nodes = []*onnx.Node{onnx.NewNode("If", []string{"newest_first"}, []string{"present"}, onnx.GraphAttr("then_branch", body("zero", "last", "new", "kept")),
		onnx.GraphAttr("else_branch", body("one", "end", "kept", "new")))}
	path := filepath.Join(t.TempDir(), "cache.onnx")
	if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(all[:tokens*width])
	for run := range runs {
		added := all[(tokens+run)*width : (tokens+run+1)*width]
		if run%2 == 0 {
			want = slices.Concat(added, want[:(tokens-1)*width])
		} else {
			want = slices.Concat(want[width:], added)
		}
	}
	got := pipe(t, all, python, filepath.Join("testdata", "in_place.py"), testenv.HostProvider(t), path, fmt.Sprint(runs), fmt.Sprint(tokens), fmt.Sprint(width))
	if !slices.Equal(got, want) {
		t.Errorf("the cache has %v, want %v", got, want)
	}
}
