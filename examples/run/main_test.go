package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/ort"
)

func TestRun(t *testing.T) {
	t.Setenv(ort.EnvLibrary, testenv.ORT(t))
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(context.Background(), &out, files.Model, files.Data, testenv.Ops(t)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "logits = ["); n != 5 {
		t.Errorf("%d samples, want 5:\n%s", n, out.String())
	}
}
