package onnx

import "testing"

// What begins where data ends is no part of it, though it lies next to it.
func TestOffsetIn(t *testing.T) {
	all := make([]byte, 16)
	for at, want := range []int64{0, 1, 2, 3, 4, 5, 6, 7, -1, -1} {
		if got := offsetIn(all[:8], all[at:]); got != want {
			t.Errorf("at %d: %d, want %d", at, got, want)
		}
	}
}
