package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// A long name is cut between letters, however many bytes they take.
func TestShorten(t *testing.T) {
	for _, name := range []string{"/layers/müller/gewicht", "ü/ß/ä/ö/ü/ß/ä/ö/ü/ß", "层/权重/层/权重/层/权重"} {
		for n := 4; n < len(name); n++ {
			if short := shorten(name, n); !utf8.ValidString(short) || len(short) > n+len("…") {
				t.Errorf("%q cut to %d is %q", name, n, short)
			}
		}
		if shorten(name, len(name)) != name {
			t.Errorf("%q is cut without need", name)
		}
	}
}

// Help fits a terminal of 80 columns, but for usage and example lines, which are to be copied, and the list of reasons.
func TestHelpFits(t *testing.T) {
	root := newRoot(&console{})
	for _, c := range append(root.Commands(), root) {
		if c.Name() == "completion" { // cobra's own
			continue
		}
		var out bytes.Buffer
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		if code := run(t.Context(), args, &out, &out); code != exitOK || !strings.Contains(out.String(), "--json") {
			t.Fatalf("%q: exit code %d: %s", args, code, &out)
		}
		section := ""
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasSuffix(line, ":") && !strings.HasPrefix(line, " ") {
				section = line
			}
			copied := section == "Usage:" || section == "Examples:" || section == "Why a node is skipped:"
			if n := utf8.RuneCountInString(line); n > 80 && !copied {
				t.Errorf("%q: %d columns: %s", args, n, line)
			}
		}
	}
}
