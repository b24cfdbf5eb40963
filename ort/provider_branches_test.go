//go:build cgo && linux

package ort_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// untyped describes an output of a body, of whose shape nothing is said.
func untyped(name string, dt onnx.DataType) *onnx.ValueInfo {
	return &onnx.ValueInfo{Name: name, Type: &onnx.Type{Tensor: &onnx.TensorType{ElemType: dt}}}
}

// body is a branch that gives some floats. What it does not make it gives on by an Identity, as ONNX Runtime asks for.
func body(name string, outputs []string, nodes []*onnx.Node, constants ...*onnx.Tensor) *onnx.Graph {
	g := &onnx.Graph{Name: name, Nodes: nodes, Initializers: constants}
	own := map[string]bool{}
	for _, n := range nodes {
		for _, o := range n.Outputs {
			own[o] = true
		}
	}
	for _, x := range constants {
		own[x.Name] = true
	}
	for i, o := range outputs {
		if !own[o] || slices.Contains(outputs[:i], o) {
			on := fmt.Sprint(o, "_", name, i)
			g.Nodes = append(g.Nodes, onnx.NewNode("Identity", []string{o}, []string{on}))
			o = on
		}
		g.Outputs = append(g.Outputs, untyped(o, onnx.Float))
	}
	return g
}

func branching(condition string, yes, no *onnx.Graph, outputs ...string) *onnx.Node {
	return onnx.NewNode("If", []string{condition}, outputs, onnx.GraphAttr("then_branch", yes), onnx.GraphAttr("else_branch", no))
}

// named gives every node a name, those in bodies too.
func named(g *onnx.Graph, prefix string) {
	for i, n := range g.Nodes {
		n.Name = fmt.Sprintf("%s%s%d", prefix, n.OpType, i)
		for _, a := range n.Attributes {
			if a.G != nil {
				named(a.G, n.Name+"/"+a.Name+"/")
			}
		}
	}
}

// square is a constant of 4×4 numbers.
func square(name string, seed uint64) *onnx.Tensor {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := make([]float32, 16)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return onnx.NewTensor(name, []int64{4, 4}, v)
}

type branchCase struct {
	name      string
	build     func(g *onnx.Graph)
	rows      int64  // of x where the condition is not true, which are 3 where it is; 0: 3 as well
	downloads int64  // a run, in the end
	unending  bool   // not recorded, since the host has to read what a run computes
	left      string // the reason why the If stays on the CPU
	inside    string // a node that is taken with it, or left with it
	disabled  bool   // ONNX Runtime's optimizations, which may inline the If
}

