package conformance

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
)

// square is a normal weight of size × size.
type square int

func (s square) Dims() (n, k int) { return int(s), int(s) }

func (s square) Rows(dst []float32, n0, _ int) error {
	rng := rand.New(rand.NewPCG(uint64(s), uint64(n0)))
	for i := range dst {
		dst[i] = float32(rng.NormFloat64())
	}
	return nil
}

// variant is bytes of which the first differ, lest equal tensors be stored once.
type variant struct {
	raw []byte
	by  byte
}

func (v variant) Size() int64 { return int64(len(v.raw)) }

func (v variant) WriteTo(w io.Writer) (int64, error) {
	first := []byte{v.raw[0] ^ v.by}
	n, err := w.Write(append(first, v.raw[1:]...))
	return int64(n), err
}

// chain writes a model of count layers one after the other, each with codes of its own in one file of external data, and
// returns the size of that file.
func chain(t *testing.T, path, library string, size, count int) int64 {
	t.Helper()
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	options := quant.Options{Codec: codec}
	if e, err := ort.OpenEncoder(library, codec); err == nil {
		options.Encoder = e
	}
	w, err := quant.Quantize(context.Background(), square(size), options)
	if err != nil {
		t.Fatal(err)
	}
	m := onnx.NewModel(8, 17, "chain")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, int64(1), int64(size))}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("x1", onnx.Float, int64(1), int64(size))}
	m.Graph.Initializers = []*onnx.Tensor{onnx.NewTensor("w", []int64{int64(size), int64(size)}, make([]float32, size*size))}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"x0", "w"}, []string{"x1"})}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rewrite.Apply(m, []rewrite.Replacement{{Site: sites[0], Matrix: w.Matrix}}, "chain"); err != nil {
		t.Fatal(err)
	}
	node, tensors := m.Graph.Nodes[0], m.Graph.Initializers
	for i := 1; i < count; i++ {
		next := *node
		next.Name = fmt.Sprint("layer ", i)
		next.Inputs = append([]string{fmt.Sprint("x", i)}, node.Inputs[1:]...)
		next.Outputs = []string{fmt.Sprint("x", i+1)}
		for j, name := range next.Inputs {
			for _, tensor := range tensors {
				if tensor.Name == name {
					raw, err := tensor.RawBytes()
					if err != nil {
						t.Fatal(err)
					}
					next.Inputs[j] = fmt.Sprint(name, "_", i)
					m.Graph.Initializers = append(m.Graph.Initializers, &onnx.Tensor{
						Name: next.Inputs[j], Dims: tensor.Dims, DataType: tensor.DataType, Data: variant{raw, byte(i)},
					})
				}
			}
		}
		m.Graph.Nodes = append(m.Graph.Nodes, &next)
	}
	m.Graph.Outputs[0].Name = fmt.Sprint("x", count)
	files, err := m.Save(path, onnx.SaveOptions{External: onnx.ExternalAlways})
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, f := range files {
		bytes += f.Bytes
	}
	return bytes
}

// resident is the memory of the process that is of the kind ("RssFile:" for mapped files, "RssAnon:" for the rest), in bytes.
func resident(t *testing.T, kind string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, ok := strings.Cut(string(status), kind)
	if !ok {
		t.Skipf("the system does not tell %s", kind)
	}
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// Loading reads no weights, nor does it copy them: they stay in the mapped file. The long form has 500 MB of them.
func TestLoadReadsNoWeights(t *testing.T) {
	library, rt := testenv.Ops(t), openRuntime(t)
	size, count := 1024, 64
	if testenv.Slow() {
		size, count = 4096, 57
	}
	path := filepath.Join(t.TempDir(), "chain.onnx")
	bytes := chain(t, path, library, size, count)
	file, own := resident(t, "RssFile:"), resident(t, "RssAnon:")
	start := time.Now()
	session, err := rt.NewSession(path, ort.SessionOptions{Threads: 1, OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	took := time.Since(start)
	file, own = resident(t, "RssFile:")-file, resident(t, "RssAnon:")-own
	t.Logf("%.0f MB of %d layers in %d ms; memory grew by %.1f MB of mapped files and %.1f MB of others", float64(bytes)*1e-6, count,
		took.Milliseconds(), float64(file)*1e-6, float64(own)*1e-6)
	if limit := bytes / 4; file > limit || own > limit {
		t.Errorf("loading %d bytes took %d bytes of mapped files and %d of others", bytes, file, own)
	}
}
