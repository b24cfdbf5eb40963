package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosetq/cosetq/internal/testenv"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestTruncatedEverywhere(t *testing.T) {
	b, err := weightModel().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		m, err := Parse(b[:n])
		if err == nil {
			readEverything(t, m) // cut between two fields of the model
			continue
		}
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Fatalf("cut at %d: %v is not a FormatError", n, err)
		}
		if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNotModel) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestFlippedBits(t *testing.T) {
	b, err := tinyModel().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(b) {
		c := append([]byte(nil), b...)
		c[i/8] ^= 1 << (i % 8)
		m, err := Parse(c)
		if err != nil {
			continue
		}
		readEverything(t, m)
		if got, err := m.Marshal(); err != nil || string(got) != string(c) {
			t.Fatalf("bit %d: not written as it was (%v)", i, err)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	m := tinyModel()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "then_branch")
	b[at-1] = 0x7f // the length of the name of the attribute
	path := filepath.Join(t.TempDir(), "broken.onnx")
	write(t, path, b)
	_, err = Open(path)
	var fe *FormatError
	if !errors.As(err, &fe) {
		t.Fatalf("got %v", err)
	}
	if fe.Path != path || fe.Where != "graph.node[1].attribute[0].g" && !strings.HasPrefix(fe.Where, "graph.node[1].attribute[0]") || fe.Offset < int64(at-4) || fe.Offset > int64(len(b)) {
		t.Errorf("%+v", fe)
	}
	if !strings.HasPrefix(err.Error(), path+": graph.node[1].attribute[0]") {
		t.Errorf("error says %q", err)
	}
}

func TestOversizedLength(t *testing.T) {
	for _, n := range []uint64{100, 1 << 31, 1 << 40, 1<<63 - 1, 1<<64 - 1} {
		b := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), n)
		if _, err := Parse(append(b, "abc"...)); !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrWire) {
			t.Errorf("length %d: %v", n, err)
		}
	}
}

// nested returns a model whose graphs are inside each other.
func nested(levels int) []byte {
	g := &Graph{Name: "leaf"}
	for range levels {
		g = &Graph{Nodes: []*Node{NewNode("If", nil, nil, GraphAttr("then_branch", g))}}
	}
	var e encoder // as Marshal, which refuses what is too deep
	e.message(&Model{Graph: g})
	var b bytes.Buffer
	e.writeTo(&b)
	return b.Bytes()
}

func TestDeepNesting(t *testing.T) {
	m, err := Parse(nested(100))
	if err != nil {
		t.Fatalf("100 levels: %v", err)
	}
	if got := len(m.Scopes()); got != 101 {
		t.Errorf("%d scopes, want 101", got)
	}
	Check(m)
	if _, err := Parse(nested(110)); !errors.Is(err, ErrTooDeep) {
		t.Errorf("110 levels: %v", err)
	}
	// A type inside a type inside a type ...
	var b []byte
	for range 10000 {
		b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
		b = protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), b)
	}
	v := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), b)
	g := protowire.AppendBytes(protowire.AppendTag(nil, 11, protowire.BytesType), v)
	if _, err := Parse(protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), g)); !errors.Is(err, ErrTooDeep) {
		t.Errorf("10000 sequence types: %v", err)
	}
}

// A graph that a program made to contain itself must not hang the walkers.
func TestGraphInItself(t *testing.T) {
	m := tinyModel()
	m.Graph.Nodes[1].SetAttr(GraphAttr("then_branch", m.Graph))
	if err := m.Walk(func(*Scope) error { return nil }); !errors.Is(err, ErrTooDeep) {
		t.Errorf("Walk: %v", err)
	}
	found := false
	for _, p := range Check(m) {
		found = found || errors.Is(p, ErrTooDeep)
	}
	if !found {
		t.Error("Check does not report it")
	}
	if _, err := m.Marshal(); !errors.Is(err, ErrTooDeep) {
		t.Errorf("Marshal: %v", err)
	}
}

func TestOpenWhatIsNoModel(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"empty": "", "text": "hello, this is text\n", "zip": "PK\x03\x04\x14\x00", "zeros": strings.Repeat("\x00", 64),
	} {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		m, err := Open(path)
		var fe *FormatError
		if m != nil || !errors.As(err, &fe) || fe.Path != path {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}

// Many pieces of one submessage must not cost the square of their number.
func TestManyPieces(t *testing.T) {
	piece := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), []byte{1<<3 | 2, 0})
	b := make([]byte, 0, 4*200000)
	for range 200000 {
		b = append(b, piece...)
	}
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Graph.Nodes) != 200000 {
		t.Errorf("%d nodes", len(m.Graph.Nodes))
	}
	if got, err := m.Marshal(); err != nil || string(got) != string(b) {
		t.Errorf("not written as it was: %v", err)
	}
}

// Nor must many pieces of a member of a oneof, by itself or in turn with another.
func TestManyPiecesOfAOneof(t *testing.T) {
	const n = 200000
	for _, members := range []string{"\x0a\x00", "\x0a\x00\x22\x00"} { // tensor_type; then sequence_type
		typ := bytes.Repeat([]byte(members), n/len(members))
		var d decoder
		var got Type
		start := time.Now()
		if err := d.decode(&got, typ, 0, 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%x: %v for %d bytes", members, took, len(typ))
		}
		if last := typ[len(typ)-2]; (got.Tensor != nil) != (last == 0x0a) || (got.Sequence != nil) != (last == 0x22) {
			t.Errorf("%x: %+v", members, got)
		}
	}
}

func TestManyNodesInAChain(t *testing.T) {
	m := NewModel(8, 17, "chain")
	m.Graph.Inputs = []*ValueInfo{NewValueInfo("v0", Float)}
	const n = 20000
	for i := range n {
		m.Graph.Nodes = append(m.Graph.Nodes, NewNode("Relu", []string{fmt.Sprint("v", i)}, []string{fmt.Sprint("v", i+1)}))
	}
	m.Graph.Outputs = []*ValueInfo{NewValueInfo(fmt.Sprint("v", n), Float)}
	for i, j := 0, n-1; i < j; i, j = i+1, j-1 {
		m.Graph.Nodes[i], m.Graph.Nodes[j] = m.Graph.Nodes[j], m.Graph.Nodes[i]
	}
	if err := m.CheckOrder(); !errors.Is(err, ErrOrder) {
		t.Errorf("backwards: %v", err)
	}
	if err := m.Scopes()[0].Sort(); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckOrder(); err != nil {
		t.Error(err)
	}
}

// Real models with random damage: an error or a model, never a panic.
func TestDamagedRealModels(t *testing.T) {
	path := testenv.Data(t, "models/optimum_tests_tiny.onnx")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	parsed := 0
	for range 60 {
		b := bytes.Clone(good)
		for range 1 + r.IntN(4) {
			switch i := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[i] ^= 1 << r.IntN(8)
			case 1:
				b[i] = 0xff
			case 2:
				b = append(b[:i:i], b[min(len(b), i+1+r.IntN(9)):]...)
			}
		}
		m, err := Parse(b)
		if err != nil {
			continue
		}
		parsed++
		readEverything(t, m)
		if got, err := m.Marshal(); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("not written as it was (%v)", err)
		}
	}
	if parsed == 0 {
		t.Error("no damaged model parsed; the test is not looking at much")
	}
}
