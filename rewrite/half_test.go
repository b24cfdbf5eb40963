package rewrite_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// TestExportHalf stores weights in float16, but for those whose numbers it has no room for.
func TestExportHalf(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(50, 51))
	w, next := rows{48, 100, normal(rng, 4800)}, rows{40, 48, normal(rng, 1920)}
	for _, c := range []struct {
		name   string
		factor float32
		kept   []string
	}{
		{"ordinary", 1, nil}, {"overflow", 1e5, []string{"w0"}}, {"underflow", 1e-7, []string{"w0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, inputs := chainModel(17, onnx.Float, w.times(c.factor), next)
			before := onnx.Clone(m)
			r, err := rewrite.ExportHalf(m, find(t, m))
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, m)
			if !slices.Equal(r.Kept, c.kept) || r.Nodes != 2-len(c.kept) || count(m, "Cast") != r.Nodes {
				t.Errorf("%+v\n%s", r, dump(t, m))
			}
			sameOutputs(t, before, m, inputs, 1e-3)
			if again, err := rewrite.ExportHalf(m, find(t, m)); err == nil || again != nil {
				t.Errorf("what was done once is done again: %+v\n%s", again, dump(t, m))
			}

			// The same of codes.
			coded := onnx.Clone(before)
			apply(t, coded)
			coded = reopen(t, coded)
			plain := onnx.Clone(coded)
			r, err = rewrite.Export(plain, rewrite.ExportOptions{Format: rewrite.FP16})
			if err != nil || !slices.Equal(r.Kept, c.kept) {
				t.Fatalf("%+v, %v", r, err)
			}
			sameOutputs(t, coded, plain, inputs, 1e-3)
		})
	}
	m, _ := chainModel(17, onnx.Float, w.times(1e6))
	if _, err := rewrite.ExportHalf(m, find(t, m)); !errors.Is(err, rewrite.ErrNothing) {
		t.Errorf("error %v", err)
	}
}

// TestExportRaisesIRVersion: before IR version 4 every initializer stands among the inputs as well, which new ones do not.
func TestExportRaisesIRVersion(t *testing.T) {
	w := rows{48, 100, normal(rand.New(rand.NewPCG(52, 53)), 4800)}
	for name, export := range map[string]func(*onnx.Model) error{
		"float16": func(m *onnx.Model) error {
			_, err := rewrite.ExportHalf(m, find(t, m))
			return err
		},
		"MatMulNBits": func(m *onnx.Model) error {
			_, err := rewrite.ExportNBits(m, find(t, m), rewrite.NBitsOptions{})
			return err
		},
	} {
		m, _ := chainModel(8, onnx.Float, w)
		m.IRVersion = 3
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo("w0", onnx.Float, 100, 48))
		if err := export(m); err != nil {
			t.Fatal(err)
		}
		if m.IRVersion < 4 || len(m.Graph.Inputs) != 1 {
			t.Errorf("%s: IR version %d, %d inputs", name, m.IRVersion, len(m.Graph.Inputs))
		}
	}
}
