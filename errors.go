package cosetq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"syscall"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/finetune"
	"github.com/cosetq/cosetq/finetune/grad"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

// Kind says what sort of failure an error is, and so whose turn it is to act.
type Kind int

// The kinds of failure.
const (
	Internal    Kind = iota // a bug of this module
	Usage                   // an option, a recipe or a path that makes no sense
	BadModel                // the model cannot be read or is not well formed
	Nothing                 // nothing could be quantized, or less than was asked for
	Quality                 // a quality gate failed
	Unavailable             // ONNX Runtime, the native library or a device is missing
	Resources               // out of memory, disk or open files
	Interrupted             // the context was cancelled, or its time was up
)

// Error is a failure that says what to do about it.
type Error struct {
	Kind Kind
	Err  error
	Hint string // what to do next; may be empty
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// fail wraps err.
func fail(kind Kind, err error, hint string, args ...any) error {
	return &Error{Kind: kind, Err: err, Hint: fmt.Sprintf(hint, args...)}
}

// caught turns a panic of f, which is to run on a goroutine of its own and would end the program there, into the error that it is.
func caught(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return f()
	}
}

func usage(err error, hint string, args ...any) error { return fail(Usage, err, hint, args...) }

// ofData names the data in an error about it that comes from where only its samples are known.
func ofData(err error, data string) error {
	var recipe *calib.RecipeError
	if errors.As(err, &recipe) && recipe.Path == "" {
		recipe.Path = data
	}
	return err
}

// hints are what to do about errors of which no more is known than their kind.
var hints = map[Kind]string{
	Internal:    "this is a bug: please report the command line, this message and the output of `cosetq doctor`",
	Usage:       "--help shows the flags; docs/recipes.md has the keys of a data recipe",
	BadModel:    "copy or export it again",
	Nothing:     "`cosetq inspect MODEL --layers` lists every node",
	Quality:     "use more bits or data; `cosetq compare` shows which layers to leave out",
	Unavailable: "run `cosetq doctor` to see what is missing",
	Resources:   "free some, or use another machine",
	Interrupted: "nothing was written",
}

// Classify finds the kind of any error that this module returns, and what to do about it.
func Classify(err error) (kind Kind, hint string) {
	if kind, hint = classify(err); hint == "" {
		hint = hints[kind]
	}
	return kind, hint
}

// outOf says what to do about an error of a machine that has no more of something, and "" of any other.
func outOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return "free some disk space, or choose another folder with -o, and with TMPDIR for temporary files; no half-written file was left behind"
	case errors.Is(err, syscall.ENOMEM):
		return "close other programs or use a machine with more memory"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "let the program open more files, as with `ulimit -n 1024`, or close other programs"
	}
	return ""
}

// classify is Classify where the hint may be missing.
func classify(err error) (kind Kind, hint string) {
	var (
		known   *Error
		format  *onnx.FormatError
		recipe  *calib.RecipeError
		pattern *rewrite.PatternError
		noRule  *grad.NoRuleError
		memory  *finetune.MemoryError
		option  *finetune.OptionError
		nan     *eval.NonFiniteError
		misfit  *eval.FitError
	)
	switch {
	case errors.As(err, &known):
		return known.Kind, known.Hint
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Interrupted, ""
	case outOf(err) != "":
		return Resources, outOf(err)
	case errors.Is(err, calib.ErrTemporary):
		return Usage, "set TMPDIR to a folder that is there and that you may write to"
	case errors.As(err, &recipe):
		return Usage, "docs/recipes.md has the keys of every kind of data"
	case errors.Is(err, onnx.ErrChanged):
		return BadModel, "leave the files alone while they are in use, and run again"
	case errors.Is(err, fs.ErrExist):
		return Usage, "choose another name, or pass --force to replace it"
	case errors.Is(err, ort.ErrInput):
		return Usage, "`cosetq inspect MODEL` shows the inputs; the recipe must give values of that type and shape"
	case errors.Is(err, onnx.ErrSameFile), errors.Is(err, onnx.ErrNotFile):
		return Usage, "choose another -o"
	case errors.Is(err, finetune.ErrCheckpoint):
		return Usage, "repeat the command that was interrupted with --resume added, or start anew with --force in the place of --resume"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return Usage, "choose a folder that is there and that you may write to"
	case errors.Is(err, syscall.ENAMETOOLONG):
		return Usage, "choose a shorter name with -o: the files beside it have longer ones"
	case errors.As(err, &pattern):
		return Usage, "`cosetq inspect MODEL --layers` lists the names"
	case errors.As(err, &format):
		return BadModel, dataHint(err)
	case errors.Is(err, rewrite.ErrNothing):
		return Nothing, ""
	case errors.Is(err, ort.ErrModel):
		return BadModel, "`cosetq inspect MODEL` shows what is in it; `cosetq doctor` which ONNX Runtime is used"
	case errors.Is(err, ort.ErrOutput):
		return BadModel, "export the model with tensors of numbers as outputs (scikit-learn: options={'zipmap': False}); without data it can be quantized as it is"
	case errors.Is(err, ort.ErrRun):
		return BadModel, "the model is damaged, or cannot run with inputs of these sizes: random:N,name=SIZE sets made-up ones"
	case errors.As(err, &nan), errors.Is(err, finetune.ErrNotFinite):
		return BadModel, "give data that the model has answers to; `cosetq run` shows the outputs of one sample"
	case errors.As(err, &misfit):
		return Usage, "`cosetq inspect MODEL` shows the outputs; take another --task, other data or another model"
	case errors.As(err, &noRule):
		return Usage, "--exclude leaves weights out when the float model is quantized; docs/finetuning.md lists the operators with a gradient"
	case errors.As(err, &memory):
		return Resources, "lower --batch and raise --accumulate, or train with --blocks"
	case errors.As(err, &option):
		return Usage, "`cosetq finetune --help` has the options and their defaults"
	case errors.Is(err, ort.ErrUnavailable):
		return Unavailable, ""
	}
	return Internal, ""
}
