package rewrite_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// typedTensor holds v as dt, which must be able to.
func typedTensor(name string, dt onnx.DataType, dims []int64, v []float32) *onnx.Tensor {
	switch dt {
	case onnx.Float16:
		return onnx.NewFloat16Tensor(name, dims, v)
	case onnx.BFloat16:
		half := make([]uint16, len(v))
		for i, x := range v {
			half[i] = onnx.BFloat16FromFloat32(x)
		}
		t := onnx.NewTensor(name, dims, half)
		t.DataType = dt
		return t
	}
	return floats(name, dims, v)
}

// everywhere computes in dt with all that names a type: tables, constants, branches, sequences, and a part in float32.
func everywhere(dt onnx.DataType) *onnx.Model {
	rng := rand.New(rand.NewPCG(60, 61))
	stored := func(name string, dims ...int64) *onnx.Tensor {
		size := int64(1)
		for _, d := range dims {
			size *= d
		}
		v := make([]float32, size)
		for i := range v {
			v[i] = float32(rng.IntN(33)-16) / 8
		}
		return typedTensor(name, dt, dims, v)
	}
	to := func(dt onnx.DataType) *onnx.Attribute { return onnx.IntAttr("to", int64(dt)) }
	dtype := onnx.IntAttr("dtype", int64(dt))
	branch := func(name string, nodes []*onnx.Node, own ...*onnx.Tensor) *onnx.Graph {
		nodes = append(nodes, node("", "MatMul", []string{name + ".x", "w"}, []string{name}))
		return &onnx.Graph{Name: name, Nodes: nodes, Initializers: own, ValueInfo: []*onnx.ValueInfo{onnx.NewValueInfo(name+".x", dt, 2, 64)},
			Outputs: []*onnx.ValueInfo{onnx.NewValueInfo(name, dt, 2, 48)}}
	}
	sequence := &onnx.ValueInfo{Name: "list", Type: &onnx.Type{Sequence: &onnx.SequenceType{ElemType: onnx.NewValueInfo("", dt, onnx.UnknownRank).Type}}}
	return newModel(8, 17, &onnx.Graph{
		Inputs: []*onnx.ValueInfo{onnx.NewValueInfo("x", dt, 2, 64), onnx.NewValueInfo("ids", onnx.Int64, 2), onnx.NewValueInfo("pick", onnx.Bool)},
		Initializers: []*onnx.Tensor{
			stored("table", 100, 64), stored("w", 64, 48), stored("b", 48), stored("kept", 64, 48), onnx.NewTensor("shape", []int64{2}, []int64{2, 48}),
		},
		ValueInfo: []*onnx.ValueInfo{onnx.NewValueInfo("rows", dt, 2, 64), onnx.NewValueInfo("kept", dt, 64, 48), onnx.NewValueInfo("q", dt, 64, 48), sequence},
		Nodes: []*onnx.Node{
			node("", "Gather", []string{"table", "ids"}, []string{"rows"}),
			node("", "Add", []string{"x", "rows"}, []string{"sum"}),
			node("", "Constant", nil, []string{"q"}, onnx.TensorAttr("value", stored("", 64, 48))),
			node("", "Constant", nil, []string{"factor"}, onnx.TensorAttr("value", stored("", 48))),
			node("", "MatMul", []string{"sum", "q"}, []string{"p"}),
			node("", "Mul", []string{"p", "factor"}, []string{"p1"}),
			node("", "ConstantOfShape", []string{"shape"}, []string{"quarter"}, onnx.TensorAttr("value", typedTensor("", dt, []int64{1}, []float32{0.25}))),
			node("", "EyeLike", []string{"shape2"}, []string{"eye"}, dtype),
			node("", "Add", []string{"p1", "quarter"}, []string{"p2"}),
			node("", "Add", []string{"p2", "eye"}, []string{"p3"}),
			node("", "If", []string{"pick"}, []string{"chosen"},
				onnx.GraphAttr("then_branch", branch("then", []*onnx.Node{node("", "Add", []string{"sum", "own"}, []string{"then.x"})}, stored("own", 64))),
				onnx.GraphAttr("else_branch", branch("else", []*onnx.Node{
					node("", "Cast", []string{"sum"}, []string{"whole"}, to(onnx.Int64)), node("", "Cast", []string{"whole"}, []string{"else.x"}, to(dt))}))),
			node("", "SequenceEmpty", nil, []string{"none"}, dtype),
			node("", "SequenceInsert", []string{"none", "p3"}, []string{"one"}),
			node("", "SequenceInsert", []string{"one", "chosen"}, []string{"list"}),
			node("", "ConcatFromSequence", []string{"list"}, []string{"both"}, onnx.IntAttr("axis", 0)),
			node("", "Cast", []string{"x"}, []string{"single"}, to(onnx.Float)),
			node("", "Cast", []string{"kept"}, []string{"kept.single"}, to(onnx.Float)),
			node("", "MatMul", []string{"single", "kept.single"}, []string{"middle"}),
			node("", "Cast", []string{"middle"}, []string{"back"}, to(dt)),
			node("", "Concat", []string{"both", "back"}, []string{"all"}, onnx.IntAttr("axis", 0)),
			node("", "Add", []string{"all", "b"}, []string{"y"}),
		},
		Outputs: []*onnx.ValueInfo{onnx.NewValueInfo("y", dt, nil, 48)},
	})
}

