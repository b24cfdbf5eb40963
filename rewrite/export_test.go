package rewrite_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

// TestExportFloat takes coded models back to plain ones that compute the same.
func TestExportFloat(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(40, 41))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 130, 100)
	matrix2, w2 := onGrid(t, rng, "e8:2,2", 33, 130)
	for _, c := range []struct {
		format    rewrite.Format
		dt        onnx.DataType
		stored    onnx.DataType
		tolerance float64
	}{
		{rewrite.FP32, onnx.Float, onnx.Float, 2e-6},
		{rewrite.FP32, onnx.Float16, onnx.Float16, 2e-3},
		{rewrite.FP16, onnx.Float, onnx.Float16, 1e-3},
		{rewrite.FP16, onnx.Float16, onnx.Float16, 2e-3},
	} {
		t.Run(fmt.Sprintf("%s of %v", c.format, c.dt), func(t *testing.T) {
			m, inputs := chainModel(17, c.dt, w, w2)
			before := onnx.Clone(m)
			apply(t, m, matrix, matrix2)
			m = reopen(t, m)
			r, err := rewrite.Export(m, rewrite.ExportOptions{Format: c.format})
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, m)
			if _, imported := m.Opset("ai.coset"); r.Nodes != 2 || len(m.Functions) != 0 || imported || len(m.MetadataProps) != 0 || count(m, "MatMul") != 2 {
				t.Errorf("%+v\n%s", r, dump(t, m))
			}
			plain := m.Graph.Initializer("w0")
			if plain == nil || plain.DataType != c.stored || len(m.Graph.Initializers) != 3 {
				t.Fatalf("weights:\n%s", dump(t, m))
			}
			sameOutputs(t, before, m, inputs, c.tolerance)
			if c.stored == onnx.Float { // the very numbers
				got, err := reopen(t, m).Graph.Initializer("w0").Float32s()
				if err != nil || relativeError(w.transposed(), got) != 0 {
					t.Errorf("weights differ, error %v", err)
				}
			}
		})
	}
}

// TestExportInSubgraphs exports where weights are shared between graphs.
func TestExportInSubgraphs(t *testing.T) {
	for name, m := range goldenGraphs() {
		apply(t, m)
		if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP16}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wellFormed(t, m)
		if count(m, "HNLQLinear") != 0 {
			t.Errorf("%s:\n%s", name, dump(t, m))
		}
	}
}

func TestExportNothing(t *testing.T) {
	m := zoo()
	for _, format := range []rewrite.Format{rewrite.FP32, "fp64"} {
		if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: format}); err == nil {
			t.Errorf("%s: no error", format)
		}
	}
}

// TestMatMulNBits quantizes a float model to 4-bit blocks and checks the product against the same rounding done here. The
// sizes leave a rest in every block size.
func TestMatMulNBits(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(42, 43))
	w := rows{48, 100, normal(rng, 4800)}
	for _, block := range []int{16, 32, 128} {
		t.Run(fmt.Sprint("block ", block), func(t *testing.T) {
			rounded := rows{w.n, w.k, make([]float32, len(w.v))}
			for r := range w.n {
				for k0 := 0; k0 < w.k; k0 += block {
					roundBlock(rounded.v[r*w.k+k0:r*w.k+min(k0+block, w.k)], w.v[r*w.k+k0:r*w.k+min(k0+block, w.k)])
				}
			}
			want, inputs := chainModel(17, onnx.Float, rounded)
			got, _ := chainModel(17, onnx.Float, w)
			r, err := rewrite.ExportNBits(got, find(t, got), rewrite.NBitsOptions{Block: block, AccuracyLevel: 1})
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, got)
			if r.Nodes != 1 || count(got, "MatMulNBits") != 1 || got.Graph.Initializer("w0") != nil {
				t.Fatalf("%+v\n%s", r, dump(t, got))
			}
			sameOutputs(t, want, got, inputs, 1e-5)
		})
	}
}

// What integers cannot say stays float, and is named; numbers so small that their scale has no inverse become zeros, not the largest
// multiples of it.
func TestMatMulNBitsOfOddNumbers(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(44, 45))
	w, next := rows{48, 100, normal(rng, 4800)}, rows{40, 48, normal(rng, 1920)}
	for name, odd := range map[string]float64{"NaN": math.NaN(), "infinity": math.Inf(-1)} {
		bad := w.times(1)
		bad.v[1234] = float32(odd)
		m, _ := chainModel(17, onnx.Float, bad, next)
		r, err := rewrite.ExportNBits(m, find(t, m), rewrite.NBitsOptions{})
		if err != nil || !slices.Equal(r.NonFinite, []string{"w0"}) || r.Nodes != 1 || count(m, "MatMulNBits") != 1 || m.Graph.Initializer("w0") == nil {
			t.Errorf("%s: %+v, %v\n%s", name, r, err, dump(t, m))
		}
	}
	small, zeros := w.times(1), w.times(1)
	for i := range 100 {
		small.v[i], zeros.v[i] = float32(i%3)*1e-40, 0
	}
	want, inputs := chainModel(17, onnx.Float, zeros)
	got, _ := chainModel(17, onnx.Float, small)
	for _, m := range []*onnx.Model{want, got} {
		if _, err := rewrite.ExportNBits(m, find(t, m), rewrite.NBitsOptions{AccuracyLevel: 1}); err != nil {
			t.Fatal(err)
		}
	}
	sameOutputs(t, want, got, inputs, 0)
	for _, n := range reopen(t, got).Graph.Initializers {
		if b, err := n.Bytes(); n.DataType == onnx.Uint8 && (err != nil || slices.ContainsFunc(b[:50], func(c byte) bool { return c != 0x88 })) {
			t.Errorf("the integers of zeros are %x, %v", b[:50], err)
		}
	}
}

// roundBlock rounds to the multiples −8 … 7 of the number of largest magnitude over −8.
func roundBlock(dst, src []float32) {
	var extreme float32
	for _, v := range src {
		if math.Abs(float64(v)) > math.Abs(float64(extreme)) {
			extreme = v
		}
	}
	scale := extreme / -8
	for i, v := range src {
		dst[i] = scale * float32(max(-8, min(7, math.RoundToEven(float64(v/scale)))))
	}
}

// TestMatMulNBitsOfCodedModel rounds what the codes stand for, and keeps within int4's own error of it.
func TestMatMulNBitsOfCodedModel(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(44, 45))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 48, 64)
	m, inputs := chainModel(17, onnx.Float, w)
	before := onnx.Clone(m)
	apply(t, m, matrix)
	if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.MatMulNBits}); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, m)
	if count(m, "MatMulNBits") != 1 || len(m.Graph.Initializers) != 3 {
		t.Errorf("export:\n%s", dump(t, m))
	}
	for name, want := range run(t, before, ort.OptimizeAll, inputs) {
		if e := relativeError(want, run(t, m, ort.OptimizeAll, inputs)[name]); e == 0 || e > 0.2 {
			t.Errorf("error %.2g", e)
		}
	}
	for _, bad := range []rewrite.NBitsOptions{{Block: 48}, {Block: 512}, {AccuracyLevel: 5}} {
		if _, err := rewrite.ExportNBits(before, find(t, before), bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
