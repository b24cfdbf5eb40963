package rewrite

import (
	"fmt"
	"io"

	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/quant"
)

// ExportHalf stores the weights of the candidate sites of a float32 model as float16, with a Cast behind each: the half
// precision form to compare with. Weights that are float16 already stay, and so do those that float16 has no room for: they
// are read here to see, and again when m is written. After an error m is unchanged.
func ExportHalf(m *onnx.Model, sites []Site) (*ExportResult, error) {
	opset, _ := m.Opset("")
	e := newEditor(m, opset)
	var chosen []*Site
	r := &ExportResult{}
	fits := map[*Weight]bool{}
	for i := range sites {
		w := sites[i].Weight
		if sites[i].Status != Candidate || sites[i].DType != onnx.Float {
			continue
		}
		if t := storedIn(sites[i].root); t != nil && t.DataType == onnx.Float16 {
			continue // with a Cast behind it, as this writes them
		}
		if _, known := fits[w]; !known {
			var err error
			if fits[w], err = fitsHalf(w); err != nil {
				return nil, err
			}
			if !fits[w] {
				r.Kept = append(r.Kept, w.Name())
			}
		}
		if !fits[w] {
			continue
		}
		if err := e.prepare(&sites[i], nil); err != nil {
			return nil, err
		}
		chosen = append(chosen, &sites[i])
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("rewrite: %w: the model has no float32 weight that float16 could hold", ErrNothing)
	}
	stored := map[*Weight]string{}
	for _, s := range chosen {
		weight := stored[s.Weight]
		if weight == "" {
			dims := []int64{int64(s.Weight.n), int64(s.Weight.k)}
			weight = e.addInitializer(s.Weight.root.Scope.Graph, s.Weight.Name()+".half", onnx.NewStreamTensor("", onnx.Float16, dims, halfRows{s.Weight}))
			stored[s.Weight] = weight
		}
		e.replace(s, func(activation, bias, output string) []*onnx.Node {
			if s.linear.gather { // rows first: a Cast of the whole table would be most of the work
				gather := onnx.NewNode("Gather", []string{weight, activation}, []string{e.names.Unique(output + ".half")}, onnx.IntAttr("axis", 0))
				return []*onnx.Node{gather, onnx.NewNode("Cast", gather.Outputs, []string{output}, onnx.IntAttr("to", int64(onnx.Float)))}
			}
			cast := onnx.NewNode("Cast", []string{weight}, []string{e.names.Unique(weight + ".float")}, onnx.IntAttr("to", int64(onnx.Float)))
			turn := onnx.NewNode("Transpose", []string{cast.Outputs[0]}, []string{e.names.Unique(weight + ".turned")}, onnx.IntsAttr("perm", 1, 0))
			turn.Name = e.names.Unique(weight + ".turn")
			product := output
			if bias != "" {
				product = e.names.Unique(output + ".product")
			}
			matMul := onnx.NewNode("MatMul", []string{activation, turn.Outputs[0]}, []string{product})
			matMul.Name = e.names.Unique(s.Name + ".half")
			nodes := []*onnx.Node{cast, turn, matMul}
			if bias != "" {
				nodes = append(nodes, e.addBias(s.Name, product, bias, output))
			}
			return nodes
		})
	}
	e.finish()
	raiseIRVersion(m, minIRUnlisted)
	prune(m, e.dropped)
	r.Nodes, r.Matrices = len(chosen), len(stored)
	return r, nil
}

// halfLoss is the share of a weight's energy that storing it in float16 may cost: 50 dB. In its normal range it costs 10^-7.
const halfLoss = 1e-5

// fitsHalf reports whether float16 has room for a weight: nothing overflows, and not too much is lost to the coarse numbers
// next to zero.
func fitsHalf(src quant.Source) (bool, error) {
	var energy, lost float64
	err := eachPart(src, func(part []float32) {
		for _, v := range part {
			d := float64(v) - float64(onnx.Float16ToFloat32(onnx.Float16FromFloat32(v)))
			energy += float64(v) * float64(v)
			lost += d * d
		}
	})
	return err == nil && lost <= halfLoss*energy, err // not for NaN
}

// isFinite reports whether a weight has neither NaN nor infinity.
func isFinite(src quant.Source) (bool, error) {
	finite := true
	err := eachPart(src, func(part []float32) {
		for _, v := range part {
			finite = finite && v-v == 0
		}
	})
	return finite, err
}

// eachPart calls f for all rows of a weight, some at a time.
func eachPart(src quant.Source, f func(part []float32)) error {
	n, k := src.Dims()
	rows := max(min(decodedBuffer/k, n), 1)
	buffer := make([]float32, rows*k)
	for first := 0; first < n; first += rows {
		last := min(first+rows, n)
		part := buffer[:(last-first)*k]
		if err := src.Rows(part, first, last); err != nil {
			return err
		}
		f(part)
	}
	return nil
}

// halfRows is a weight [N × K] as raw data of float16.
type halfRows struct{ *Weight }

func (h halfRows) Size() int64 { return 2 * int64(h.n) * int64(h.k) }

func (h halfRows) WriteTo(w io.Writer) (int64, error) {
	rows := max(min(decodedBuffer/h.k, h.n), 1)
	buffer := make([]float32, rows*h.k)
	var out []byte
	var written int64
	for first := 0; first < h.n; first += rows {
		last := min(first+rows, h.n)
		part := buffer[:(last-first)*h.k]
		if err := h.Rows(part, first, last); err != nil {
			return written, err
		}
		out = appendFloats(out[:0], onnx.Float16, part)
		n, err := w.Write(out)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
