package cosetq

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/journal"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// failingLate runs a session and then fails.
type failingLate struct{ grad.Session }

func (s failingLate) Run(ctx context.Context, in map[string]*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	if _, err := s.Session.Run(ctx, in); err != nil {
		return nil, err
	}
	return nil, errors.New("no memory for the last node")
}

// A first run with gradients that fails midway leaves nothing behind: its rows are observed once, without gradients.
func TestFirstGradientFailsMidway(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	model := filepath.Join(dir, "m.onnx")
	if _, err := oneToken().Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, data := tokenRows(t, dir, importanceSamples)
	c, err := newCalibration(t.Context(), model, calibrationOptions{threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	defer c.close()
	load := c.importance.load
	c.importance.load = func(m *onnx.Model, literal bool) (grad.Session, error) {
		s, err := load(m, literal)
		if err != nil || literal {
			return s, err
		}
		return failingLate{s}, nil
	}
	s, err := c.gather(t.Context(), data, calib.Options{}, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rows := s.Observations[0].Rows; rows != importanceSamples*importanceTokens {
		t.Errorf("%d rows observed, there are %d", rows, importanceSamples*importanceTokens)
	}
	if notes := c.notes(); len(notes) != 1 || !strings.Contains(notes[0], "no memory for the last node") {
		t.Errorf("%q", notes)
	}
}

// A run that goes on with the statistics of its journal says of them what the run did that gathered them.
func TestNotesOfResumedCalibration(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	dir := t.TempDir()
	m := oneToken()
	m.Graph.Initializers[2] = onnx.NewTensor("axis", []int64{2}, []int64{1, 2}) // one number a sample: no classes, so no gradient
	m.Graph.Nodes[2] = onnx.NewNode("ReduceSum", []string{"masked", "axis"}, []string{"logits"})
	m.Graph.Outputs[0] = onnx.NewValueInfo("logits", onnx.Float, "batch", 1, 1)
	model := filepath.Join(dir, "m.onnx")
	if _, err := m.Save(model, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	opened, err := OpenModel(model)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	sites, err := rewrite.FindSites(opened, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := QuantizeOptions{Method: LDLQ}
	_, o.Data = tokenRows(t, dir, importanceSamples)
	j, err := journal.Create(filepath.Join(dir, "q.onnx.journal"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var notes [2][]string
	for i := range notes {
		r := &QuantizeReport{}
		h, err := o.openHessians(t.Context(), r, opened, sites, j)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		notes[i] = r.Notes
	}
	if len(notes[0]) != 1 || !slices.Equal(notes[0], notes[1]) {
		t.Errorf("at first %q, resumed %q", notes[0], notes[1])
	}
	// What a calibration leaves there is no stranger's: --force discards it.
	if err := journal.Discard(j.Dir(), ownInJournal...); err != nil {
		t.Error(err)
	}
}
