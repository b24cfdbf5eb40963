package rewrite_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// TestReadLinear codes one weight, writes the model, and reads the node again.
func TestReadLinear(t *testing.T) {
	rng := rand.New(rand.NewPCG(50, 51))
	for _, c := range []struct {
		codec string
		n, k  int
	}{
		{"d4:4,4:g2,3,4,6", 130, 100}, {"d4:2,4", 33, 32}, {"e8:4", 20, 56}, {"z1:16:g1,2,3", 16, 64}, {"d4:4:g1,2,4,8,16", 17, 1700},
	} {
		matrix, w := onGrid(t, rng, c.codec, c.n, c.k)
		for _, opset := range []int64{9, 17} {
			m, _ := chainModel(opset, onnx.Float, w)
			bias, err := m.Graph.Initializer("b").Float32s()
			if err != nil {
				t.Fatal(err)
			}
			apply(t, m, matrix)
			m = reopen(t, m)
			l, err := rewrite.ReadLinear(m, m.Graph.Nodes[0])
			if err != nil {
				t.Fatalf("%s: %v", c.codec, err)
			}
			if l.Activation != "x0" || l.DType != onnx.Float || !slices.Equal(l.Bias, bias) {
				t.Errorf("%s: %+v", c.codec, l)
			}
			if !sameMatrix(l.Matrix, matrix) {
				t.Errorf("%s: the matrix differs", c.codec)
			}
		}
	}
}

func sameMatrix(a, b *quant.Matrix) bool {
	return a.N == b.N && a.K == b.K && a.Tile == b.Tile && a.Exponent == b.Exponent && a.Codec.String() == b.Codec.String() &&
		bytes.Equal(a.Codes, b.Codes) && bytes.Equal(a.Gains, b.Gains) && slices.Equal(a.Scales, b.Scales) && bytes.Equal(a.ScaleIndex, b.ScaleIndex)
}

// TestReadRefusesLies damages one thing at a time.
func TestReadRefusesLies(t *testing.T) {
	rng := rand.New(rand.NewPCG(52, 53))
	matrix, w := onGrid(t, rng, "d4:4,4:g2,3,4,6", 40, 64)
	attr := func(name string, v ...float32) func(*onnx.Model, *onnx.Node) {
		return func(_ *onnx.Model, n *onnx.Node) {
			n.SetAttr(onnx.TensorAttr(name, onnx.NewTensor("", []int64{int64(len(v))}, v)))
		}
	}
	number := func(name string, v int64) func(*onnx.Model, *onnx.Node) {
		return func(_ *onnx.Model, n *onnx.Node) { n.SetAttr(onnx.IntAttr(name, v)) }
	}
	input := func(i int, change func(*onnx.Tensor)) func(*onnx.Model, *onnx.Node) {
		return func(m *onnx.Model, n *onnx.Node) { change(m.Graph.Initializer(n.Inputs[i])) }
	}
	for name, damage := range map[string]func(*onnx.Model, *onnx.Node){
		"K zero":            number("K", 0),
		"K negative":        number("K", -64),
		"K too large":       number("K", 65),
		"K enormous":        number("K", 1<<62),
		"N too small":       number("N", 8),
		"N enormous":        number("N", 1<<40),
		"compute type":      number("compute_type", 11),
		"codec unknown":     func(_ *onnx.Model, n *onnx.Node) { n.SetAttr(onnx.StringAttr("codec", "d5:4")) },
		"codec another":     func(_ *onnx.Model, n *onnx.Node) { n.SetAttr(onnx.StringAttr("codec", "d4:4,2:g2,3,4,6")) },
		"slots short":       attr("slots", 0, 1, 2, 3),
		"slots absent":      func(_ *onnx.Model, n *onnx.Node) { n.SetAttr(onnx.IntAttr("slots", 3)) },
		"level weights":     attr("level_weights", 1, 5),
		"no power of two":   attr("level_weights", 3, 12),
		"infinite":          attr("level_weights", float32(math.Inf(1)), 1),
		"gains":             attr("gain_values", 1, 2, 3, 4),
		"scale divisors":    attr("scale_divisors", 1),
		"codes dimensions":  input(1, func(t *onnx.Tensor) { t.Dims[1]++ }),
		"codes tile":        input(1, func(t *onnx.Tensor) { t.Dims[0], t.Dims[3] = t.Dims[3], t.Dims[0] }),
		"codes type":        input(1, func(t *onnx.Tensor) { t.DataType = onnx.Int8 }),
		"codes truncated":   input(1, func(t *onnx.Tensor) { t.RawData = t.RawData[:7] }),
		"scales dimensions": input(2, func(t *onnx.Tensor) { t.Dims = []int64{1, 16} }),
		"scales infinite":   input(2, func(t *onnx.Tensor) { t.RawData = bytes.Repeat([]byte{0, 0x7c}, 16) }),
		"index short":       input(3, func(t *onnx.Tensor) { t.Dims[0]-- }),
		"codebook":          input(4, func(t *onnx.Tensor) { t.RawData = make([]byte, len(t.RawData)) }),
		"gains dimensions":  input(5, func(t *onnx.Tensor) { t.Dims[1]++ }),
		"bias dimensions":   input(6, func(t *onnx.Tensor) { t.Dims[0] = 5 }),
		"bias type":         input(6, func(t *onnx.Tensor) { t.DataType = onnx.Int32 }),
		"codes computed":    func(_ *onnx.Model, n *onnx.Node) { n.Inputs[1] = "x0" },
		"codes missing":     func(_ *onnx.Model, n *onnx.Node) { n.Inputs[1] = "" },
		"inputs missing":    func(_ *onnx.Model, n *onnx.Node) { n.Inputs = n.Inputs[:4] },
		"version":           func(m *onnx.Model, _ *onnx.Node) { m.SetOpset("ai.coset", 2) },
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := chainModel(17, onnx.Float, w)
			apply(t, m, matrix)
			m = onnx.Clone(m)
			damage(m, m.Graph.Nodes[0])
			if _, err := rewrite.ReadLinears(m); err == nil {
				t.Error("read without an error")
			} else if _, err := rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.FP32}); err == nil {
				t.Error("exported without an error")
			} else if rewrite.Supports(m) == nil {
				t.Error("its function would be written anew") // and the node with it, for whatever it is
			}
		})
	}
}

