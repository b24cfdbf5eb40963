package onnx

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file that is cut or rewritten while it is open is an error, not a crash.
func TestChangedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	source := weightModel()
	source.Graph.Initializers = append(source.Graph.Initializers, NewTensor("large", []int64{1 << 16}, make([]float32, 1<<16)))
	if _, err := source.Save(path, SaveOptions{External: ExternalAlways}); err != nil {
		t.Fatal(err)
	}
	open := func() *Model {
		t.Helper()
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		if err := m.Graph.Initializer("large").Validate(); err != nil { // the data are mapped when they are first looked at
			t.Fatal(err)
		}
		if err := m.Changed(); err != nil {
			t.Fatal(err)
		}
		return m
	}

	m := open()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path+".data", later, later); err != nil {
		t.Fatal(err)
	}
	if err := m.Changed(); !errors.Is(err, ErrChanged) {
		t.Errorf("rewritten: %v", err)
	}
	if _, err := m.Save(filepath.Join(dir, "copy.onnx"), SaveOptions{}); !errors.Is(err, ErrChanged) {
		t.Errorf("saved all the same: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*copy*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind %v", left)
	}

	if !mapped {
		return
	}
	m = open()
	if err := os.Truncate(path+".data", 100); err != nil {
		t.Fatal(err)
	}
	v := make([]float32, 1<<16)
	err = Guard(func() error { return m.Graph.Initializer("large").Float32Range(v, 0, 1<<16) })
	if !errors.Is(err, ErrChanged) {
		t.Errorf("read after the cut: %v", err)
	}
	if _, err := m.Save(filepath.Join(dir, "copy.onnx"), SaveOptions{}); !errors.Is(err, ErrChanged) {
		t.Errorf("saved after the cut: %v", err)
	}
}

func TestGuardPassesOn(t *testing.T) {
	want := errors.New("mine")
	if err := Guard(func() error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	defer func() {
		if recover() != "mine" {
			t.Error("another panic was swallowed")
		}
	}()
	_ = Guard(func() error { panic("mine") })
}