func branchCases() []branchCase {
	node := onnx.NewNode
	integer := func(name string, v int64) *onnx.Attribute {
		return &onnx.Attribute{Name: name, Type: onnx.AttrInt, I: v}
	}
	add := func(g *onnx.Graph, nodes ...*onnx.Node) { g.Nodes = append(g.Nodes, nodes...) }
	outer := func(g *onnx.Graph) {
		g.Initializers = append(g.Initializers, square("w", 1), square("v", 2))
		add(g, node("MatMul", []string{"x", "w"}, []string{"a"}))
	}
	outputs := func(g *onnx.Graph, names ...string) {
		for _, n := range names {
			g.Outputs = append(g.Outputs, untyped(n, onnx.Float))
		}
	}
	// Values and constants of the graph around and of the body itself, which go by the same names in both.
	plain := func(g *onnx.Graph, condition string) {
		yes := body("yes", []string{"t"}, []*onnx.Node{node("MatMul", []string{"a", "own"}, []string{"p"}), node("Add", []string{"p", "x"}, []string{"q"}),
			node("Relu", []string{"q"}, []string{"t"})}, square("own", 3))
		no := body("no", []string{"t"}, []*onnx.Node{node("MatMul", []string{"x", "v"}, []string{"p"}), node("MatMul", []string{"p", "own"}, []string{"q"}),
			node("Neg", []string{"q"}, []string{"t"})}, square("own", 4))
		add(g, branching(condition, yes, no, "b"), node("Relu", []string{"b"}, []string{"r"}), node("Add", []string{"r", "a"}, []string{"y"}))
	}
	return []branchCase{
		{name: "input", downloads: 1, inside: "If1/else_branch/MatMul1", build: func(g *onnx.Graph) {
			outer(g)
			plain(g, "c")
			outputs(g, "y", "b", "a")
		}},
		{name: "nothing around", downloads: 1, build: func(g *onnx.Graph) {
			yes := body("yes", []string{"t"}, []*onnx.Node{node("MatMul", []string{"x", "own"}, []string{"t"})}, square("own", 3))
			no := body("no", []string{"t"}, []*onnx.Node{node("MatMul", []string{"z", "own"}, []string{"t"})}, square("own", 4))
			add(g, branching("c", yes, no, "y"))
			outputs(g, "y")
		}},
		// An output that is a value from outside, an input of the graph among them, a constant, the same as another, and one that nobody uses.
		{name: "given on", downloads: 1, build: func(g *onnx.Graph) {
			outer(g)
			yes := body("yes", []string{"a", "x", "t", "t", "own"}, []*onnx.Node{node("MatMul", []string{"a", "v"}, []string{"t"})}, square("own", 3))
			no := body("no", []string{"t", "own", "a", "x", "t"}, []*onnx.Node{node("Transpose", []string{"v"}, []string{"t"})}, square("own", 4))
			add(g, branching("c", yes, no, "y", "z1", "b", "unused", "y2"), node("MatMul", []string{"b", "w"}, []string{"z2"}), node("MatMul", []string{"y2", "w"}, []string{"z3"}),
				node("MatMul", []string{"z1", "w"}, []string{"z4"}))
			outputs(g, "y", "z1", "z2", "z3", "z4")
		}},
		{name: "other shapes", downloads: 1, build: func(g *onnx.Graph) {
			outer(g)
			yes := body("yes", []string{"t"}, []*onnx.Node{node("Concat", []string{"a", "x", "a"}, []string{"t"}, integer("axis", 0))})
			no := body("no", []string{"t"}, []*onnx.Node{node("Unsqueeze", []string{"a", "axes"}, []string{"u"}), node("Transpose", []string{"u"}, []string{"t"}, onnx.IntsAttr("perm", 1, 0, 2))},
				onnx.NewTensor("axes", []int64{1}, []int64{0}))
			add(g, branching("c", yes, no, "y"), node("MatMul", []string{"y", "w"}, []string{"z1"}), node("Shape", []string{"z1"}, []string{"s"}),
				node("Cast", []string{"s"}, []string{"z2"}, integer("to", int64(onnx.Float))))
			outputs(g, "y", "z1", "z2")
		}},
		{name: "shapes", rows: 2, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []int64{0}), onnx.NewTensor("two", []int64{}, []int64{2}))
			add(g, node("Shape", []string{"a"}, []string{"s"}), node("Gather", []string{"s", "zero"}, []string{"n"}), node("Greater", []string{"n", "two"}, []string{"long"}))
			plain(g, "long")
			outputs(g, "y")
		}},
		{name: "data", downloads: 1, unending: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []float32{0}))
			add(g, node("ReduceMax", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Greater", []string{"m", "zero"}, []string{"big"}))
			plain(g, "big")
			outputs(g, "y", "b")
		}},
		// What an elementwise chain would take in, were it not the condition.
		{name: "data in a chain", downloads: 1, unending: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []float32{0}))
			add(g, node("ReduceMax", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Log", []string{"m"}, []string{"l"}), node("IsNaN", []string{"l"}, []string{"small"}),
				node("Where", []string{"small", "zero", "l"}, []string{"s"}), node("Add", []string{"s", "a"}, []string{"z"}))
			g.Inputs = slices.Delete(g.Inputs, 1, 2)
			plain(g, "small")
			outputs(g, "y", "z")
		}},
		// A norm in one branch of a sum outside is not computed for the other.
		{name: "a sum outside", downloads: 1, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("scale", []int64{4}, []float32{1, 2, 3, 4}))
			add(g, node("Add", []string{"x", "z"}, []string{"sum"}))
			yes := body("yes", []string{"t"}, []*onnx.Node{node("LayerNormalization", []string{"sum", "scale"}, []string{"t"}, onnx.FloatAttr("epsilon", 0.1))})
			add(g, branching("c", yes, body("no", []string{"sum"}, nil), "b"), node("Add", []string{"a", "b"}, []string{"y"}))
			outputs(g, "y")
		}},
		// What follows from shapes in a branch that is not always taken is kept from the first time that it is.
		{name: "data and shapes", downloads: 1, unending: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []float32{0}))
			add(g, node("ReduceMax", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Greater", []string{"m", "zero"}, []string{"big"}))
			yes := body("yes", []string{"t"}, []*onnx.Node{node("Shape", []string{"x"}, []string{"s"}), node("ConstantOfShape", []string{"s"}, []string{"o"}, onnx.TensorAttr("value", onnx.NewTensor("", []int64{1}, []float32{2}))),
				node("Add", []string{"o", "a"}, []string{"t"})})
			no := body("no", []string{"t"}, []*onnx.Node{node("Shape", []string{"a"}, []string{"s"}), node("Expand", []string{"one", "s"}, []string{"o"}), node("MatMul", []string{"o", "w"}, []string{"t"})},
				onnx.NewTensor("one", []int64{}, []float32{-1}))
			add(g, branching("big", yes, no, "b"), node("MatMul", []string{"b", "v"}, []string{"y"}))
			outputs(g, "y", "b")
		}},
		// Nor is it mistaken for what was computed of shapes before.
		{name: "data and more shapes", downloads: 1, unending: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []float32{0}), onnx.NewTensor("turned", []int64{2}, []int64{1, 0}), onnx.NewTensor("two", []int64{}, []int64{2}))
			add(g, node("ReduceMin", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Less", []string{"m", "zero"}, []string{"small"}),
				node("Shape", []string{"x"}, []string{"s"}), node("Reshape", []string{"a", "s"}, []string{"same"}))
			yes := body("yes", []string{"t"}, []*onnx.Node{node("Gather", []string{"s", "turned"}, []string{"g"}), node("Mul", []string{"s", "two"}, []string{"s2"}), node("Mul", []string{"g", "two"}, []string{"g2"}),
				node("Sub", []string{"s2", "s"}, []string{"s1"}), node("Sub", []string{"g2", "g"}, []string{"g1"}),
				node("Reshape", []string{"same", "s1"}, []string{"p"}), node("Reshape", []string{"a", "g1"}, []string{"q"}), node("MatMul", []string{"p", "q"}, []string{"t"})})
			no := body("no", []string{"t"}, []*onnx.Node{node("MatMul", []string{"same", "w"}, []string{"t"})})
			add(g, branching("small", yes, no, "y"))
			outputs(g, "y")
		}},
		// What follows from the shape of what a branch gave takes nothing back to the host.
		{name: "data, then shapes", downloads: 1, unending: true, disabled: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("zero", []int64{}, []float32{0}), onnx.NewTensor("first", []int64{1}, []int64{0}), onnx.NewTensor("parts", []int64{2}, []int64{2, 2}))
			add(g, node("ReduceMax", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Greater", []string{"m", "zero"}, []string{"big"}))
			yes := body("yes", []string{"t"}, []*onnx.Node{node("Concat", []string{"a", "x", "a"}, []string{"t"}, integer("axis", 0))})
			add(g, branching("big", yes, body("no", []string{"a"}, nil), "b"), node("Shape", []string{"b"}, []string{"s"}), node("Gather", []string{"s", "first"}, []string{"n"}),
				node("Concat", []string{"n", "parts"}, []string{"to"}, integer("axis", 0)), node("Reshape", []string{"b", "to"}, []string{"p"}), node("Transpose", []string{"p"}, []string{"q"}, onnx.IntsAttr("perm", 2, 0, 1)),
				node("Reshape", []string{"q", "s"}, []string{"r"}), node("MatMul", []string{"r", "v"}, []string{"y"}))
			outputs(g, "y")
		}},
		{name: "several inputs", downloads: 2, build: func(g *onnx.Graph) {
			outer(g)
			g.Inputs = append(g.Inputs, value("d", onnx.Bool))
			add(g, node("Not", []string{"c"}, []string{"n"}), node("And", []string{"n", "d"}, []string{"both"}))
			plain(g, "both")
			add(g, branching("d", body("yes2", []string{"a"}, nil), body("no2", []string{"t2"}, []*onnx.Node{node("Where", []string{"c", "x", "a"}, []string{"t2"})}), "y2"))
			outputs(g, "y", "y2")
		}},
		{name: "nested", downloads: 2, unending: true, inside: "If1/then_branch/If3/else_branch/Neg0", build: func(g *onnx.Graph) {
			outer(g)
			inner := branching("big", body("yes2", []string{"p"}, []*onnx.Node{node("Exp", []string{"q"}, []string{"p"})}), body("no2", []string{"p"}, []*onnx.Node{node("Neg", []string{"q"}, []string{"p"})}), "t")
			yes := body("yes", []string{"t"}, []*onnx.Node{node("MatMul", []string{"a", "v"}, []string{"q"}), node("ReduceMax", []string{"q"}, []string{"m"}, integer("keepdims", 0)),
				node("Greater", []string{"m", "limit"}, []string{"big"}), inner}, onnx.NewTensor("limit", []int64{}, []float32{1}))
			no := body("no", []string{"t"}, []*onnx.Node{branching("c", body("yes3", []string{"x"}, nil), body("no3", []string{"a"}, nil), "r"), node("Add", []string{"r", "x"}, []string{"t"})})
			add(g, branching("c", yes, no, "y"))
			outputs(g, "y")
		}},
		// A condition inside of a branch that the branch gives too.
		{name: "a condition given on", downloads: 2, unending: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("limit", []int64{}, []float32{1}))
			inner := branching("big", body("yes2", []string{"p"}, []*onnx.Node{node("Exp", []string{"a"}, []string{"p"})}), body("no2", []string{"p"}, []*onnx.Node{node("Neg", []string{"a"}, []string{"p"})}), "t")
			yes := body("yes", []string{"t", "big"}, []*onnx.Node{node("ReduceMax", []string{"a"}, []string{"m"}, integer("keepdims", 0)), node("Greater", []string{"m", "limit"}, []string{"big"}), inner})
			no := body("no", []string{"t", "small"}, []*onnx.Node{node("Neg", []string{"a"}, []string{"t"}), node("ReduceMin", []string{"x"}, []string{"m"}, integer("keepdims", 0)), node("Less", []string{"m", "limit"}, []string{"small"})})
			for _, of := range []*onnx.Graph{yes, no} {
				of.Outputs[1] = untyped(of.Outputs[1].Name, onnx.Bool)
			}
			add(g, branching("c", yes, no, "y", "truth"), node("Where", []string{"truth", "x", "a"}, []string{"z1"}))
			outputs(g, "y", "z1")
		}},
		{name: "constant", disabled: true, build: func(g *onnx.Graph) {
			outer(g)
			g.Initializers = append(g.Initializers, onnx.NewTensor("always", []int64{1}, []bool{false}))
			plain(g, "always")
			outputs(g, "y")
		}},
		{name: "a node that is not supported", left: "in its else branch, Hardmax If1/else_branch/Hardmax0: no GPU kernel for this operator", inside: "If1/then_branch/Neg0", build: func(g *onnx.Graph) {
			outer(g)
			add(g, branching("c", body("yes", []string{"t"}, []*onnx.Node{node("Neg", []string{"a"}, []string{"t"})}), body("no", []string{"t"}, []*onnx.Node{node("Hardmax", []string{"a"}, []string{"t"})}), "b"),
				node("MatMul", []string{"b", "v"}, []string{"y"}))
			outputs(g, "y")
		}},
		{name: "alone", left: "not worth the way to the GPU: no product of matrices beside it", build: func(g *onnx.Graph) {
			add(g, branching("c", body("yes", []string{"t"}, []*onnx.Node{node("Neg", []string{"x"}, []string{"t"})}), body("no", []string{"x"}, nil), "y"))
			outputs(g, "y")
		}},
	}
}

