package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/internal/suggest"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
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

// exitError carries the exit code of an error and what to do about it.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// silentError ends the program with a code after everything has been said.
type silentError struct{ code int }

func (e *silentError) Error() string { return "exit code " + fmt.Sprint(e.code) }

func withCode(code int, err error, hint string, args ...any) error {
	return &exitError{code: code, err: err, hint: fmt.Sprintf(hint, args...)}
}

func usage(err error, hint string, args ...any) error { return withCode(exitUsage, err, hint, args...) }

func interrupted(err error) error {
	return withCode(exitInterrupted, fmt.Errorf("interrupted: %w", err), "nothing was written")
}

// classify finds the exit code and the hint of an error from the packages.
func classify(err error) (int, string) {
	var (
		exit    *exitError
		format  *onnx.FormatError
		recipe  *calib.RecipeError
		pattern *rewrite.PatternError
	)
	switch {
	case errors.As(err, &exit):
		return exit.code, exit.hint
	case errors.Is(err, context.Canceled):
		return exitInterrupted, "nothing was written"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return exitResources, "free some disk space, or choose another folder with -o; nothing was left behind"
	case errors.Is(err, syscall.ENOMEM):
		return exitResources, "close other programs or use a machine with more memory"
	case errors.Is(err, fs.ErrExist):
		return exitUsage, "choose another -o, or pass --force to replace it"
	case errors.Is(err, ort.ErrInput):
		return exitUsage, "`cosetq inspect MODEL` shows the inputs; the recipe must give values of that type and shape"
	case errors.Is(err, onnx.ErrSameFile):
		return exitUsage, "choose another -o"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return exitUsage, "choose a folder that is there and that you may write to"
	case errors.As(err, &recipe), errors.As(err, &pattern):
		return exitUsage, ""
	case errors.As(err, &format):
		return exitModel, ""
	case errors.Is(err, ort.ErrUnavailable):
		return exitRuntime, "run `cosetq doctor` to see what is missing"
	}
	return exitInternal, ""
}

// fail prints the error, on stdout as one JSON object with --json, and returns
// the exit code.
func (c *console) fail(err error) int {
	c.clearProgress()
	var silent *silentError
	if errors.As(err, &silent) {
		return silent.code
	}
	code, hint := classify(err)
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