// FuzzModel looks for panics in everything that reads a foreign model.
func FuzzModel(f *testing.F) {
	for _, m := range goldenGraphs() {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	rng := rand.New(rand.NewPCG(62, 63))
	batch, _ := batchForm{x: []int64{2}, declared: []any{"experts"}, lead: []int64{1, 2}}.model(rng, newGrid(f, rng, 2))
	whole, err := batch.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	rewrite.SplitBatches(batch)
	apart, err := batch.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(apart)
	files, err := filepath.Glob(filepath.Join("testdata", "compat", "*", "*.onnx"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := onnx.Parse(b)
		if err != nil {
			return
		}
		rewrite.SplitBatches(m)
		sites, err := rewrite.FindSites(m, rewrite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		rewrite.JoinBatches(onnx.Clone(m))
		for _, s := range sites {
			if s.Weight != nil && s.K < 1<<16 {
				_ = s.Weight.Rows(make([]float32, s.K), 0, 1)
			}
		}
		if linears, err := rewrite.ReadLinears(m); err == nil {
			for _, l := range linears {
				if err := l.Matrix.DecodeRows(make([]float32, l.Matrix.K), 0, 1); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestApplyCountsWhatWasCoded makes a model in two steps: all that is stored for weights counts, not only that of the last step.
func TestApplyCountsWhatWasCoded(t *testing.T) {
	rng := rand.New(rand.NewPCG(60, 61))
	first, w := onGrid(t, rng, "d4:4,4:g3,4,5,6", 48, 100)
	m, _ := chainModel(17, onnx.Float, w, rows{40, 48, normal(rng, 1920)})
	before, err := rewrite.Apply(m, []rewrite.Replacement{{Site: find(t, m)[0], Matrix: first}}, "test")
	if err != nil {
		t.Fatal(err)
	}
	m = reopen(t, m)
	site := find(t, m)[1]
	second, err := quant.Quantize(t.Context(), site.Weight, quant.Options{Codec: parseCodec(t, "d4:4:g3,4,5,7"), Rotation: quant.NewRotation(48, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := rewrite.Apply(m, []rewrite.Replacement{{Site: site, Matrix: second.Matrix}}, "test")
	if err != nil {
		t.Fatal(err)
	}
	stored := int64(2) // the exponents
	for _, i := range m.Graph.Initializers {
		for _, kind := range []string{".codes", ".scales", ".index", ".gains", ".signs", "codebook", "no_rotation"} {
			if strings.Contains(i.Name, kind) {
				size, err := i.ByteSize()
				if err != nil {
					t.Fatal(err)
				}
				stored += size
			}
		}
	}
	if r.Nodes != 1 || r.Weights != 48*100+40*48 || r.Bytes != stored || r.Bytes <= before.Bytes {
		t.Errorf("%+v, want %d bytes of %d weights", r, stored, 48*100+40*48)
	}
	if codecs, _ := m.Metadata(rewrite.MetadataCodec); codecs != "d4:4,4:g3,4,5,6 d4:4:g3,4,5,7" {
		t.Errorf("the model says that its codecs are %q", codecs)
	}
}
