package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

func TestTrain(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The larger set trains here.
	var log bytes.Buffer
	right, err := train(context.Background(), &log, files.Data, files.Calib, filepath.Join(dir, "mlp.onnx"), 150)
	if err != nil {
		t.Fatal(err)
	}
	if right < 0.4 || !strings.Contains(log.String(), "step  150") {
		t.Errorf("%.1f %% right; log:\n%s", 100*right, log.String())
	}
}
