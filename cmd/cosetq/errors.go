package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

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

// gateError is a quality gate that failed, beside what it was told from.
type gateError struct {
	error
	report any
}

func (e *gateError) Unwrap() error { return e.error }

// gate tells what was measured where a gate failed: in the object of the error, or where errors go, as only success prints results.
func (c *console) gate(failed error, report any, print func(*console) error) error {
	if !c.json {
		to := *c
		to.out = &output{w: c.err}
		if err := print(&to); err != nil {
			return err
		}
	}
	return &gateError{failed, report}
}

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

// signalText is what errors say of a signal, behind the place where it came.
var signalText = regexp.MustCompile(`(: )?(context canceled|\w+ signal received)$`)

// interrupted marks err as the consequence of a signal.
func interrupted(err error) error {
	var silent *silentError
	if errors.As(err, &silent) {
		return err // it has been said
	}
	hint := "nothing was written"
	if kind, known := cosetq.Classify(err); kind == cosetq.Interrupted {
		hint = known
	}
	text := "interrupted"
	if at := signalText.ReplaceAllString(err.Error(), ""); at != "" {
		text += " at " + at
	}
	return &cosetq.Error{Kind: cosetq.Interrupted, Err: errors.New(text), Hint: hint}
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
		object := map[string]any{"schema": "cosetq/v1/error", "exit_code": code,
			"error": map[string]string{"code": codeNames[code], "message": err.Error(), "hint": hint}}
		var gate *gateError
		if errors.As(err, &gate) {
			object["report"] = gate.report
		}
		_ = c.printJSON(object)
	}
	c.warnf("error %s: %s", codeNames[code], err)
	if hint != "" {
		c.warnf("  hint: %s", hint)
	}
	return code
}

var unknownFlag = regexp.MustCompile(`^unknown (?:shorthand )?flag: (--\S+)`)

// flagTakes says what the flags of a type take.
var flagTakes = map[string]string{"int": "a whole number", "uint64": "a whole number from 0", "float64": "a number", "duration": "a time, as in 30s or 5m", "bool": "true or false"}

// flagError says what a flag takes, and adds a "did you mean" to cobra's complaint about one that is unknown.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if takes := flagTakes[invalid.GetFlag().Value.Type()]; takes != "" {
			return fmt.Errorf("--%s %q: it takes %s", invalid.GetFlag().Name, invalid.GetValue(), takes)
		}
		return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, errors.Unwrap(invalid))
	}
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
		if check(cmd, args) == nil {
			return nil
		}
		if len(args) == 0 {
			return usage(fmt.Errorf("%s is given nothing to work on", cmd.Name()), "usage: %s", cmd.UseLine())
		}
		return usage(fmt.Errorf("%s is given %s: %s", cmd.Name(), counted(len(args), "argument"), strings.Join(args, " ")), "usage: %s", cmd.UseLine())
	}
}
