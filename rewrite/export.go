package rewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// Format is what [Export] writes in place of the coded weights.
type Format string

// The formats of [Export].
const (
	// FP32 stores the weights in the type the graph computes in: float32, and float16 in a float16 graph.
	FP32 Format = "fp32"
	// FP16 stores them in float16; a float32 graph gets a Cast behind each, so that inputs, outputs and all other tensors keep
	// their type.
	FP16 Format = "fp16"
	// MatMulNBits stores them as 4-bit integers for com.microsoft::MatMulNBits, quantized a second time.
	MatMulNBits Format = "matmulnbits"
)

// ExportOptions of [Export].
type ExportOptions struct {
	Format Format
	NBits  NBitsOptions // of the format MatMulNBits
}

// ExportResult says what [Export] did.
type ExportResult struct {
	Nodes    int // nodes replaced
	Matrices int // weights stored
	// Kept names the weights that stay float32 in spite of FP16, because float16 has no room for numbers of their size, or plain in
	// spite of MatMulNBits, because a Gather reads them.
	Kept []string
	// NonFinite names those that stay plain in spite of MatMulNBits because NaN or infinity are among them, which integers cannot say.
	NonFinite []string
}

// Export replaces every HNLQLinear and HNLQGather of m by standard operators with plain weights and removes the functions, the opset
// import and the metadata of cosetq. The weights are decoded when m is written, a part at a time. It fails, with m
// unchanged, when a node cannot be read.
func Export(m *onnx.Model, opts ExportOptions) (*ExportResult, error) {
	if !slices.Contains([]Format{FP32, FP16, MatMulNBits}, opts.Format) {
		return nil, fmt.Errorf("rewrite: unknown export format %q: want %s, %s or %s", opts.Format, FP32, FP16, MatMulNBits)
	}
	if err := opts.NBits.check(); err != nil {
		return nil, err
	}
	linears, err := ReadLinears(m)
	if err != nil {
		return nil, err
	}
	if len(linears) == 0 {
		return nil, fmt.Errorf("rewrite: the model has no %s::%s and no %s to export", cudaops.Domain, cudaops.OpName, cudaops.GatherName)
	}
	opset, _ := m.Opset("")
	e := newEditor(m, opset)
	x := &exporter{editor: e, opts: opts, weights: map[string]string{}, blocks: map[string]*blockWeight{}, tables: map[string]bool{}}
	for _, l := range linears {
		x.tables[l.key] = x.tables[l.key] || l.Gather
	}
	if opts.Format == FP16 {
		if err := x.chooseStored(linears); err != nil {
			return nil, err
		}
	}
	for _, l := range linears {
		e.touch(l.scope.Graph)
		e.swap[l.Node] = x.plain(l)
		for i := 1; i < len(l.Node.Inputs); i++ {
			e.drop(l.scope, l.Node.Inputs[i])
		}
	}
	e.finish()
	m.Functions = slices.DeleteFunc(m.Functions, isOurs)
	m.OpsetImports = slices.DeleteFunc(m.OpsetImports, func(o *onnx.OpsetImport) bool { return o.Domain == cudaops.Domain })
	m.MetadataProps = slices.DeleteFunc(m.MetadataProps, func(p *onnx.Property) bool { return strings.HasPrefix(p.Key, "cosetq.") })
	if opts.Format == MatMulNBits {
		m.SetOpset(microsoft, 1)
	}
	prune(m, e.dropped)
	return &ExportResult{Nodes: len(linears), Matrices: len(x.weights) + len(x.blocks), Kept: x.kept}, nil
}

// exporter writes nodes with plain weights.
type exporter struct {
	editor  *editor
	opts    ExportOptions
	weights map[string]string       // key of the coded weight to the value that holds the plain one
	blocks  map[string]*blockWeight // the same for MatMulNBits
	tables  map[string]bool         // keys of the weights that a Gather reads: stored as W [N × K], others as Wᵀ
	halves  map[string]bool         // keys of the weights that become float16
	kept    []string                // names of those that were to
}

// chooseStored decides which weights of a float32 graph become float16.
func (x *exporter) chooseStored(linears []*Linear) error {
	x.halves = map[string]bool{}
	for _, l := range linears {
		if _, known := x.halves[l.key]; known || l.DType == onnx.Float16 {
			continue
		}
		fits, err := fitsHalf(codedRows{l.Matrix})
		if err != nil {
			return err
		}
		if x.halves[l.key] = fits; !fits {
			x.kept = append(x.kept, l.baseName())
		}
	}
	return nil
}

// baseName is the name that the weight had before it was coded.
func (l *Linear) baseName() string { return strings.TrimSuffix(l.stored[1].Name, ".codes") }