// An If runs on the device with what is around it, whatever tells which branch, from run to run and recorded, and each is what it is on the CPU.
func TestProviderRunsBranches(t *testing.T) {
	library, about, _ := aboutProvider(t)
	for _, c := range branchCases() {
		t.Run(c.name, func(t *testing.T) {
			var given []string
			path := modelOf(t, 17, func(g *onnx.Graph) {
				g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", 4), value("z", onnx.Float, "rows", 4), value("c", onnx.Bool, 1)}
				c.build(g)
				for _, in := range g.Inputs {
					given = append(given, in.Name)
				}
				named(g, "")
			})
			o := ort.SessionOptions{Threads: 1}
			if c.disabled {
				o.Optimization = ort.OptimizeDisabled
			}
			want := session(t, path, o)
			o.Provider = library
			patterns, _ := about.Joined()
			got := session(t, path, o)
			if joined, _ := about.Joined(); joined != patterns {
				t.Errorf("%d patterns across branches", joined-patterns)
			}
			inputs := func(round int, yes bool) map[string]*tensor.Tensor {
				rng := rand.New(rand.NewPCG(uint64(round), 9))
				rows := int64(3)
				if !yes && c.rows != 0 {
					rows = c.rows
				}
				make4 := func() *tensor.Tensor {
					v := make([]float32, rows*4)
					for i := range v {
						if v[i] = float32(math.Abs(rng.NormFloat64())); !yes {
							v[i] = -v[i]
						}
					}
					return tensor.Of(v, rows, 4)
				}
				all := map[string]*tensor.Tensor{"x": make4(), "z": make4(), "c": tensor.Of([]bool{yes}, 1), "d": tensor.Of([]bool{round%3 != 0})}
				maps.DeleteFunc(all, func(name string, _ *tensor.Tensor) bool { return !slices.Contains(given, name) })
				return all
			}
			const rounds = 40
			repeats := map[bool]int64{}
			for round := range rounds {
				yes := round%2 == 0
				if round >= 8 && round < 16 {
					yes = round < 12
				}
				in := inputs(round, yes)
				a, err := want.Run(context.Background(), in)
				if err != nil {
					t.Fatal(err)
				}
				before := about.Traffic()
				b, err := got.Run(context.Background(), in)
				if err != nil {
					t.Fatal(err)
				}
				after := about.Traffic()
				repeats[yes] += after.Repeats - before.Repeats
				for name := range a {
					if d := distance(t, a[name], b[name]); !(d < 1e-5) {
						t.Errorf("run %d, %v: %s is off by %g", round, yes, name, d)
					}
				}
				if c.left != "" || round < 8 {
					continue
				}
				if after.Runs != before.Runs+1 {
					t.Errorf("run %d: %d parts ran on the device, want the whole graph as one", round, after.Runs-before.Runs)
				}
				if n := after.Downloads - before.Downloads; n > c.downloads {
					t.Errorf("run %d: %d copies to the host, want %d", round, n, c.downloads)
				}
				if after.Uploads != before.Uploads {
					t.Errorf("run %d: %d copies to the device in the middle", round, after.Uploads-before.Uploads)
				}
			}
			if c.left == "" && (repeats[true] > 0 == c.unending || repeats[false] > 0 == c.unending) {
				t.Errorf("%d and %d runs of %d repeated a recording", repeats[true], repeats[false], rounds)
			}
			nodes, err := openORT(t).Placement(context.Background(), path, o, inputs(0, true))
			if err != nil {
				t.Fatal(err)
			}
			var reason string
			inside := map[string]string{}
			for _, n := range nodes {
				if n.Op == "If" {
					reason += n.Reason
				}
				inside[n.Node] = n.Provider + n.Reason
			}
			if reason != c.left {
				t.Errorf("the If stays on the CPU: %q, want %q", reason, c.left)
			}
			where := ort.ProviderName
			if c.left != "" {
				where = "CPUExecutionProvider" + "inside the body of another node, which stays on the CPU"
			}
			if on := inside[c.inside]; c.inside != "" && on != where {
				t.Errorf("%s runs on %q, of %v", c.inside, on, inside)
			}
		})
	}
}

