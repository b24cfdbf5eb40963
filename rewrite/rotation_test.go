package rewrite_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// turnedOnGrid returns a matrix coded under a rotation and the weight that it stands for.
func turnedOnGrid(t testing.TB, rng *rand.Rand, codec string, n, k int) (*quant.Matrix, rows) {
	t.Helper()
	w := rows{n, k, normal(rng, n*k)}
	r, err := quant.Quantize(context.Background(), w, quant.Options{Codec: parseCodec(t, codec), Rotation: quant.NewRotation(k, 5)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Matrix.Rotation == nil {
		t.Fatalf("no rotation of %d columns", k)
	}
	if err := r.Matrix.DecodeRows(w.v, 0, n); err != nil {
		t.Fatal(err)
	}
	return r.Matrix, w
}

// TestRotationAtEveryOpset runs bodies that turn some weights back, and leave others of the same model as they are.
func TestRotationAtEveryOpset(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(14, 5))
	first, w1 := turnedOnGrid(t, rng, "d4:4,4:g2,3,4,6", 64, 96)
	second, w2 := onGrid(t, rng, "d4:2,4:g3,4,5,7", 33, 64)
	third, w3 := onGrid(t, rng, "d4:4:g1,2,3,4", 256, 33)
	fourth, w4 := turnedOnGrid(t, rng, "d4:4", 40, 256)
	for opset := int64(rewrite.MinOpset); opset <= rewrite.MaxOpset; opset++ {
		t.Run(fmt.Sprint("opset ", opset), func(t *testing.T) {
			m, inputs := chainModel(opset, onnx.Float, w1, w2, w3, w4)
			before := onnx.Clone(m)
			apply(t, m, first, second, third, fourth)
			sameOutputs(t, before, m, inputs, 1e-5)
		})
	}
}

// TestRotationIsReadBack also tests that a matrix without a rotation stays without one beside others that have it.
func TestRotationIsReadBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 5))
	first, w1 := turnedOnGrid(t, rng, "d4:4,4:g2,3,4,6", 64, 96)
	second, w2 := onGrid(t, rng, "d4:2,4:g3,4,5,7", 33, 64)
	for _, opset := range []int64{9, 17} {
		m, _ := chainModel(opset, onnx.Float, w1, w2)
		r := apply(t, m, first, second)
		if want := first.Bytes() + second.Bytes() + 256*4 + (16+256)*4 + 8; r.Bytes != want {
			t.Errorf("opset %d: %d bytes, want %d with two codebooks and 64 signs", opset, r.Bytes, want)
		}
		linears, err := rewrite.ReadLinears(reopen(t, m))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []rows{w1, w2} {
			got := make([]float32, len(want.v))
			if err := linears[i].Matrix.DecodeRows(got, 0, want.n); err != nil {
				t.Fatal(err)
			}
			for j := range got {
				if got[j] != want.v[j] {
					t.Fatalf("opset %d, node %d: weight %d is %v, want %v", opset, i, j, got[j], want.v[j])
				}
			}
		}
		if linears[0].Matrix.Rotation == nil || linears[1].Matrix.Rotation != nil {
			t.Errorf("opset %d: rotations %v and %v", opset, linears[0].Matrix.Rotation, linears[1].Matrix.Rotation)
		}
	}
}

// TestRotationBesideOlderNodes quantizes a model in two runs, the second with a rotation: the nodes of the first get the
// inputs that the function now takes.
func TestRotationBesideOlderNodes(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(16, 5))
	first, w1 := onGrid(t, rng, "d4:4,4:g2,3,4,6", 64, 96)
	second, w2 := turnedOnGrid(t, rng, "d4:4,4:g2,3,4,6", 33, 64)
	for _, opset := range []int64{9, 17} {
		m, inputs := chainModel(opset, onnx.Float, w1, w2)
		before := onnx.Clone(m)
		for _, matrix := range []*quant.Matrix{first, second} {
			for _, s := range find(t, m) {
				if s.Status == rewrite.Candidate && s.N == matrix.N {
					if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: s, Matrix: matrix}}, "test"); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if count(m, "HNLQLinear") != 2 {
			t.Fatalf("not replaced:\n%s", dump(t, m))
		}
		sameOutputs(t, before, m, inputs, 1e-5)
	}
}

// TestOlderNodesWithoutFunction quantizes further what ONNX Runtime saved with the native library loaded, which drops the functions of
// nodes that have a kernel: the new function has to decode those nodes too.
func TestOlderNodesWithoutFunction(t *testing.T) {
	testenv.ORT(t)
	rng := rand.New(rand.NewPCG(17, 5))
	first, w1 := turnedOnGrid(t, rng, "d4:2,4:g3,4,5,7", 33, 96)
	second, w2 := onGrid(t, rng, "d4:4,4", 64, 33)
	m, inputs := chainModel(17, onnx.Float, w1, w2)
	before := onnx.Clone(m)
	for _, matrix := range []*quant.Matrix{first, second} {
		m.Functions = nil
		for _, s := range find(t, m) {
			if s.Status == rewrite.Candidate && s.N == matrix.N {
				if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: s, Matrix: matrix}}, "test"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if count(m, "HNLQLinear") != 2 {
		t.Fatalf("not replaced:\n%s", dump(t, m))
	}
	sameOutputs(t, before, m, inputs, 1e-5)
}
