package rewrite_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// compatFiles are written once per version of the format, with -update, and never again: a file of version 1 must decode
// to the same numbers for ever.
var compatFiles = []struct {
	name, codec string
	n, k        int
	opset       int64
	dt          onnx.DataType
	code        func(t testing.TB, rng *rand.Rand, codec string, n, k int) (*quant.Matrix, rows)
}{
	{"d4", "d4:4,4:g2,3,4,6", 25, 60, 17, onnx.Float, onGrid},              // gains, indexed scales, a rest of rows and columns
	{"d4_packed", "d4:2,4", 26, 60, 9, onnx.Float, onGrid},                 // two digits to a byte, no gains, the attributes of old opsets
	{"e8_direct", "e8:2,2:g1,2,3", 9, 132, 21, onnx.Float16, onGrid},       // a scale per row
	{"z2_odd", "z2:3,5", 33, 33, 13, onnx.Float, onGrid},                   // digits that do not fill their bits
	{"d4_turned", "d4:4,4:g3,4,5,6", 25, 48, 17, onnx.Float, turnedOnGrid}, // a rotation
}

func TestCompat(t *testing.T) {
	dir := filepath.Join("testdata", "compat", "v1")
	if *update {
		writeCompat(t, dir)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "compat", "*", "*.onnx"))
	if err != nil || len(files) < len(compatFiles) {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, path := range files {
		m, err := onnx.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		linears, err := rewrite.ReadLinears(m)
		if err != nil || len(linears) != 1 {
			t.Fatalf("%s: %d nodes, %v", path, len(linears), err)
		}
		q := linears[0].Matrix
		got := make([]float32, q.N*q.K)
		if err := q.DecodeRows(got, 0, q.N); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(path, ".onnx") + ".f32")
		if err != nil {
			t.Fatal(err)
		}
		if len(want) != 4*len(got) {
			t.Fatalf("%s: %d weights, recorded are %d", path, len(got), len(want)/4)
		}
		for i, v := range got {
			if recorded := math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:])); v != recorded {
				t.Fatalf("%s: weight %d decodes to %v, recorded is %v: old files would change their meaning", path, i, v, recorded)
			}
		}
	}
}

// writeCompat writes files that do not exist yet.
func writeCompat(t *testing.T, dir string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(60, 61))
	for _, c := range compatFiles {
		path := filepath.Join(dir, c.name+".onnx")
		matrix, w := c.code(t, rng, c.codec, c.n, c.k)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		m, _ := chainModel(c.opset, c.dt, w)
		apply(t, m, matrix)
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(strings.TrimSuffix(path, ".onnx")+".f32", onnx.RawFloat32(w.v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