// A condition of several truths, which may be one in other runs, is an error that says so.
func TestProviderRefusesLongConditions(t *testing.T) {
	library := aboutLibrary(t)
	path := modelOf(t, 17, func(g *onnx.Graph) {
		g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", 4), value("c", onnx.Bool, "truths")}
		yes := body("yes", []string{"t"}, []*onnx.Node{onnx.NewNode("MatMul", []string{"x", "w"}, []string{"t"})}, square("w", 1))
		g.Nodes = []*onnx.Node{branching("c", yes, body("no", []string{"x"}, nil), "y")}
		g.Outputs = []*onnx.ValueInfo{untyped("y", onnx.Float)}
		named(g, "")
	})
	s := session(t, path, ort.SessionOptions{Provider: library})
	x := tensor.Of([]float32{1, 2, 3, 4}, 1, 4)
	for _, truths := range [][]bool{{true}, {true, false}, {}, {false}} {
		_, err := s.Run(context.Background(), map[string]*tensor.Tensor{"x": x, "c": tensor.Of(truths, int64(len(truths)))})
		if len(truths) == 1 && err != nil {
			t.Error(err)
		}
		if len(truths) != 1 && (err == nil || !strings.Contains(err.Error(), "a condition of")) {
			t.Errorf("%v: %v", truths, err)
		}
	}
}

