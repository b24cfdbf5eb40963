package rewrite

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// microsoft is the domain of MatMulNBits.
const microsoft = "com.microsoft"

// NBitsOptions of the MatMulNBits form: integers of 4 or 2 bits, symmetric around the middle, with one scale per block.
type NBitsOptions struct {
	// Bits of an integer, 4 or 2; 0 means 4.
	Bits int
	// Block is the number of consecutive columns that share a scale, a power of two from 16 to 256; 0 means 32.
	Block int
	// AccuracyLevel is the attribute accuracy_level of the nodes: 0 for the default, which stands for 4, activations rounded
	// to int8 (fast on CPUs); 1 computes in float32.
	AccuracyLevel int
}

func (o *NBitsOptions) check() error {
	if o.Bits == 0 {
		o.Bits = 4
	}
	if o.Block == 0 {
		o.Block = 32
	}
	if o.AccuracyLevel == 0 {
		o.AccuracyLevel = 4
	}
	if o.Bits != 4 && o.Bits != 2 {
		return fmt.Errorf("rewrite: MatMulNBits of %d bits: want 4 or 2", o.Bits)
	}
	if o.Block < 16 || o.Block > 256 || o.Block&(o.Block-1) != 0 {
		return fmt.Errorf("rewrite: MatMulNBits block of %d: want a power of two from 16 to 256", o.Block)
	}
	if o.AccuracyLevel < 1 || o.AccuracyLevel > 4 {
		return fmt.Errorf("rewrite: MatMulNBits accuracy level %d: want 1 to 4", o.AccuracyLevel)
	}
	return nil
}

// ExportNBits replaces the candidate sites of a float model, found by FindSites with the patterns of interest, by
// com.microsoft::MatMulNBits with weights rounded to nearest: the int4 form to compare with. The weights are read here, to see
// whether they are finite, and again and rounded when m is written. Tables that a Gather reads stay as they are, for the products that share them too. After an error m is
// unchanged.
func ExportNBits(m *onnx.Model, sites []Site, opts NBitsOptions) (*ExportResult, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	opset, _ := m.Opset("")
	e := newEditor(m, opset)
	var chosen []*Site
	r := &ExportResult{}
	finite := map[*Weight]bool{}
	for i := range sites {
		if sites[i].Status != Candidate {
			continue
		}
		w := sites[i].Weight
		if w.Gathered() {
			if !slices.Contains(r.Kept, w.Name()) {
				r.Kept = append(r.Kept, w.Name())
			}
			continue
		}
		if _, known := finite[w]; !known {
			var err error
			if finite[w], err = isFinite(w); err != nil {
				return nil, err
			}
			if !finite[w] {
				r.NonFinite = append(r.NonFinite, w.Name())
			}
		}
		if !finite[w] {
			continue
		}
		if err := e.prepare(&sites[i], nil); err != nil {
			return nil, err
		}
		chosen = append(chosen, &sites[i])
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("rewrite: %w: the model has no weight that MatMulNBits could take", ErrNothing)
	}
	stored := map[*Weight]*blockWeight{}
	for _, s := range chosen {
		w := stored[s.Weight]
		if w == nil {
			w = e.storeBlocks(s.Weight, s.Weight.root.Scope.Graph, s.Weight.Name(), s.DType, opts)
			stored[s.Weight] = w
		}
		e.replace(s, func(activation, bias, output string) []*onnx.Node {
			return e.nbitsNodes(w, activation, bias, output)
		})
	}
	e.finish()
	m.SetOpset(microsoft, 1)
	raiseIRVersion(m, minIRUnlisted)
	prune(m, e.dropped)
	r.Nodes, r.Matrices = len(chosen), len(stored)
	return r, nil
}

// blockWeight is one weight in the form of MatMulNBits.
type blockWeight struct {
	packed, scales string
	n, k           int
	opts           NBitsOptions
}

// storeBlocks adds the tensors of a weight, produced from src when the model is written.
func (e *editor) storeBlocks(src quant.Source, owner *onnx.Graph, base string, dt onnx.DataType, opts NBitsOptions) *blockWeight {
	n, k := src.Dims()
	blocks := (k + opts.Block - 1) / opts.Block
	q := blockQuantizer{src: src, n: n, k: k, bits: opts.Bits, block: opts.Block, blocks: blocks, scaleType: dt}
	suffix := fmt.Sprintf(".int%d", opts.Bits)
	return &blockWeight{
		packed: e.addInitializer(owner, base+suffix,
			onnx.NewStreamTensor("", onnx.Uint8, []int64{int64(n), int64(blocks), int64(opts.Block * opts.Bits / 8)}, blockCodes{q})),
		scales: e.addInitializer(owner, base+suffix+"_scales",
			onnx.NewStreamTensor("", dt, []int64{int64(n), int64(blocks)}, blockScales{q})),
		n: n, k: k, opts: opts,
	}
}

