package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// dataModels returns the real models the tests run on.
func dataModels(t testing.TB) []string {
	dir := filepath.Dir(testenv.Data(t, "models/vit_tiny_patch16_224.onnx"))
	list, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no models in %s: %v", dir, err)
	}
	return list
}

func TestRealModelsByteForByte(t *testing.T) {
	models := dataModels(t)
	if !testing.Short() {
		models = append(models, testenv.Llama(t))
	}
	for _, path := range models {
		t.Run(filepath.Base(path), func(t *testing.T) {
			m := open(t, path)
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if _, err := m.WriteTo(&got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Fatal("the untouched model is not written as it was")
			}
			for _, p := range Check(m) {
				t.Errorf("Check: %v", p)
			}

			// An edit deep inside leaves every other message as it was.
			n := m.Graph.Nodes[len(m.Graph.Nodes)/2]
			n.DocString = "edited"
			edited, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			m2, err := Parse(edited)
			if err != nil {
				t.Fatal(err)
			}
			if !Equal(m, m2) {
				t.Fatal("the edited model reads back differently")
			}
			for i, x := range m2.Graph.Initializers {
				if !bytes.Equal(x.raw, m.Graph.Initializers[i].raw) {
					t.Fatalf("initializer %q was encoded anew", x.Name)
				}
			}

			// Encoded wholly anew it still means the same.
			fresh := forget(Clone(m))
			again, err := fresh.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			m3, err := Parse(again)
			if err != nil {
				t.Fatal(err)
			}
			if !Equal(m, m3) {
				t.Fatal("the newly encoded model reads back differently")
			}
		})
	}
}

func open(t testing.TB, path string) *Model {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// forget makes a message one that never came from a file.
func forget[M Message](m M) M {
	var walk func(Message)
	walk = func(m Message) {
		m.src().raw = nil
		for _, f := range m.fields(nil) {
			if p, ok := f.p.(messageField); ok {
				for i := range p.len() {
					walk(p.at(i))
				}
			}
		}
	}
	walk(m)
	return m
}

func TestRandomModelsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomModel(t)
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !Equal(m, got) {
			t.Fatal("the model reads back differently")
		}
		again, err := got.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b) {
			t.Fatal("the parsed model is not written as it was")
		}
		if !Equal(Clone(got), got) {
			t.Fatal("the clone differs")
		}
	})
}

func TestOddEncodingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomModel(t)
		b := oddly(t, m)
		got, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !Equal(m, got) {
			t.Fatal("the odd encoding means something else")
		}
		again, err := got.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("not written as it was:\n%x\n%x", b, again)
		}

		// One edit at the top: everything else survives, unknown fields too.
		got.ProducerName += "x"
		edited, err := got.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(edited)
		if err != nil {
			t.Fatal(err)
		}
		if !Equal(got, back) {
			t.Fatal("the edited model reads back differently")
		}
		if a, b := bytes.Count(b, []byte("from the future")), bytes.Count(edited, []byte("from the future")); a != b {
			t.Fatalf("%d unknown fields before the edit, %d after", a, b)
		}
	})
}

func TestUnknownFieldsKeepTheirOrder(t *testing.T) {
	var b []byte
	unknown := func(num protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
	}
	b = append(b, unknown(500, "one")...)
	b = append(b, protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), nil)...)
	b = append(b, unknown(400, "two")...)
	// A known number with a wire type that is not its own is unknown as well.
	b = append(b, protowire.AppendFixed32(protowire.AppendTag(nil, 1, protowire.Fixed32Type), 7)...)
	b = append(b, unknown(500, "three")...)
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	m.IRVersion = 8
	got, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{1 << 3, 8, 7<<3 | 2, 0}
	want = append(want, unknown(500, "one")...)
	want = append(want, unknown(400, "two")...)
	want = append(want, 1<<3|5, 7, 0, 0, 0)
	want = append(want, unknown(500, "three")...)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestLastMemberOfOneofWins(t *testing.T) {
	// dim_value 3, then dim_param "N"; then the other way round.
	param := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "N")
	value := []byte{1 << 3, 3}
	dec := &decoder{}
	var d Dim
	if err := dec.decode(&d, append(append([]byte{}, value...), param...), 0, 0); err != nil {
		t.Fatal(err)
	}
	if d.Param != "N" || d.HasValue || d.Value != 0 {
		t.Errorf("value then param: %+v", d)
	}
	d = Dim{}
	if err := dec.decode(&d, append(append([]byte{}, param...), value...), 0, 0); err != nil {
		t.Fatal(err)
	}
	if d.Param != "" || !d.HasValue || d.Value != 3 {
		t.Errorf("param then value: %+v", d)
	}
}

func TestPresence(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    Message
		want []byte
	}{
		{"zero int attribute", IntAttr("", 0), []byte{3 << 3, 0, 20<<3&0x7f | 0x80, 1, 2}},
		{"empty string attribute", StringAttr("", ""), []byte{4<<3 | 2, 0, 20<<3&0x7f | 0x80, 1, 3}},
		{"unknown dim", &Dim{}, nil},
		{"dim zero", &Dim{HasValue: true}, []byte{1 << 3, 0}},
		{"param beats a value left behind", &Dim{Value: 5, HasValue: true, Param: "N"}, []byte{2<<3 | 2, 1, 'N'}},
		{"empty raw data", &Tensor{RawData: []byte{}}, []byte{9<<3 | 2, 0}},
	} {
		var e encoder
		e.message(tt.m)
		var got bytes.Buffer
		e.writeTo(&got)
		if !bytes.Equal(got.Bytes(), tt.want) {
			t.Errorf("%s: %x, want %x", tt.name, got.Bytes(), tt.want)
		}
	}
}