func aboutLibrary(t *testing.T) string {
	library, _, _ := aboutProvider(t)
	return library
}

// randomBranches is a graph of values [rows, 4], and of branches in it and in each other.
type randomBranches struct {
	rng   *rand.Rand
	made  int
	depth int
}

func (c *randomBranches) name(kind string) string {
	c.made++
	return fmt.Sprintf("%s%d", kind, c.made)
}

// fill adds nodes to a graph that sees values and truths, and gives what it sees in the end.
func (c *randomBranches) fill(g *onnx.Graph, values, truths []string, count int) (own []string) {
	values, truths = slices.Clone(values), slices.Clone(truths)
	pick := func() string { return values[max(c.rng.IntN(len(values)), c.rng.IntN(len(values)))] }
	add := func(op string, inputs []string, attrs ...*onnx.Attribute) string {
		n := onnx.NewNode(op, inputs, []string{c.name("v")}, attrs...)
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	constant := func(x *onnx.Tensor) string {
		x.Name = c.name("k")
		g.Initializers = append(g.Initializers, x)
		return x.Name
	}
	for range count {
		var made string
		switch c.rng.IntN(18) {
		case 0, 1:
			made = add([]string{"Add", "Mul", "Sub"}[c.rng.IntN(3)], []string{pick(), pick()})
		case 2, 3:
			made = add([]string{"Relu", "Tanh", "Neg", "Identity", "Sigmoid"}[c.rng.IntN(5)], []string{pick()})
		case 4:
			made = add("Tanh", []string{add("MatMul", []string{pick(), constant(square("", c.rng.Uint64()))})})
		case 5:
			made = add("LayerNormalization", []string{add("Add", []string{pick(), pick()}), constant(onnx.NewTensor("", []int64{4}, []float32{1, 0.5, 2, -1}))}, onnx.FloatAttr("epsilon", 0.1))
		case 6:
			shape := add("Shape", []string{pick()})
			made = add("Add", []string{pick(), add("Expand", []string{constant(onnx.NewTensor("", nil, []float32{0.5})), shape})})
		case 7:
			flat := add("Reshape", []string{pick(), constant(onnx.NewTensor("", []int64{1}, []int64{-1}))})
			made = add("Reshape", []string{flat, add("Shape", []string{pick()})})
		case 8:
			made = add("Transpose", []string{add("Softmax", []string{add("Transpose", []string{pick()})})})
		case 9:
			truths = append(truths, add("Not", []string{truths[c.rng.IntN(len(truths))]}))
		case 10:
			most := add("ReduceMean", []string{pick()}, onnx.IntAttr("keepdims", 0))
			truths = append(truths, add("Greater", []string{most, constant(onnx.NewTensor("", nil, []float32{0.1}))}))
		case 11:
			rows := add("Gather", []string{add("Shape", []string{pick()}), constant(onnx.NewTensor("", nil, []int64{0}))})
			truths = append(truths, add("Greater", []string{rows, constant(onnx.NewTensor("", nil, []int64{2}))}))
		case 12:
			truths = append(truths, add("IsNaN", []string{add("Log", []string{add("ReduceMean", []string{pick()}, onnx.IntAttr("keepdims", 0))})}))
		case 13:
			made = add("Where", []string{truths[c.rng.IntN(len(truths))], pick(), pick()})
		case 14:
			made = add("Expand", []string{constant(onnx.NewTensor("", nil, []float32{0.5})), add("Shape", []string{pick()})})
		default:
			if c.depth == 3 {
				continue
			}
			c.depth++
			outputs := 1 + c.rng.IntN(3)
			var bodies []*onnx.Graph
			first, last := c.made, c.made
			for _, name := range []string{"yes", "no"} {
				if c.rng.IntN(2) == 0 {
					c.made = first // the same names in both
				}
				b := &onnx.Graph{Name: c.name(name)}
				inside := c.fill(b, values, truths, c.rng.IntN(6))
				all := slices.Concat(inside, inside, values)
				var outs []string
				for range outputs {
					outs = append(outs, all[c.rng.IntN(len(all))])
				}
				b = body(b.Name, outs, b.Nodes, b.Initializers...)
				bodies = append(bodies, b)
				last = max(last, c.made)
			}
			c.depth--
			c.made = last
			var outs []string
			for range outputs {
				outs = append(outs, c.name("v"))
			}
			g.Nodes = append(g.Nodes, branching(truths[max(c.rng.IntN(len(truths)), c.rng.IntN(len(truths)))], bodies[0], bodies[1], outs...))
			values, own = append(values, outs...), append(own, outs...)
		}
		if made != "" {
			values, own = append(values, made), append(own, made)
		}
	}
	return own
}

// Graphs with branches in any place, and in each other, are what they are on the CPU, run after run.
func TestProviderRunsRandomBranches(t *testing.T) {
	library, about, _ := aboutProvider(t)
	o := options("")
	before := about.Traffic()
	var branches, taken int
	for seed := range uint64(250) {
		c := &randomBranches{rng: rand.New(rand.NewPCG(seed, 21))}
		path := modelOf(t, 17, func(g *onnx.Graph) {
			g.Inputs = []*onnx.ValueInfo{value("x", onnx.Float, "rows", 4), value("z", onnx.Float, "rows", 4), value("c", onnx.Bool, 1), value("d", onnx.Bool)}
			own := c.fill(g, []string{"x", "z"}, []string{"c", "d"}, 4+c.rng.IntN(14))
			for _, name := range own {
				if name == own[len(own)-1] || c.rng.IntN(3) == 0 {
					g.Outputs = append(g.Outputs, untyped(name, onnx.Float))
				}
			}
			for _, n := range g.Nodes {
				if n.OpType == "If" {
					branches++
				}
			}
			named(g, "")
		})
		o.Provider, o.Optimization = "", []ort.OptimizationLevel{ort.OptimizeDisabled, ort.OptimizeAll}[seed%2]
		want := session(t, path, o)
		o.Provider = library
		got := session(t, path, o)
		if nodes := want.Outputs(); len(nodes) == 0 {
			continue
		}
		for round := range 14 {
			rng := rand.New(rand.NewPCG(uint64(round), seed))
			rows := int64(3 - round/9)
			random := func() *tensor.Tensor {
				v := make([]float32, rows*4)
				for i := range v {
					v[i] = float32(rng.NormFloat64())
				}
				return tensor.Of(v, rows, 4)
			}
			in := map[string]*tensor.Tensor{"x": random(), "z": random(), "c": tensor.Of([]bool{round%5 < 2}, 1), "d": tensor.Of([]bool{round%7 < 5})}
			a, err := want.Run(context.Background(), in)
			if err != nil {
				t.Fatal(seed, err)
			}
			b, err := got.Run(context.Background(), in)
			if err != nil {
				t.Fatal(seed, err)
			}
			for name := range a {
				if d := distance(t, a[name], b[name]); !(d < 1e-4) {
					t.Fatalf("seed %d, run %d: %s is off by %g", seed, round, name, d)
				}
			}
			taken++
		}
		got.Close()
		want.Close()
	}
	after := about.Traffic()
	if n := after.Runs - before.Runs; n < int64(taken)*9/10 || branches < 200 || after.Repeats-before.Repeats < int64(taken)/20 {
		t.Errorf("%d parts ran in %d runs of models with %d branches, %d of them recorded", n, taken, branches, after.Repeats-before.Repeats)
	}
}

// inBranches puts the nodes of a graph into both branches of an If, in one of which floats that it gives are negated, under a new input.
func inBranches(g *onnx.Graph) {
	yes, no := &onnx.Graph{Name: "yes", Nodes: g.Nodes, ValueInfo: g.ValueInfo}, &onnx.Graph{Name: "no", Nodes: slices.Clone(g.Nodes), ValueInfo: g.ValueInfo}
	var outputs []string
	var given []*onnx.ValueInfo
	for _, out := range g.Outputs {
		own := *out
		own.Name = "given_" + out.Name
		outputs, given = append(outputs, own.Name), append(given, &own)
		yes.Outputs = append(yes.Outputs, untyped(out.Name, out.Type.Tensor.ElemType))
		name := out.Name
		if out.Type.Tensor.ElemType == onnx.Float {
			name += "_less"
			no.Nodes = append(no.Nodes, onnx.NewNode("Neg", []string{out.Name}, []string{name}))
		}
		no.Outputs = append(no.Outputs, untyped(name, out.Type.Tensor.ElemType))
	}
	g.Inputs = append(g.Inputs, value("which_branch", onnx.Bool, 1))
	g.ValueInfo = nil
	g.Nodes, g.Outputs = []*onnx.Node{branching("which_branch", yes, no, outputs...)}, given
}

// runInTurn runs a model of such a graph on the CPU and on the provider, which is to take it whole.
func runInTurn(t *testing.T, path string, o ort.SessionOptions, about *ort.Provider, limit float64, inputs func(s *ort.Session, round int) map[string]*tensor.Tensor) {
	t.Helper()
	library := o.Provider
	o.Provider = ""
	want := session(t, path, o)
	o.Provider = library
	got := session(t, path, o)
	before := about.Traffic()
	const rounds = 12
	for round := range rounds {
		in := inputs(want, round)
		in["which_branch"] = tensor.Of([]bool{round%2 == 0 || round == 11}, 1)
		a, err := want.Run(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := got.Run(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		for name := range a {
			if d := distance(t, a[name], b[name]); !(d < limit) {
				t.Errorf("run %d: %s is off by %g", round, name, d)
			}
		}
	}
	after := about.Traffic()
	if after.Runs-before.Runs != rounds || after.Downloads-before.Downloads != rounds || after.Repeats-before.Repeats < 4 {
		t.Errorf("%d parts ran on the device in %d runs, %d of them recorded, with %d copies to the host", after.Runs-before.Runs, rounds, after.Repeats-before.Repeats, after.Downloads-before.Downloads)
	}
}

// What becomes one step becomes so in each branch, with the results of the CPU: whole models, and the start of attention over a cache.
func TestProviderJoinsInBranches(t *testing.T) {
	library, about, _ := aboutProvider(t)
	joinedIn := func(path string, o ort.SessionOptions) [2]int64 {
		patterns, elementwise := about.Joined()
		o.Provider = library
		session(t, path, o)
		p, e := about.Joined()
		return [2]int64{p - patterns, e - elementwise}
	}
	paths := []string{testenv.Data(t, "models/optimum_tests_tiny.onnx"), testenv.Data(t, "models/vnn23_vit_pgd_2_3_16.onnx")}
	if testenv.Slow() {
		paths = append(paths, testenv.Data(t, "models/vit_tiny_patch16_224.onnx"), testenv.Llama(t))
	}
	for _, whole := range paths {
		t.Run(filepath.Base(whole), func(t *testing.T) {
			m, err := onnx.Open(whole)
			if err != nil {
				t.Fatal(err)
			}
			inBranches(m.Graph)
			path := filepath.Join(t.TempDir(), "branches.onnx")
			if _, err := m.Save(path, onnx.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			runInTurn(t, path, ort.SessionOptions{Provider: library}, about, 1e-5, func(s *ort.Session, _ int) map[string]*tensor.Tensor {
				specs := slices.DeleteFunc(slices.Clone(s.Inputs()), func(s tensor.Spec) bool { return s.Name == "which_branch" })
				return randomInputs(t, specs, 5, map[string]int64{"1": 6})
			})
			alone, both := joinedIn(whole, ort.SessionOptions{}), joinedIn(path, ort.SessionOptions{})
			if both[0] != 2*alone[0] || both[1] < 2*alone[1] {
				t.Errorf("%d patterns and elementwise nodes joined in branches, %d without", both, alone)
			}
		})
	}
	o := ort.SessionOptions{Optimization: ort.OptimizeDisabled, Threads: 1, Config: map[string]string{"ai.coset.gpu_nodes": "all"}}
	// A condition between what becomes one step, which it has to wait for.
	c := &patternCase{rng: rand.New(rand.NewPCG(1, 43)), inputs: map[string]*tensor.Tensor{}}
	path := modelOf(t, 18, func(g *onnx.Graph) {
		g.Inputs, c.graph = nil, g
		input := func(name string, dims ...int64) string { return c.input(name, c.floats(dims...), dims...) }
		cosine, sine := input("cosine", 1, 1, 5, 6), input("sine", 1, 1, 5, 6)
		q, k := input("q", 2, 4, 5, 6), input("k", 2, 2, 5, 6)
		c.output(c.turned(q, cosine, sine, 6))
		keys := c.node("Concat", []string{input("past_keys", 2, 2, 7, 6), c.turned(k, cosine, sine, 6)}, onnx.IntAttr("axis", 2))
		c.output(keys)
		big := c.node("Greater", []string{c.node("ReduceMax", []string{keys}, onnx.IntAttr("keepdims", 0)), c.constant("none", nil, 0)})
		g.Nodes = append(g.Nodes, branching(big, body("yes", []string{"t"}, []*onnx.Node{onnx.NewNode("Neg", []string{"q"}, []string{"t"})}), body("no", []string{"t"}, []*onnx.Node{onnx.NewNode("Abs", []string{"q"}, []string{"t"})}), "either"))
		c.output("either")
		c.output(c.node("Concat", []string{input("past_values", 2, 2, 7, 6), input("v", 2, 2, 5, 6)}, onnx.IntAttr("axis", 2)))
	})
	c.compare(t, library, 1, path, 3e-5)
	if got := joinedIn(path, o); got[0] != 3 {
		t.Errorf("%d steps around a condition joined, want both rotary embeddings and what they are for", got[0])
	}
	for seed := range uint64(30) {
		var inputs map[string]*tensor.Tensor
		build := func(g *onnx.Graph) {
			c := &patternCase{rng: rand.New(rand.NewPCG(seed, 43)), inputs: map[string]*tensor.Tensor{}, graph: g}
			g.Inputs = nil
			c.append()
			inputs = c.inputs
		}
		alone := joinedIn(modelOf(t, 18, build), o)
		path := modelOf(t, 18, func(g *onnx.Graph) {
			build(g)
			inBranches(g)
		})
		if both := joinedIn(path, o); both[0] != 2*alone[0] {
			t.Errorf("seed %d: %d patterns joined in branches, %d without", seed, both[0], alone[0])
		}
		o.Provider = library
		runInTurn(t, path, o, about, 3e-5, func(*ort.Session, int) map[string]*tensor.Tensor { return maps.Clone(inputs) })
	}
}
