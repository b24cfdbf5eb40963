package cosetq_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
)

// Nodes may stand in any order, as those of converters to float16 do, which append a Cast of the input: ONNX Runtime takes such models.
func TestNodesInAnyOrder(t *testing.T) {
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Open(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	slices.Reverse(m.Graph.Nodes)
	turned := filepath.Join(dir, "turned.onnx")
	if _, err := m.Save(turned, onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	var codes [2][]byte
	for i, path := range []string{files.Model, turned} {
		r, err := cosetq.Quantize(t.Context(), path, cosetq.QuantizeOptions{Output: filepath.Join(dir, string(rune('a'+i))+".onnx"), Bits: 4, Data: files.Calib})
		if err != nil {
			t.Fatal(err)
		}
		if codes[i], err = os.ReadFile(r.Files[1].Path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(codes[0], codes[1]) {
		t.Error("the order of the nodes shows in the codes")
	}
}