// plain returns the nodes that stand in for l: the product, and an Add when there is a bias; or the Gather.
func (x *exporter) plain(l *Linear) []*onnx.Node {
	e, n := x.editor, l.Node
	bias := ""
	if l.Bias != nil {
		bias = n.Inputs[6]
	}
	owner := l.stored[1].Scope.Graph
	base := l.baseName()
	var nodes []*onnx.Node
	table := x.tables[l.key]
	if x.opts.Format == MatMulNBits && !table {
		w := x.blocks[l.key]
		if w == nil {
			w = e.storeBlocks(codedRows{l.Matrix}, owner, base, l.DType, x.opts.NBits)
			x.blocks[l.key] = w
		}
		nodes = e.nbitsNodes(w, l.Activation, bias, n.Outputs[0])
		nodes[0].Name = n.Name
		return nodes
	}
	stored := l.DType
	if x.halves[l.key] {
		stored = onnx.Float16
	}
	weight := x.weights[l.key]
	if weight == "" {
		dims := []int64{int64(l.Matrix.K), int64(l.Matrix.N)}
		if table {
			slices.Reverse(dims)
		}
		weight = e.addInitializer(owner, base, onnx.NewStreamTensor("", stored, dims, &decoded{l: l, dtype: stored, table: table}))
		x.weights[l.key] = weight
		if x.opts.Format == MatMulNBits {
			x.kept = append(x.kept, base)
		}
	}
	if stored != l.DType {
		// Each node has its own Cast: one in an outer graph could stand behind the node that needs it.
		cast := onnx.NewNode("Cast", []string{weight}, []string{e.names.Unique(weight + ".float")}, onnx.IntAttr("to", int64(l.DType)))
		cast.Name = e.names.Unique(weight + ".cast")
		nodes = append(nodes, cast)
		weight = cast.Outputs[0]
	}
	if l.Gather {
		gather := onnx.NewNode("Gather", []string{weight, l.Activation}, []string{n.Outputs[0]}, onnx.IntAttr("axis", 0))
		gather.Name, gather.DocString, gather.MetadataProps = n.Name, n.DocString, n.MetadataProps
		return append(nodes, gather)
	}
	if table {
		turn := onnx.NewNode("Transpose", []string{weight}, []string{e.names.Unique(weight + ".transposed")}, onnx.IntsAttr("perm", 1, 0))
		turn.Name = e.names.Unique(weight + ".transpose")
		nodes = append(nodes, turn)
		weight = turn.Outputs[0]
	}
	product := n.Outputs[0]
	if bias != "" {
		product = e.names.Unique(product + ".product")
	}
	matMul := onnx.NewNode("MatMul", []string{l.Activation, weight}, []string{product})
	matMul.Name, matMul.DocString, matMul.MetadataProps = n.Name, n.DocString, n.MetadataProps
	nodes = append(nodes, matMul)
	if bias != "" {
		nodes = append(nodes, e.addBias(n.Name, product, bias, n.Outputs[0]))
	}
	return nodes
}

// addBias returns output = product + bias.
func (e *editor) addBias(name, product, bias, output string) *onnx.Node {
	add := onnx.NewNode("Add", []string{product, bias}, []string{output})
	add.Name = e.names.Unique(name + ".bias")
	return add
}

// codedRows is a coded weight as a quant.Source.
type codedRows struct{ *quant.Matrix }

func (c codedRows) Dims() (n, k int) { return c.N, c.K }

func (c codedRows) Rows(dst []float32, n0, n1 int) error { return c.DecodeRows(dst, n0, n1) }

// decoded is Wᵀ [K × N] of a coded weight, as raw data of float32 or float16; W [N × K] as a table.
type decoded struct {
	l     *Linear
	dtype onnx.DataType
	table bool
}

// decodedBuffer bounds the numbers held while rows are written, and turnedBuffer those of Wᵀ: the rows of W are decoded once for every
// stretch of columns that fits, and a head of a language model has half a billion.
const (
	decodedBuffer = 1 << 24
	turnedBuffer  = 1 << 26
)

// Size returns the number of bytes.
func (d *decoded) Size() int64 {
	return int64(d.l.Matrix.N) * int64(d.l.Matrix.K) * int64(d.dtype.Bits()/8)
}

// WriteTo decodes the weight and writes it.
func (d *decoded) WriteTo(w io.Writer) (int64, error) {
	m := d.l.Matrix
	if d.table {
		return d.writeRows(w)
	}
	stretch := min(max(turnedBuffer/m.N, 1), m.K)
	turned := make([]float32, stretch*m.N) // [columns of the stretch × N]
	var out []byte
	var written int64
	for k0 := 0; k0 < m.K; k0 += stretch {
		count := min(stretch, m.K-k0)
		if err := turn(turned, m, k0, count); err != nil {
			return written, err
		}
		for j := range count {
			out = appendFloats(out[:0], d.dtype, turned[j*m.N:(j+1)*m.N])
			n, err := w.Write(out)
			written += int64(n)
			if err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// turn writes columns k0 … k0+count−1 of the weight to dst, [count × N]. Tiles of rows are decoded on all cores.
func turn(dst []float32, m *quant.Matrix, k0, count int) error {
	tiles := (m.N + m.Tile - 1) / m.Tile
	errs := make([]error, min(runtime.GOMAXPROCS(0), tiles))
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range errs {
		group.Go(func() {
			rows := make([]float32, min(m.Tile, m.N)*m.K)
			for errs[worker] == nil {
				n0 := (int(next.Add(1)) - 1) * m.Tile
				if n0 >= m.N {
					return
				}
				n1 := min(n0+m.Tile, m.N)
				errs[worker] = m.DecodeRows(rows[:(n1-n0)*m.K], n0, n1)
				for j := range count {
					column := dst[j*m.N+n0 : j*m.N+n1]
					for r := range column {
						column[r] = rows[r*m.K+k0+j]
					}
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// writeRows writes W, a tile at a time.
func (d *decoded) writeRows(w io.Writer) (written int64, err error) {
	m := d.l.Matrix
	rows := make([]float32, min(m.Tile, m.N)*m.K)
	var out []byte
	for n0 := 0; n0 < m.N; n0 += m.Tile {
		n1 := min(n0+m.Tile, m.N)
		part := rows[:(n1-n0)*m.K]
		if err := m.DecodeRows(part, n0, n1); err != nil {
			return written, err
		}
		out = appendFloats(out[:0], d.dtype, part)
		n, err := w.Write(out)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// appendFloats appends the raw form of v in float32 or float16.
func appendFloats(b []byte, dt onnx.DataType, v []float32) []byte {
	for _, x := range v {
		if dt == onnx.Float16 {
			b = binary.LittleEndian.AppendUint16(b, onnx.Float16FromFloat32(x))
		} else {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	return b
}
