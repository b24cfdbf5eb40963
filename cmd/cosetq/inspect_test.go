package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/onnx"
)

// large writes a model with more than 2 GB of external weights: a file of holes, which takes no disk.
func large(t *testing.T) string {
	t.Helper()
	const layers, side = 40, 4096 // 2.7 GB
	m := onnx.NewModel(8, 17, "large")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, "batch", side)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(fmt.Sprintf("x%d", layers), onnx.Float, "batch", side)}
	for i := range layers {
		w := &onnx.Tensor{Name: fmt.Sprintf("w%d", i), DataType: onnx.Float, Dims: []int64{side, side}, DataLocation: onnx.LocationExternal}
		w.ExternalData = []*onnx.Property{{Key: "location", Value: "large.data"}, {Key: "offset", Value: fmt.Sprint(i * side * side * 4)}, {Key: "length", Value: fmt.Sprint(side * side * 4)}}
		m.Graph.Initializers = append(m.Graph.Initializers, w)
		n := onnx.NewNode("MatMul", []string{fmt.Sprintf("x%d", i), w.Name}, []string{fmt.Sprintf("x%d", i+1)})
		n.Name = fmt.Sprintf("layer%d", i)
		m.Graph.Nodes = append(m.Graph.Nodes, n)
	}
	dir := t.TempDir()
	data, err := os.Create(filepath.Join(dir, "large.data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := data.Truncate(layers * side * side * 4); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	encoded, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "large.onnx")
	if err := os.WriteFile(path, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Looking at a model of any size takes no memory to speak of. The time, under a second, is logged.
func TestInspectLarge(t *testing.T) {
	model := large(t)
	start := time.Now()
	report, peak := mustRun(t, "inspect", model)
	t.Logf("%.2f s, peak memory %.0f MB", time.Since(start).Seconds(), float64(peak)/1e6)
	if nodes, ok := report["nodes"].([]any); !ok || len(nodes) != 40 {
		t.Errorf("%d nodes, want 40", len(nodes))
	}
	if size, ok := report["bytes"].(float64); !ok || size < 2e9 {
		t.Errorf("%.0f bytes, want more than 2 GB", size)
	}
	if estimates, ok := report["estimates"].([]any); !ok || len(estimates) != 3 {
		t.Errorf("estimates %v, want three", report["estimates"])
	}
	if peak > 100e6 {
		t.Errorf("peak memory %.0f MB, want less than 100", float64(peak)/1e6)
	}
}

// The matrices of a batch are one line where they differ by their names alone.
func TestBatchesAreOneLine(t *testing.T) {
	var nodes []cosetq.InspectedNode
	for i := range 5 {
		nodes = append(nodes, cosetq.InspectedNode{Node: fmt.Sprintf("experts.%d", i), Initializer: fmt.Sprintf("w.%d", i), Batch: "y", Status: "candidate"})
	}
	nodes[3].Status = "skipped"
	for i, want := range map[int]int{0: 3, 3: 1, 4: 1} {
		if got := alike(nodes[i:]); got != want {
			t.Errorf("%d from %d on, want %d", got, i, want)
		}
	}
	for i := range nodes {
		nodes[i].Batch = ""
	}
	if got := alike(nodes); got != 1 {
		t.Errorf("%d that are of no batch", got)
	}
}

// Caches of many layers are shown as one of a kind; values that differ in more than numbers stay apart.
func TestValuesAreShownTogether(t *testing.T) {
	values := []string{"input_ids int64[batch,seq]", "x1 float32[4]", "x2 float32[4]"}
	want := append(slices.Clone(values), "past.0.key … past.31.key float32[batch,4,past,32] (32 of these)",
		"past.0.value … past.31.value float32[batch,4,past,32] (32 of these)")
	for i := range 32 {
		values = append(values, fmt.Sprintf("past.%d.key float32[batch,4,past,32]", i), fmt.Sprintf("past.%d.value float32[batch,4,past,32]", i))
	}
	if got := together(values); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
