package cosetq

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
)

// With less memory activations are computed again, and the statistics are the same; with too little all rows weigh alike. Either is said.
func TestImportanceInLittleMemory(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	model := filepath.Join(dir, "m.onnx")
	if _, err := (models.Transformer{Layers: 6, Width: 32, Heads: 2, Context: 64, Seed: 2}).ONNX().Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	gatherBy := func(threads int, free int64) (*calib.Statistics, []string) {
		c, err := newCalibration(t.Context(), model, calibrationOptions{threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		c.free = func() int64 { return free }
		s, err := c.gather(t.Context(), "random:3", calib.Options{}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		spilt, err := s.Spill(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = spilt.Close() })
		notes := c.notes()
		c.release()
		return &spilt.Statistics, notes
	}
	gather := func(free int64) (*calib.Statistics, []string) { return gatherBy(1, free) }
	want, notes := gather(0)
	if len(want.Gradients) == 0 || len(notes) > 0 {
		t.Fatalf("%d gradients, %q", len(want.Gradients), notes)
	}
	if _, notes := gather(1 << 40); len(notes) > 0 {
		t.Errorf("with memory for all: %q", notes)
	}
	// Between the least for all activations and for none there is room for a few.
	var again *calib.Statistics
	var enough int64
	for free := int64(1 << 26); free > 1<<20 && again == nil; free = free / 8 * 7 {
		switch s, notes := gather(free); {
		case len(notes) == 1 && strings.Contains(notes[0], "computed again block by block"):
			again = s
		case len(notes) > 0:
			t.Fatalf("with %d bytes: %q", free, notes)
		default:
			enough = free
		}
	}
	if again == nil {
		t.Fatal("activations were never computed again")
	}
	if _, notes := gatherBy(2, enough); len(notes) == 0 {
		t.Errorf("%d bytes are enough for one sample, and for two at the same time", enough)
	}
	if len(again.Gradients) != len(want.Gradients) {
		t.Errorf("%d gradients, want %d", len(again.Gradients), len(want.Gradients))
	}
	for i := range want.Observations {
		sameStatistics(t, again.Observations[i], want.Observations[i])
	}
	for _, free := range []int64{1 << 10, 1} { // 1: memory is full
		few, notes := gather(free)
		if len(few.Gradients) > 0 || len(notes) != 1 || !strings.Contains(notes[0], "of memory, and there is room for") {
			t.Errorf("in %d bytes: %d gradients, %q", free, len(few.Gradients), notes)
		}
	}
}
