package cosetq

import (
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// A panic on another goroutine is an internal error of the command, not its end.
func TestCaught(t *testing.T) {
	var group errgroup.Group
	group.Go(caught(func() error { panic("surprise") }))
	err := group.Wait()
	if err == nil || !strings.Contains(err.Error(), "panic: surprise") || !strings.Contains(err.Error(), "caught_test.go") {
		t.Fatalf("%v: want the panic and where it was", err)
	}
	if kind, _ := Classify(err); kind != Internal {
		t.Errorf("kind %v", kind)
	}
}
