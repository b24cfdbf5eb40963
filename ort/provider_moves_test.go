//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// movesCase is a graph of values whose shapes are known, each made of others by moving numbers or by using them.
type movesCase struct {
	patternCase
	shapes map[string][]int64
}

func (c *movesCase) pick() string {
	names := make([]string, 0, len(c.shapes))
	for name := range c.shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[max(c.rng.IntN(len(names)), c.rng.IntN(len(names)))]
}

func (c *movesCase) keep(name string, shape ...int64) string {
	c.shapes[name] = shape
	return name
}

func (c *movesCase) list(v ...int64) string {
	return c.integers(fmt.Sprintf("list%d", len(c.graph.Initializers)), v...)
}

// step adds one node, if it fits what it is given.
func (c *movesCase) step() {
	x := c.pick()
	shape := slices.Clone(c.shapes[x])
	rank := len(shape)
	if rank == 0 {
		return
	}
	d := c.rng.IntN(rank)
	switch c.rng.IntN(13) {
	case 0, 1:
		perm := c.rng.Perm(rank)
		order, moved := make([]int64, rank), make([]int64, rank)
		for i, p := range perm {
			order[i], moved[i] = int64(p), shape[p]
		}
		c.keep(c.node("Transpose", []string{x}, onnx.IntsAttr("perm", order...)), moved...)
	case 2, 3:
		switch {
		case c.coin() && d+1 < rank: // two dimensions become one
			shape = slices.Concat(shape[:d], []int64{shape[d] * shape[d+1]}, shape[d+2:])
		case shape[d]%2 == 0 && rank < 6:
			shape = slices.Concat(shape[:d], []int64{2, shape[d] / 2}, shape[d+1:])
		case shape[d]%3 == 0 && rank < 6:
			shape = slices.Concat(shape[:d], []int64{shape[d] / 3, 3}, shape[d+1:])
		}
		c.keep(c.node("Reshape", []string{x, c.list(shape...)}), shape...)
	case 4:
		if rank < 6 {
			c.keep(c.node("Unsqueeze", []string{x, c.list(int64(d))}), slices.Insert(shape, d, 1)...)
		}
	case 5:
		if shape[d] == 1 {
			shape[d] = c.oneOf(1, 2, 3)
			c.keep(c.node("Expand", []string{x, c.list(shape...)}), shape...)
		}
	case 6:
		if first := c.rng.Int64N(shape[d]); shape[d] > 1 {
			step := c.oneOf(1, 1, 2, -1)
			end, size := shape[d], (shape[d]-first+step-1)/step
			if step < 0 {
				end, size = -shape[d]-1, first+1
			}
			shape[d] = size
			c.keep(c.node("Slice", []string{x, c.list(first), c.list(end), c.list(int64(d)), c.list(step)}), shape...)
		}
	case 7:
		if shape[d] > 1 {
			first := 1 + c.rng.Int64N(shape[d]-1)
			n := onnx.NewNode("Split", []string{x, c.list(first, shape[d]-first)}, []string{fmt.Sprintf("low%d", len(c.graph.Nodes)), fmt.Sprintf("high%d", len(c.graph.Nodes))}, onnx.IntAttr("axis", int64(d)))
			n.Name = n.Outputs[0]
			c.graph.Nodes = append(c.graph.Nodes, n)
			rest := slices.Clone(shape)
			shape[d], rest[d] = first, rest[d]-first
			c.keep(n.Outputs[0], shape...)
			c.keep(n.Outputs[1], rest...)
		}
	case 8:
		inputs := []string{x}
		for range c.rng.IntN(5) {
			next, size := x, c.shapes[x][d]
			for range 6 { // another one that fits, if it is soon found
				name := c.pick()
				if alike := slices.Clone(c.shapes[name]); len(alike) == rank {
					if size, alike[d] = alike[d], c.shapes[x][d]; slices.Equal(alike, c.shapes[x]) {
						next = name
						break
					}
				}
				size = c.shapes[x][d]
			}
			if shape[d]+size < 60 {
				shape[d] += size
				inputs = append(inputs, next)
			}
		}
		c.keep(c.node("Concat", inputs, onnx.IntAttr("axis", int64(d))), shape...)
	case 9:
		c.keep(c.node("Add", []string{x, c.constant(fmt.Sprintf("row%d", len(c.graph.Nodes)), shape[rank-1:], c.floats(shape[rank-1])...)}), shape...)
	case 10:
		c.keep(c.node("Neg", []string{x}), shape...)
	case 11:
		index := fmt.Sprintf("index%d", len(c.graph.Nodes))
		at := c.rng.Int64N(2*shape[d]) - shape[d]
		if c.coin() {
			c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor(index, nil, []int64{at}))
		} else {
			c.graph.Initializers = append(c.graph.Initializers, onnx.NewTensor(index, nil, []int32{int32(at)}))
		}
		c.keep(c.node("Gather", []string{x, index}, onnx.IntAttr("axis", int64(d))), slices.Delete(shape, d, d+1)...)
	case 12:
		w := c.constant(fmt.Sprintf("w%d", len(c.graph.Nodes)), []int64{shape[rank-1], 5}, c.floats(5*shape[rank-1])...)
		shape[rank-1] = 5
		c.keep(c.node("MatMul", []string{x, w}), shape...)
	}
}

