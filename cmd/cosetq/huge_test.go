package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// hugeModel writes a chain of MatMul nodes of k[i] × k[i+1] and an embedding of so many rows, with all data in a sparse file
// beside it: each matrix has numbers in its first rows only. It returns the bytes of all data and of the largest matrix.
func hugeModel(t *testing.T, path string, embedding int64, widths ...int64) (total, largest int64) {
	t.Helper()
	file, err := os.Create(path + ".data")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rng := rand.New(rand.NewPCG(8, 9))
	m := onnx.NewModel(10, 17, "huge")
	g := m.Graph
	place := func(name string, rows, cols int64) (size int64) {
		size = 4 * rows * cols
		w := &onnx.Tensor{Name: name, DataType: onnx.Float, Dims: []int64{rows, cols}, DataLocation: onnx.LocationExternal,
			ExternalData: []*onnx.Property{{Key: "location", Value: filepath.Base(path) + ".data"},
				{Key: "offset", Value: fmt.Sprint(total)}, {Key: "length", Value: fmt.Sprint(size)}}}
		g.Initializers = append(g.Initializers, w)
		some := make([]byte, 0, 16*cols)
		for range cap(some) / 4 {
			some = binary.LittleEndian.AppendUint32(some, math.Float32bits(float32(rng.NormFloat64())))
		}
		if _, err := file.WriteAt(some, total); err != nil {
			t.Fatal(err)
		}
		total += size
		return size
	}
	g.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, "batch", widths[0])}
	value := "x"
	for i, width := range widths[1:] {
		name := fmt.Sprintf("w%d", i)
		largest = max(largest, place(name, widths[i], width))
		next := fmt.Sprintf("y%d", i)
		g.Nodes = append(g.Nodes, onnx.NewNode("MatMul", []string{value, name}, []string{next}))
		value = next
	}
	g.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(value, onnx.Float, "batch", widths[len(widths)-1])}
	if embedding > 0 {
		g.Inputs = append(g.Inputs, onnx.NewValueInfo("ids", onnx.Int64, "n"))
		g.Outputs = append(g.Outputs, onnx.NewValueInfo("e", onnx.Float, "n", 1024))
		place("embedding", embedding, 1024)
		g.Nodes = append(g.Nodes, onnx.NewNode("Gather", []string{"embedding", "ids"}, []string{"e"}))
	}
	if err := file.Truncate(total); err != nil {
		t.Fatal(err)
	}
	if err := marshal(path, m); err != nil {
		t.Fatal(err)
	}
	return total, largest
}

// A model far larger than memory should be is quantized in little more than its largest layer.
func TestHugeModel(t *testing.T) {
	if !testenv.Slow() {
		t.Skip("takes minutes and gigabytes of disk; COSETQ_REQUIRE=slow runs it")
	}
	const gib = 1 << 30
	for _, tt := range []struct {
		name      string
		embedding int64
		widths    []int64
	}{
		{"8 GiB in 33 layers", 0, repeated(8192, 34)},
		{"2.5 GiB in one tensor", 0, []int64{16384, 40960}},
		{"2.5 GiB that stay float", 640 << 10, []int64{4096, 4096}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			model := filepath.Join(dir, "m.onnx")
			total, largest := hugeModel(t, model, tt.embedding, tt.widths...)
			report, code, _ := program(t, "quantize", model, "-o", filepath.Join(dir, "q.onnx"))
			if code != exitOK {
				t.Fatalf("exit code %d: %v", code, report)
			}
			peak := int64(report["peak_rss_bytes"].(float64))
			t.Logf("%.2f GiB, largest layer %.2f GiB: peak memory %.2f GiB, %.0f s, %.2f GiB written",
				float64(total)/gib, float64(largest)/gib, float64(peak)/gib, report["seconds"], report["bytes"].(float64)/gib)
			if peak > largest+gib {
				t.Errorf("peak memory %d bytes, more than 1 GiB above the largest layer of %d", peak, largest)
			}
			if report["coverage"].(float64) != 1 {
				t.Errorf("coverage %v", report["coverage"])
			}
			m, err := onnx.Open(filepath.Join(dir, "q.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			for ref := range m.Tensors() {
				if err := ref.Tensor.Validate(); err != nil {
					t.Error(err)
				}
			}
			if tt.embedding > 0 {
				if size, err := m.Graph.Initializer("embedding").ByteSize(); err != nil || size != 4*tt.embedding*1024 {
					t.Errorf("the embedding has %d bytes, %v", size, err)
				}
			}
		})
	}
}

func repeated(v int64, n int) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = v
	}
	return list
}
