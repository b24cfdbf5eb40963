package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

func TestQuantize(t *testing.T) {
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	output := filepath.Join(dir, "q.onnx")
	if err := quantize(context.Background(), &log, files.Model, output); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "bits per weight") {
		t.Errorf("log: %s", log.String())
	}
	m, err := onnx.Open(output)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil || len(sites) == 0 {
		t.Fatalf("%d sites, %v", len(sites), err)
	}
	for _, s := range sites {
		if s.Status != rewrite.Quantized && s.Reason != rewrite.TooSmall {
			t.Errorf("%s is %s", s.Name, s.Status)
		}
	}
}
