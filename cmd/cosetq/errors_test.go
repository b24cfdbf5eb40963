package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
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

// A signal is named once, with the place where it came; what a command has said about it itself is not said again.
func TestInterruptedError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{context.Canceled, "interrupted"},
		{fmt.Errorf("m.onnx, sample 3: %w", context.Canceled), "interrupted at m.onnx, sample 3"},
		{errors.New("terminated signal received"), "interrupted"},
	} {
		err := interrupted(c.err)
		if err.Error() != c.want {
			t.Errorf("%q became %q, want %q", c.err, err, c.want)
		}
		if kind, hint := cosetq.Classify(err); kind != cosetq.Interrupted || hint == "" {
			t.Errorf("%q is of kind %v, with the hint %q", err, kind, hint)
		}
	}
	var out, log bytes.Buffer
	con := &console{out: &out, err: &log}
	if code := con.fail(interrupted(&silentError{exitInterrupted})); code != exitInterrupted || log.Len() > 0 {
		t.Errorf("exit code %d, %q", code, &log)
	}
}

// A flag whose value is empty, as that of a shell variable that is not set, is not taken for one that is not given.
func TestEmptyFlags(t *testing.T) {
	for _, c := range newRoot(&console{}).Commands() {
		args := []string{}
		for c.Args(c, args) != nil && len(args) < 3 {
			args = append(args, "x")
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			var err bytes.Buffer
			code := run(t.Context(), slices.Concat([]string{c.Name(), "--" + f.Name, ""}, args), &bytes.Buffer{}, &err)
			if text := err.String(); code != exitUsage || !strings.HasPrefix(text, "error E_USAGE: --"+f.Name) {
				t.Errorf("%s --%s: exit code %d: %s", c.Name(), f.Name, code, text)
			}
		})
	}
}

// Who stops quickstart is told of no flag that it lacks.
func TestQuickstartInterrupted(t *testing.T) {
	testenv.ORT(t)
	testenv.Ops(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, force := range []string{"--force=false", "--force"} {
		var err bytes.Buffer
		code := run(ctx, []string{"quickstart", force, "--dir", t.TempDir()}, &bytes.Buffer{}, &err)
		if text := err.String(); code != exitInterrupted || !strings.Contains(text, "run the same command again") || strings.Contains(text, "--resume") {
			t.Errorf("%s: exit code %d: %s", force, code, text)
		}
	}
}
