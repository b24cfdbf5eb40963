package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/suggest"
)

// Exit codes, which scripts rely on.
const (
	exitOK          = 0
	exitInternal    = 1
	exitUsage       = 2
	exitModel       = 3
	exitNothing     = 4
	exitQuality     = 5
	exitRuntime     = 6
	exitResources   = 7
	exitInterrupted = 130
)

// codeNames are the stable names that --json carries beside the exit code.
var codeNames = map[int]string{
	exitInternal: "E_INTERNAL", exitUsage: "E_USAGE", exitModel: "E_MODEL", exitNothing: "E_NOTHING_QUANTIZED",
	exitQuality: "E_QUALITY", exitRuntime: "E_RUNTIME", exitResources: "E_RESOURCES", exitInterrupted: "E_INTERRUPTED",
}

// silentError ends the program with a code after everything has been said.
type silentError struct{ code int }

func (e *silentError) Error() string { return "exit code " + fmt.Sprint(e.code) }

// exitCodes are the exit codes of the kinds of failure.
var exitCodes = map[cosetq.Kind]int{
	cosetq.Internal: exitInternal, cosetq.Usage: exitUsage, cosetq.BadModel: exitModel, cosetq.Nothing: exitNothing,
	cosetq.Quality: exitQuality, cosetq.Unavailable: exitRuntime, cosetq.Resources: exitResources, cosetq.Interrupted: exitInterrupted,
}

func failure(kind cosetq.Kind, err error, hint string, args ...any) error {
	return &cosetq.Error{Kind: kind, Err: err, Hint: fmt.Sprintf(hint, args...)}
}

func usage(err error, hint string, args ...any) error {
	return failure(cosetq.Usage, err, hint, args...)
}

// interrupted marks err as the consequence of a signal.
func interrupted(err error) error {
	hint := "nothing was written"
	if kind, known := cosetq.Classify(err); kind == cosetq.Interrupted {
		hint = known
	}
	return &cosetq.Error{Kind: cosetq.Interrupted, Err: fmt.Errorf("interrupted: %w", err), Hint: hint}
}

// fail prints the error, on stdout as one JSON object with --json, and returns
// the exit code.
func (c *console) fail(err error) int {
	c.clearProgress()
	var silent *silentError
	if errors.As(err, &silent) {
		return silent.code
	}
	kind, hint := cosetq.Classify(err)
	code := exitCodes[kind]
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]any{"schema": "cosetq/v1/error", "exit_code": code,
			"error": map[string]string{"code": codeNames[code], "message": err.Error(), "hint": hint}})
	}
	fmt.Fprintf(c.err, "error %s: %s\n", codeNames[code], err)
	if hint != "" {
		fmt.Fprintf(c.err, "  hint: %s\n", hint)
	}
	return code
}

var unknownFlag = regexp.MustCompile(`^unknown (?:shorthand )?flag: (--\S+)`)

// flagError adds a "did you mean" to cobra's complaint about a flag.
func flagError(cmd *cobra.Command, err error) error {
	m := unknownFlag.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return fmt.Errorf("no such flag %s%s", m[1], suggest.DidYouMean(m[1], names))
}

func suggestCommand(root *cobra.Command, name string) string {
	var names []string
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	return suggest.DidYouMean(name, names)
}

// usageArgs makes a complaint about the number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check == nil {
			check = cobra.NoArgs
		}
		if err := check(cmd, args); err != nil {
			return usage(err, "usage: %s", cmd.UseLine())
		}
		return nil
	}
}
