package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

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

// A hint says what to do next, and not once more what the message has said.
func TestHintsDoNotRepeatMessages(t *testing.T) {
	dir := t.TempDir()
	model, garbage := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "garbage.onnx")
	if err := errors.Join(modelKinds["mlp"](model), modelKinds["garbage"](garbage), modelKinds["no-data"](filepath.Join(dir, "no-data.onnx"))); err != nil {
		t.Fatal(err)
	}
	words := func(text string) []string {
		return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' })
	}
	for _, args := range [][]string{
		{"inspect", garbage}, {"inspect", filepath.Join(dir, "no-data.onnx")}, {"quantize", model, "--include", "none"}, {"quantize", model, "--calib", model},
		{"quantize", model, "--bits", "5"}, {"quantize", model, "--layer", "*=5"}, {"quantize", model, "--codec", "d5:4"}, {"quantize", model, "--method", "fast"},
	} {
		var err bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &err)
		message, hint, found := strings.Cut(err.String(), "\n  hint: ")
		if code == exitOK || !found {
			t.Errorf("%q: exit code %d: %s", args, code, &err)
		}
		said := strings.Join(words(message), " ")
		for w := words(hint); len(w) >= 3; w = w[1:] {
			if again := strings.Join(w[:3], " "); strings.Contains(said, again) {
				t.Errorf("%q: message and hint say %q: %s", args, again, &err)
			}
		}
	}
}
