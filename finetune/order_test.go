package finetune

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Every epoch takes each training sample once at most, and never one that is held out.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(t, "size")
		heldOut := rapid.IntRange(1, 40).Draw(t, "held out")
		n := rapid.IntRange(1, 300).Draw(t, "n")
		o, err := newOrder(n, size, heldOut, 7)
		if err != nil {
			if n >= max(heldOut/size, 1)*size+size {
				t.Fatalf("%d samples do not suffice: %v", n, err)
			}
			return
		}
		if len(o.heldOut)%size != 0 || len(o.heldOut) == 0 || len(o.heldOut)+len(o.train) != n {
			t.Fatalf("%d held out and %d to train on, of %d in batches of %d", len(o.heldOut), len(o.train), n, size)
		}
		for epoch := range 2 {
			seen := map[int]bool{}
			per := len(o.train) / size
			for i := range per {
				b := o.batch(epoch*per + i)
				if !slices.Equal(b, o.batch(epoch*per+i)) {
					t.Fatal("a batch differs from one call to the next")
				}
				for _, s := range b {
					if seen[s] || slices.Contains(o.heldOut, s) || s < 0 || s >= n {
						t.Fatalf("sample %d comes twice, or is held out", s)
					}
					seen[s] = true
				}
			}
		}
	})
}
