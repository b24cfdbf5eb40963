package main

import "testing"

// A layer with more bits can make the file smaller: what data added for the bias goes.
func TestGrown(t *testing.T) {
	for n, want := range map[int64]string{4600: "+4.6 kB", 0: "+0 B", -327: "-327 B", -2300: "-2.3 kB"} {
		if got := grown(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}
