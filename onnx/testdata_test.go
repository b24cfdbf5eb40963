package onnx

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// testdataModels are the committed models: what this package wrote must stay
// what it writes, byte for byte.
func testdataModels() map[string]*Model {
	every := everyFieldModel()
	return map[string]*Model{"tiny": tinyModel(), "function": functionModel(), "every": every, "types": typesModel()}
}

// typesModel has a value of each kind of type.
func typesModel() *Model {
	m := NewModel(13, 24, "types")
	floats := func() *Type { return NewValueInfo("", Float, "N", nil, 0).Type }
	for name, typ := range map[string]*Type{
		"a_tensor": floats(),
		"b_seq":    {Sequence: &SequenceType{ElemType: floats()}},
		"c_map":    {Map: &MapType{KeyType: String, ValueType: floats()}},
		"d_opt":    {Optional: &OptionalType{ElemType: &Type{Sequence: &SequenceType{ElemType: floats()}}}},
		"e_sparse": {Sparse: &TensorType{ElemType: Double, Shape: &Shape{}}},
		"f_opaque": {Opaque: &OpaqueType{Domain: "d", Name: "n"}},
		"g_norank": NewValueInfo("", Int4, UnknownRank).Type,
	} {
		m.Graph.Inputs = append(m.Graph.Inputs, &ValueInfo{Name: name, Type: typ})
	}
	in := m.Graph.Inputs
	for i := range in { // a map has no order
		for j := range in[:i] {
			if in[i].Name < in[j].Name {
				in[i], in[j] = in[j], in[i]
			}
		}
	}
	m.Graph.Outputs = []*ValueInfo{in[0]}
	return m
}

func TestWritesWhatItWrote(t *testing.T) {
	for name, m := range testdataModels() {
		path := filepath.Join("testdata", name+".onnx")
		got, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("COSETQ_UPDATE") != "" {
			write(t, path, got)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is no longer written as it was", path)
		}
		back := open(t, path)
		if !Equal(m, back) {
			t.Errorf("%s reads back differently", path)
		}
	}
}

// Every field number of every message is in use in every.onnx or types.onnx, so
// that the tests that run over them see all fields.
func TestEveryFieldIsCovered(t *testing.T) {
	missing := map[string]bool{}
	seen := map[string]bool{}
	var walk func(m Message)
	walk = func(m Message) {
		kind := strings.TrimPrefix(fmt.Sprintf("%T", m), "*onnx.")
		for _, f := range m.fields(nil) {
			key := kind + "." + f.name
			if isZero(&f) {
				if !seen[key] {
					missing[key] = true
				}
				continue
			}
			seen[key] = true
			delete(missing, key)
			if p, ok := f.p.(messageField); ok {
				for i := range p.len() {
					walk(p.at(i))
				}
			}
		}
	}
	for _, m := range testdataModels() {
		walk(m)
	}
	delete(missing, "SimpleShardedDim.dim_value") // a oneof with dim_param
	for key := range missing {
		t.Errorf("no test model has %s", key)
	}
}

func TestSchemaIsSorted(t *testing.T) {
	for _, m := range []Message{&Model{}, &Graph{}, &Node{}, &Attribute{}, &Tensor{}, &Function{}, &Type{}, &ValueInfo{}} {
		last := protowire.Number(0)
		tab := m.fields(nil)
		if len(tab) > maxFields {
			t.Errorf("%T has %d fields; raise maxFields", m, len(tab))
		}
		for _, f := range tab {
			if f.num <= last {
				t.Errorf("%T: field %s is out of order", m, f.name)
			}
			last = f.num
		}
	}
}
