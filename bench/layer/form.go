// Package layer makes one linear layer in every form worth comparing, ours and those of ONNX Runtime, and times them
// side by side.
//
// It prepares models and judges times and outputs; running them is left to the caller (Runner), so that it knows no runtime.
package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// Names of the input and output of every model.
const (
	Input  = "x" // [batch, K]
	Output = "y" // [batch, N]
)

// Form is a stored layer Y = X·Wᵀ.
type Form struct {
	Name string
	// Path is the model's file.
	Path string
	// Native forms run on our library, with the accuracy of the same name (docs/ops.md).
	Native   bool
	Accuracy string
	// rows [sampled × K] are the weights as this form sees them, of the sampled rows.
	rows []float32
}

// Layer is a float layer with normal weights, and forms of it.
type Layer struct {
	N, K    int
	Forms   []Form
	dir     string
	weights []float32 // [K × N], as MatMul stores them
	sample  []int     // the rows whose outputs are judged
}

// sampledRows is the number of rows whose outputs are judged: float64 products of all would take longer than the timing.
const sampledRows = 256

// New draws a layer of N × K. Its files go to the folder dir.
func New(n, k int, dir string) (*Layer, error) {
	l := &Layer{N: n, K: k, dir: dir, weights: make([]float32, n*k)}
	rng := rand.New(rand.NewPCG(uint64(n), uint64(k)))
	for i := range l.weights {
		l.weights[i] = float32(rng.NormFloat64() * 0.02)
	}
	for i := range sampledRows {
		l.sample = append(l.sample, i*n/sampledRows)
	}
	return l, l.add(Form{Name: "float32 MatMul"}, l.float(), l)
}

// Dims and Rows make the layer a quant.Source.
func (l *Layer) Dims() (n, k int) { return l.N, l.K }

// Rows writes rows n0 … n1−1 of W, [(n1−n0) × K].
func (l *Layer) Rows(dst []float32, n0, n1 int) error {
	for r := n0; r < n1; r++ {
		for c := range l.K {
			dst[(r-n0)*l.K+c] = l.weights[c*l.N+r]
		}
	}
	return nil
}

// model starts a model without nodes.
func (l *Layer) model() *onnx.Model {
	m := onnx.NewModel(8, 17, "layer")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo(Input, onnx.Float, "batch", int64(l.K))}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo(Output, onnx.Float, "batch", int64(l.N))}
	return m
}

func (l *Layer) float() *onnx.Model {
	m := l.model()
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{int64(l.K), int64(l.N)}, l.weights)}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{Input, "w"}, []string{Output})}
	return m
}

// add writes the model of a form, and keeps the weights that it sees.
func (l *Layer) add(f Form, m *onnx.Model, seen quant.Source) error {
	f.rows = make([]float32, len(l.sample)*l.K)
	for i, r := range l.sample {
		if err := seen.Rows(f.rows[i*l.K:(i+1)*l.K], r, r+1); err != nil {
			return err
		}
	}
	f.Path = filepath.Join(l.dir, fmt.Sprintf("%dx%d-%d.onnx", l.N, l.K, len(l.Forms)))
	if _, err := m.Save(f.Path, onnx.SaveOptions{External: onnx.ExternalAlways}); err != nil {
		return err
	}
	l.Forms = append(l.Forms, f)
	return nil
}

// decoded is a coded weight as a Source.
type decoded struct{ *quant.Matrix }

func (d decoded) Dims() (n, k int) { return d.N, d.K }

func (d decoded) Rows(dst []float32, n0, n1 int) error { return d.DecodeRows(dst, n0, n1) }

// AddCoded adds the layer coded with a codec, once for each accuracy. encoder may be nil.
func (l *Layer) AddCoded(ctx context.Context, codec *lattice.Codec, encoder lattice.RowCoder, accuracies map[string]string) error {
	m := l.float()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		return err
	}
	coded, err := quant.Quantize(ctx, l, quant.Options{Codec: codec, Encoder: encoder})
	if err != nil {
		return err
	}
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: sites[0], Matrix: coded.Matrix}}, "layer"); err != nil {
		return err
	}
	for _, name := range []string{"accurate", "fast"} {
		f := Form{Name: "cosetq " + codec.String() + " " + name, Native: true, Accuracy: accuracies[name]}
		if err := l.add(f, m, decoded{coded.Matrix}); err != nil {
			return err
		}
	}
	return nil
}

