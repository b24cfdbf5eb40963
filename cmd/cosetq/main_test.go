package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
)

// A bug that panics ends the program as any other bug does: exit code 1, not Go's 2, which would blame the user.
func TestPanicIsInternal(t *testing.T) {
	var nothing *cosetq.QuantizeReport
	err := execute(t.Context(), &cobra.Command{RunE: func(*cobra.Command, []string) error {
		nothing.Bytes++
		return nil
	}, SilenceErrors: true, SilenceUsage: true})
	if err == nil || !strings.Contains(err.Error(), "nil pointer") || !strings.Contains(err.Error(), "main_test.go") {
		t.Fatalf("%v, want the panic and where it was", err)
	}
	if kind, hint := cosetq.Classify(err); kind != cosetq.Internal || !strings.Contains(hint, "bug") {
		t.Errorf("kind %v, hint %q", kind, hint)
	}
}
