package main

import (
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
