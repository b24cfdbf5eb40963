//go:build linux || darwin

package cosetq_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/rewrite"
)

// A run whose output another run is at work on is refused, whatever it may replace, and the other one is not disturbed.
func TestOneRunPerOutput(t *testing.T) {
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	output := filepath.Join(dir, "out.onnx")
	others := map[string]func() error{
		"quantize": func() error {
			_, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output, Bits: 2, Overwrite: true})
			return err
		},
		"resume": func() error {
			_, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output, Bits: 4, Resume: true})
			return err
		},
		"share": func() error {
			_, err := cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output, Bits: 4, Shard: cosetq.Shard{Index: 1, Count: 2}})
			return err
		},
		"merge": func() error {
			_, err := cosetq.Merge(t.Context(), files.Model, cosetq.MergeOptions{Output: output, Overwrite: true})
			return err
		},
		"export": func() error {
			_, err := cosetq.Export(t.Context(), files.Model, cosetq.ExportOptions{Output: output, Format: rewrite.FP16, Overwrite: true})
			return err
		},
		"finetune": func() error {
			_, err := cosetq.Finetune(t.Context(), files.Model, "", cosetq.FinetuneOptions{Output: output, Data: files.Calib, Overwrite: true, Train: finetune.Options{Steps: 1}})
			return err
		},
	}
	begun := false
	_, err = cosetq.Quantize(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output, Bits: 4, Progress: func(string, int64, int64) {
		if begun {
			return
		}
		begun = true
		for name, other := range others {
			err := other()
			if kind, _ := cosetq.Classify(err); err == nil || kind != cosetq.Usage || !strings.Contains(err.Error(), "another run is at work") {
				t.Errorf("%s while another run is at work: %v", name, err)
			}
		}
		if _, err := cosetq.Plan(t.Context(), files.Model, cosetq.QuantizeOptions{Output: output, Bits: 2}); err != nil {
			t.Errorf("a plan writes nothing: %v", err)
		}
	}})
	if err != nil || !begun {
		t.Fatalf("the run that was first: %v, begun: %t", err, begun)
	}
	if err := others["quantize"](); err != nil {
		t.Errorf("after it: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if strings.HasPrefix(f.Name(), ".") {
			t.Errorf("%s is left", f.Name())
		}
	}
}
