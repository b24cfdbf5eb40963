package onnx

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzParse: whatever the bytes, no panic; and what parses is written as it was.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.onnx")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range seeds {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-3])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			var fe *FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("not a FormatError: %v", err)
			}
			return
		}
		got, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, b) {
			t.Fatalf("not written as it was:\n%x\n%x", b, got)
		}
		readEverything(t, m)
		// With its functions inlined it is as well formed as before.
		if len(Check(m)) == 0 {
			inlined := Clone(m)
			inlined.Inline(func(*Function) bool { return true })
			if problems := Check(inlined); len(problems) > 0 {
				t.Fatalf("inlining made %v", problems[0])
			}
		}
		// After an edit it is still a model that means the same.
		c := Clone(m)
		c.DocString += "!"
		edited, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(edited)
		if err != nil {
			t.Fatalf("the edited model does not parse: %v", err)
		}
		if !Equal(c, back) {
			t.Fatal("the edited model reads back differently")
		}
	})
}

func readEverything(t *testing.T, m *Model) {
	for r := range m.Tensors() {
		raw, rawErr := r.Tensor.Bytes()
		v, err := r.Tensor.Float32s()
		if err == nil && rawErr != nil {
			t.Fatalf("Float32s works, Bytes does not: %v", rawErr)
		}
		_ = v
		var w bytes.Buffer
		if _, err := r.Tensor.WriteRaw(&w); (err == nil) != (rawErr == nil) || err == nil && !bytes.Equal(w.Bytes(), raw) {
			t.Fatalf("WriteRaw and Bytes differ: %v, %v", err, rawErr)
		}
		r.Tensor.Int64s()
		r.Tensor.Strings()
		_ = r.Where()
	}
	Check(m)
	x := NewIndex(m)
	NewNames(m).Unique("x")
	for _, s := range x.Scopes {
		s.Sort()
	}
	Fprint(io.Discard, m)
}