// Whatever moves numbers about, the provider leaves them where they are as long as it can, and everybody still sees them as the CPU does.
func TestProviderLeavesMoves(t *testing.T) {
	library, _, _ := aboutProvider(t)
	for seed := range uint64(300) {
		c := &movesCase{patternCase{rng: rand.New(rand.NewPCG(seed, 41)), inputs: map[string]*tensor.Tensor{}}, map[string][]int64{}}
		path := modelOf(t, 18, func(g *onnx.Graph) {
			g.Inputs, c.graph = nil, g
			x := c.input("x", c.floats(2, 3, 4, 6), 2, 3, 4, 6)
			if c.coin() {
				c.keep(x, 2, 3, 4, 6)
			} else {
				c.keep(c.node("Abs", []string{x}), 2, 3, 4, 6)
			}
			for range 4 + c.rng.IntN(20) {
				c.step()
			}
			for _, n := range c.graph.Nodes {
				if n.Outputs[0] == c.graph.Nodes[len(c.graph.Nodes)-1].Outputs[0] || c.rng.IntN(4) == 0 {
					c.output(n.Outputs[0])
				}
			}
		})
		if len(c.graph.Nodes) == 0 {
			continue
		}
		c.compare(t, library, seed, path, 1e-5)
	}
}

// Attention reads queries, keys and values where exporters' graphs have them: heads behind tokens, parts of one product, heads of keys and values that are
// repeated for several of queries, and keys that are turned by way of three dimensions. None is copied, nor what has four of these as its shape.
func TestProviderAttendsWhereThingsLie(t *testing.T) {
	library, about, device := aboutProvider(t)
	const batch, kv, heads, width, keys = 2, 2, 6, 16, 70
	type form struct {
		name             string
		swapped, repeat  bool
		flat, packed     bool
		queries, kvHeads int64
		cached           bool
		past             int64
	}
	for _, f := range []form{
		{name: "by heads", queries: 70, kvHeads: heads},
		{name: "by tokens", swapped: true, queries: 70, kvHeads: heads},
		{name: "repeated", swapped: true, repeat: true, queries: 70, kvHeads: kv},
		{name: "repeated, by heads", repeat: true, queries: 70, kvHeads: kv},
		{name: "repeated, one query", swapped: true, repeat: true, queries: 1, kvHeads: kv},
		{name: "repeated from one", swapped: true, repeat: true, queries: 70, kvHeads: 1},
		{name: "turned flat", swapped: true, repeat: true, flat: true, queries: 70, kvHeads: kv},
		{name: "turned flat, by heads", flat: true, queries: 70, kvHeads: heads},
		{name: "cached", swapped: true, repeat: true, queries: 70, kvHeads: kv, cached: true, past: 7},
		{name: "cached, the first time", swapped: true, repeat: true, queries: 70, kvHeads: kv, cached: true},
		{name: "packed", swapped: true, packed: true, queries: 70, kvHeads: heads},
	} {
		for _, kind := range []tensor.Type{tensor.Float32, tensor.Float16Type} {
			t.Run(fmt.Sprint(f.name, " ", kind), func(t *testing.T) {
				c := &attentionCase{t: t, rng: rand.New(rand.NewPCG(3, 43)), kind: kind, inputs: map[string]*tensor.Tensor{}}
				p := &patternCase{rng: c.rng}
				path := modelOf(t, 18, func(g *onnx.Graph) {
					g.Inputs, p.graph = nil, g
					add := func(name string, dims ...int64) string {
						c.floats(name, dims...)
						shape := []any{"b" + name}
						for _, d := range dims[1:] {
							shape = append(shape, int(d))
						}
						g.Inputs = append(g.Inputs, value(name, onnx.DataType(kind), shape...))
						return p.node("Abs", []string{name}) // of the graph's own
					}
					list := func(v ...int64) string { return p.integers(fmt.Sprintf("list%d", len(g.Initializers)), v...) }
					operand := func(name string, tokens, own int64, from string) string {
						x := from
						switch {
						case x != "":
							x = p.node("Reshape", []string{x, list(0, 0, own, width)})
						case f.swapped:
							x = p.node("Reshape", []string{add(name, batch, tokens, own*width), list(0, 0, own, width)})
						default:
							x = add(name, batch, own, tokens, width)
						}
						if f.swapped {
							x = p.node("Transpose", []string{x}, onnx.IntsAttr("perm", 0, 2, 1, 3))
						}
						if f.cached && name != "q" {
							past := "past_" + name
							c.floats(past, batch, own, f.past, width)
							g.Inputs = append(g.Inputs, value(past, onnx.DataType(kind), "b"+name, int(own), "past", width))
							x = p.node("Concat", []string{past, x}, onnx.IntAttr("axis", 2))
							g.Outputs = append(g.Outputs, value(x, onnx.DataType(kind), "b"+name, int(own), "all", width))
							tokens += f.past
						}
						if own < heads && f.repeat {
							x = p.node("Unsqueeze", []string{x, list(2)})
							x = p.node("Expand", []string{x, list(batch, own, heads/own, tokens, width)})
							x = p.node("Reshape", []string{x, list(batch, heads, tokens, width)})
						}
						return x
					}
					var parts [3]string
					if f.packed {
						n := onnx.NewNode("Split", []string{add("qkv", batch, f.queries, 3*heads*width), list(heads*width, heads*width, heads*width)}, []string{"pq", "pk", "pv"}, onnx.IntAttr("axis", -1))
						n.Name = "split"
						g.Nodes = append(g.Nodes, n)
						parts = [3]string{"pq", "pk", "pv"}
					}
					q := operand("q", f.queries, heads, parts[0])
					k := operand("k", keys, f.kvHeads, parts[1])
					v := operand("v", keys, f.kvHeads, parts[2])
					if f.flat {
						shape := p.node("Shape", []string{k})
						cut := func(from, to int64) string { return p.node("Slice", []string{shape, list(from), list(to)}) }
						tokens, own := cut(2, 3), cut(3, 4)
						k = p.node("Reshape", []string{k, p.node("Concat", []string{list(-1), tokens, own}, onnx.IntAttr("axis", 0))})
						k = p.node("Transpose", []string{k}, onnx.IntsAttr("perm", 0, 2, 1))
						k = p.node("Reshape", []string{k, p.node("Concat", []string{cut(0, 2), own, tokens}, onnx.IntAttr("axis", 0))})
					} else {
						k = p.node("Transpose", []string{k}, onnx.IntsAttr("perm", 0, 1, 3, 2))
					}
					scale := onnx.NewTensor("scale", nil, []float32{0.5})
					if kind == tensor.Float16Type {
						scale = onnx.NewFloat16Tensor("scale", nil, []float32{0.5})
					}
					g.Initializers = append(g.Initializers, scale)
					s := p.node("MatMul", []string{p.node("Mul", []string{q, "scale"}), p.node("Mul", []string{k, "scale"})})
					y := p.node("Transpose", []string{p.node("MatMul", []string{p.node("Softmax", []string{s}, onnx.IntAttr("axis", -1)), v})}, onnx.IntsAttr("perm", 0, 2, 1, 3))
					g.Outputs = append(g.Outputs, value(y, onnx.DataType(kind)))
					g.Outputs[len(g.Outputs)-1].Type.Tensor.Shape = nil
				})
				o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1}
				want, err := session(t, path, o).Run(context.Background(), c.inputs)
				if err != nil {
					t.Fatal(err)
				}
				o.Provider = library
				got := session(t, path, o)
				before, started := about.Moves(), about.Attentions()
				for range 4 {
					out, err := got.Run(context.Background(), c.inputs)
					if err != nil {
						t.Fatal(err)
					}
					for name := range want {
						limit := 2e-5
						if kind == tensor.Float16Type {
							limit = 3e-3
						}
						if d := distance(t, want[name], out[name]); !(d < limit) {
							t.Errorf("%s is off by %g", name, d)
						}
					}
				}
				copies := int64(0)
				if f.cached {
					copies = 2 * 6 // to the caches, of each of four runs, some of which are recorded first
					if f.past > 0 {
						copies *= 2 // what is added lies otherwise
					}
				}
				if n := about.Moves() - before; n > copies {
					t.Errorf("%d copies, want %d", n, copies)
				}
				if kind == tensor.Float16Type && f.queries > 64 && isHopper(device) && about.Attentions().Groups == started.Groups {
					t.Error("not by warp groups")
				}
			})
		}
	}
}

