package suggest_test

import (
	"testing"

	"github.com/cosetq/cosetq/internal/suggest"
)

func TestNearest(t *testing.T) {
	keys := []string{"kind", "file", "images", "labels", "pixel", "shape"}
	for _, c := range []struct{ name, want string }{
		{"lables", "labels"}, {"image", "images"}, {"knid", "kind"}, {"file", "file"},
		{"zzz", ""}, {"", ""}, {"p", ""}, {"shapes", "shape"},
	} {
		if got := suggest.Nearest(c.name, keys); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
	devices := []string{"cpu", "cuda"}
	for _, c := range []struct{ name, want string }{{"gpu", "cuda"}, {"GPU", "cuda"}, {"CUDA", "cuda"}, {"cup", "cpu"}, {"", ""}} {
		if got := suggest.Nearest(c.name, devices); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
	if got := suggest.Nearest("gpu", keys); got != "" {
		t.Errorf("Nearest(gpu) = %q of other keys", got)
	}
	if got := suggest.DidYouMean("knid", keys); got != ` (did you mean "kind"?)` {
		t.Errorf("DidYouMean = %q", got)
	}
}