// A widened model is the one that was built in float32 with the same numbers, and large weights are where they were.
func TestWiden(t *testing.T) {
	testenv.ORT(t)
	shape2 := onnx.NewTensor("shape2", []int64{2, 48}, make([]int64, 96))
	rng := rand.New(rand.NewPCG(62, 63))
	for _, dt := range []onnx.DataType{onnx.Float16, onnx.BFloat16} {
		want, m := everywhere(onnx.Float), everywhere(dt)
		for _, m := range []*onnx.Model{want, m} {
			m.Graph.Initializers = append(m.Graph.Initializers, shape2)
		}
		before := onnx.Clone(m)
		changed, err := rewrite.Widen(m)
		if err != nil || !changed {
			t.Fatal(changed, err)
		}
		wellFormed(t, m)
		for _, pick := range []bool{false, true} {
			sameOutputs(t, want, m, map[string]*tensor.Tensor{"x": tensor.Of(normal(rng, 128), 2, 64), "ids": tensor.Of([]int64{3, 99}, 2),
				"pick": tensor.Of([]bool{pick})}, 1e-6)
		}
		var narrow []string
		for r := range m.Tensors() {
			if r.Tensor.DataType == dt {
				narrow = append(narrow, r.Tensor.Name)
			}
		}
		if want := []string{"table", "w.narrow", "kept", ""}; !slices.Equal(narrow, want) {
			t.Errorf("%q are still %v, want %q", narrow, dt, want)
		}
		if a, b := before.Graph.Initializer("w"), m.Graph.Initializer("w.narrow"); &a.RawData[0] != &b.RawData[0] {
			t.Error("the data of w were copied")
		}
		if changed, err := rewrite.Widen(m); changed || err != nil {
			t.Errorf("what was widened is widened again: %v", err)
		}
	}
}

// What is stored in float16 and computed in float32 stays as it is, to the byte.
func TestWidenLeavesStorage(t *testing.T) {
	_, w := onGrid(t, rand.New(rand.NewPCG(64, 65)), "d4:4", 48, 100)
	m, _ := chainModel(17, onnx.Float, w)
	if _, err := rewrite.ExportHalf(m, find(t, m)); err != nil {
		t.Fatal(err)
	}
	before, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	changed, err := rewrite.Widen(m)
	if err != nil || changed {
		t.Error(changed, err)
	}
	if after, err := m.Marshal(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("%v\n%s", err, dump(t, m))
	}
}

// Before IR version 4 initializers are listed among the inputs, under the names that Casts take.
func TestWidenUnlists(t *testing.T) {
	testenv.ORT(t)
	w := rows{48, 100, normal(rand.New(rand.NewPCG(66, 67)), 4800)}
	want, inputs := chainModel(8, onnx.Float, w)
	m, _ := chainModel(8, onnx.Float16, w)
	m.IRVersion = 3
	m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValueInfo("w0", onnx.Float16, 100, 48), onnx.NewValueInfo("b", onnx.Float16, 48))
	sites := find(t, m)
	if _, err := rewrite.Widen(m); err != nil {
		t.Fatal(err)
	}
	if m.IRVersion < 4 || len(m.Graph.Inputs) != 1 {
		t.Errorf("IR version %d, %d inputs", m.IRVersion, len(m.Graph.Inputs))
	}
	sameOutputs(t, want, m, inputs, 1e-3)
	// Sites found before are observed under their names.
	if list, err := rewrite.Observe(m, sites, nil); err != nil || len(list) != 1 || list[0].Tag != "x0" || !slices.Equal(list[0].Weights, []string{"w0"}) {
		t.Errorf("%+v, %v", list, err)
	}
}