// AddNBits adds com.microsoft::MatMulNBits.
func (l *Layer) AddNBits(o rewrite.NBitsOptions) error {
	m := l.float()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		return err
	}
	if _, err := rewrite.ExportNBits(m, sites, o); err != nil {
		return err
	}
	seen := &blockRows{Layer: l, bits: o.Bits, block: o.Block}
	for i, to := range []io.Writer{&seen.codes, &seen.scales} {
		if _, err := m.Graph.Initializers[i].Data.WriteTo(to); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("MatMulNBits %d bits block %d acc %d", o.Bits, o.Block, o.AccuracyLevel)
	return l.add(Form{Name: name}, m, seen)
}

// blockRows are the weights as MatMulNBits sees them.
type blockRows struct {
	*Layer
	bits, block   int
	codes, scales bytes.Buffer
}

// Rows decodes whole blocks; K is a multiple of every block size used here.
func (b *blockRows) Rows(dst []float32, n0, _ int) error {
	perByte, mask, middle := 8/b.bits, byte(1<<b.bits-1), float32(int(1)<<(b.bits-1))
	codes, scales := b.codes.Bytes(), b.scales.Bytes()
	for i := range dst {
		at := n0*b.K + i
		scale := math.Float32frombits(binary.LittleEndian.Uint32(scales[at/b.block*4:]))
		dst[i] = (float32(codes[at/perByte]>>(at%perByte*b.bits)&mask) - middle) * scale
	}
	return nil
}

// Keep drops the forms whose names contain none of the words. The float form always stays.
func (l *Layer) Keep(words []string) {
	l.Forms = slices.DeleteFunc(l.Forms, func(f Form) bool {
		return f.Path != l.Forms[0].Path && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(f.Name, w) })
	})
}

// byteRows are weights of 8 bits with a scale per row.
type byteRows struct{ *Layer }

func (b byteRows) round(dst []float32) (scale float32) {
	var largest float32
	for _, w := range dst {
		largest = max(largest, w, -w)
	}
	scale = largest / 127
	for i, w := range dst {
		dst[i] = float32(math.RoundToEven(float64(w / scale)))
	}
	return scale
}

func (b byteRows) Rows(dst []float32, n0, n1 int) error {
	for r := n0; r < n1; r++ {
		row := dst[(r-n0)*b.K : (r-n0+1)*b.K]
		if err := b.Layer.Rows(row, r, r+1); err != nil {
			return err
		}
		scale := b.round(row)
		for i := range row {
			row[i] *= scale
		}
	}
	return nil
}

// AddDynamicInt8 adds the form that ONNX Runtime's dynamic quantization makes: weights of 8 bits with a scale per row,
// activations rounded at every run.
func (l *Layer) AddDynamicInt8() error {
	q, scales := make([]int8, l.N*l.K), make([]float32, l.N)
	row := make([]float32, l.K)
	for r := range l.N {
		if err := l.Rows(row, r, r+1); err != nil {
			return err
		}
		scales[r] = byteRows{l}.round(row)
		for c, v := range row {
			q[c*l.N+r] = int8(v)
		}
	}
	m := l.model()
	m.Graph.Initializers = []*onnx.Tensor{
		onnx.NewTensor("q", []int64{int64(l.K), int64(l.N)}, q),
		onnx.NewTensor("s", []int64{int64(l.N)}, scales),
	}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("DynamicQuantizeLinear", []string{Input}, []string{"xq", "xs", "xz"}),
		onnx.NewNode("MatMulInteger", []string{"xq", "q", "xz"}, []string{"i"}),
		onnx.NewNode("Cast", []string{"i"}, []string{"f"}, onnx.IntAttr("to", int64(onnx.Float))),
		onnx.NewNode("Mul", []string{"xs", "s"}, []string{"t"}),
		onnx.NewNode("Mul", []string{"f", "t"}, []string{Output}),
	}
	return l.add(Form{Name: "dynamic int8"}, m, byteRows{l})
}
