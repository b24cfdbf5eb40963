package cosetq

import "testing"

// A model that is slower is said to be.
func TestAgainst(t *testing.T) {
	r := BenchReport{Models: []BenchRow{{Speed: 1}, {Speed: 0.5}, {Speed: 0.95}, {Speed: 0.98}, {Speed: 1.02}, {Speed: 2}}}
	for i, want := range []string{"-", "2.00× slower", "1.05× slower", "the same", "the same", "2.00× faster"} {
		if got := r.Against(i); got != want {
			t.Errorf("at %v times the speed: %q, want %q", r.Models[i].Speed, got, want)
		}
	}
}