// nbitsNodes returns output = activation·Wᵀ + bias. The bias is added outside, because runtimes disagree on that input.
func (e *editor) nbitsNodes(w *blockWeight, activation, bias, output string) []*onnx.Node {
	product := output
	if bias != "" {
		product = e.names.Unique(output + ".product")
	}
	n := onnx.NewNode("MatMulNBits", []string{activation, w.packed, w.scales}, []string{product},
		onnx.IntAttr("K", int64(w.k)), onnx.IntAttr("N", int64(w.n)), onnx.IntAttr("bits", int64(w.opts.Bits)),
		onnx.IntAttr("block_size", int64(w.opts.Block)), onnx.IntAttr("accuracy_level", int64(w.opts.AccuracyLevel)))
	n.Domain = microsoft
	nodes := []*onnx.Node{n}
	if bias != "" {
		nodes = append(nodes, e.addBias(product, product, bias, output))
	}
	return nodes
}

// blockQuantizer rounds a weight to integers q with w ≈ (q − 2^(bits−1))·scale.
type blockQuantizer struct {
	src                       quant.Source
	n, k, bits, block, blocks int
	scaleType                 onnx.DataType
}

// middle is the integer that stands for zero.
func (q blockQuantizer) middle() int { return 1 << (q.bits - 1) }

// each calls f for every block in order, with its scale as it is stored.
func (q blockQuantizer) each(f func(block []float32, scale float32) error) error {
	const panel = 64
	rows := make([]float32, panel*q.k)
	for n0 := 0; n0 < q.n; n0 += panel {
		n1 := min(n0+panel, q.n)
		if err := q.src.Rows(rows[:(n1-n0)*q.k], n0, n1); err != nil {
			return err
		}
		for r := range n1 - n0 {
			for k0 := 0; k0 < q.k; k0 += q.block {
				block := rows[r*q.k+k0 : r*q.k+min(k0+q.block, q.k)]
				if err := f(block, q.scale(block)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// scale maps the number of largest magnitude to the integer 0, as ONNX Runtime's own quantizer does: the integers reach one step
// further down than up.
func (q blockQuantizer) scale(block []float32) float32 {
	var extreme float32
	for _, w := range block {
		if max(w, -w) > max(extreme, -extreme) {
			extreme = w
		}
	}
	scale := extreme / -float32(q.middle())
	if q.scaleType == onnx.Float16 {
		scale = onnx.Float16ToFloat32(onnx.Float16FromFloat32(scale))
	}
	return scale
}

// blockScales is the tensor of scales, [N, blocks].
type blockScales struct{ blockQuantizer }

func (q blockScales) Size() int64 {
	return int64(q.n) * int64(q.blocks) * int64(q.scaleType.Bits()/8)
}

func (q blockScales) WriteTo(w io.Writer) (written int64, err error) {
	var out []byte
	err = q.each(func(_ []float32, scale float32) error {
		out = appendFloats(out[:0], q.scaleType, []float32{scale})
		n, err := w.Write(out)
		written += int64(n)
		return err
	})
	return written, err
}

// blockCodes is the tensor of integers, [N, blocks, block·bits/8], the first column in the low bits. Columns past K are zeros.
type blockCodes struct{ blockQuantizer }

func (q blockCodes) Size() int64 { return int64(q.n) * int64(q.blocks) * int64(q.block*q.bits/8) }

func (q blockCodes) WriteTo(w io.Writer) (written int64, err error) {
	out := make([]byte, q.block*q.bits/8)
	perByte, mask, middle := 8/q.bits, byte(1<<q.bits-1), float64(q.middle())
	var empty byte
	for i := range perByte {
		empty |= byte(q.middle()) << (i * q.bits)
	}
	err = q.each(func(block []float32, scale float32) error {
		for i := range out {
			out[i] = empty
		}
		var inverse float32
		if scale != 0 {
			inverse = 1 / scale
		}
		if math.IsInf(float64(inverse), 0) { // numbers next to the least there are, which count for nothing
			inverse = 0
		}
		for i, w := range block {
			c := byte(min(max(math.RoundToEven(float64(w*inverse)), -middle), middle-1) + middle)
			shift := q.bits * (i % perByte)
			out[i/perByte] = out[i/perByte]&^(mask<<shift) | c<<shift
		}
		n, err := w.Write(out)
		written += int64(n)
		return err
	})
	return written, err
}
