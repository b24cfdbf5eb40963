package onnx

import (
	"path/filepath"
	"sync"
	"testing"
)

// Tensors of one model may be read, and other models saved from it, at the same time.
func TestConcurrentReading(t *testing.T) {
	dir := t.TempDir()
	m := weightModel()
	files := save(t, m, filepath.Join(dir, "m.onnx"), SaveOptions{External: ExternalAlways, ExternalThreshold: 5000})
	shared := open(t, files[0].Path)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for r := range shared.Tensors() {
				if r.Tensor.DataType == String {
					continue
				}
				want, err := r.Tensor.Float32s()
				if err != nil {
					t.Error(err)
					return
				}
				part := make([]float32, 1)
				n := int64(len(want))
				if err := r.Tensor.Float32Range(part, n-1, n); err != nil || part[0] != want[n-1] {
					t.Errorf("%s: %v %v", r.Where(), part, err)
				}
			}
			if _, err := shared.Save(filepath.Join(dir, string(rune('a'+i))+".onnx"), SaveOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