// A language model whose attention is in pieces writes on, over caches that grow, as it does on the CPU, all of it on the device.
func TestProviderRunsDecodersInPieces(t *testing.T) {
	library, about, _ := aboutProvider(t)
	for _, half := range []bool{false, true} {
		c := models.Decoder{Layers: 2, Width: 64, Heads: 4, CacheHeads: 2, Network: 96, Vocabulary: 50, Tokens: 100, Half: half, Pieces: true, Seed: 3}
		path := filepath.Join(t.TempDir(), "decoder.onnx")
		if _, err := c.ONNX().Save(path, onnx.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		limit := 2e-5
		if half {
			limit = 1e-2
		}
		sessions := []*ort.Session{session(t, path, ort.SessionOptions{}), session(t, path, ort.SessionOptions{Provider: library})}
		caches := []map[string]*tensor.Tensor{{}, {}}
		for _, s := range sessions[0].Inputs() {
			if len(s.Shape) == 4 {
				empty, err := tensor.New(s.Type, 2, s.Shape[1].Size, 0, s.Shape[3].Size)
				if err != nil {
					t.Fatal(err)
				}
				caches[0][s.Name], caches[1][s.Name] = empty, empty
			}
		}
		before := about.Traffic()
		const steps = 6
		for step := range int64(steps) {
			ids := make([]int64, 2*[]int64{70, 1, 1, 3, 1, 1}[step])
			for i := range ids {
				ids[i] = (int64(i)*7 + step*5) % 50
			}
			var out [2]map[string]*tensor.Tensor
			for i, s := range sessions {
				inputs := maps.Clone(caches[i])
				inputs["input_ids"] = tensor.Of(ids, 2, int64(len(ids)/2))
				var err error
				if out[i], err = s.Run(context.Background(), inputs); err != nil {
					t.Fatal(err)
				}
				for name, x := range out[i] {
					if layer, ok := strings.CutPrefix(name, "present."); ok {
						caches[i]["past_key_values."+layer] = x
					}
				}
			}
			for name, x := range out[0] {
				if d := distance(t, x, out[1][name]); !(d < limit) {
					t.Errorf("half %v, step %d: %s is off by %g", half, step, name, d)
				}
			}
		}
		after := about.Traffic()
		if after.Runs-before.Runs != steps || after.Downloads != before.Downloads {
			t.Errorf("%d of %d runs on the device, %d copies to the host in the middle of the graph", after.Runs-before.Runs, steps, after.Downloads-before.Downloads)
		}
	}
}

// The memory of what only its shape is wanted of is given up before that is asked for, which ONNX Runtime has happen last: a run that holds all it has made
// takes more than recordings may.
func TestProviderGivesUpWhatHasAShape(t *testing.T) {
	library, about, _ := aboutProvider(t)
	const count = 9
	path := modelOf(t, 18, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", "columns")}
		var shapes []string
		at := "x"
		for i := range count {
			g.Nodes = append(g.Nodes, onnx.NewNode("Neg", []string{at}, []string{fmt.Sprint("v", i)}))
			at = fmt.Sprint("v", i)
			shapes = append(shapes, "shape of "+at)
			g.Nodes = append(g.Nodes, onnx.NewNode("Shape", []string{at}, shapes[i:]))
		}
		g.Nodes = append(g.Nodes, onnx.NewNode("ReduceMax", []string{at}, []string{"y"}), onnx.NewNode("Concat", shapes, []string{"z"}, onnx.IntAttr("axis", 0)))
		g.Outputs = []*onnx.ValueInfo{untyped("y", onnx.Float), untyped("z", onnx.Int64)}
		named(g, "")
	})
	s := session(t, path, ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1, Provider: library, Config: map[string]string{"ai.coset.gpu_nodes": "all"}})
	x := tensor.Of(make([]float32, 8<<20), 2048, 4096)
	before := about.Traffic()
	for run := range 3 {
		if _, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": x}); err != nil {
			t.Errorf("run %d: %v", run, err)
		}
	}
	if about.Traffic().Repeats == before.Repeats {
		t.Error("no run was recorded")
	}
}
