package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// A bug, which no command line should provoke, has exit code 1 and asks to be reported; the scripts provoke the other codes.
func TestInternalError(t *testing.T) {
	var out, err bytes.Buffer
	con := &console{out: &out, err: &err}
	if code := con.fail(errors.New("surprise")); code != exitInternal {
		t.Errorf("exit code %d, want %d", code, exitInternal)
	}
	if text := err.String(); !strings.HasPrefix(text, "error E_INTERNAL: surprise\n") || !strings.Contains(text, "report") {
		t.Errorf("stderr: %s", text)
	}
}
