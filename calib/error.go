package calib

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/internal/suggest"
)

// RecipeError says what is wrong with a recipe, or with the data that it names. The command line exits with code 2.
type RecipeError struct {
	Path string // of the recipe; empty for data without a recipe file
	Line int    // in the recipe; 0 when no one line is to blame
	Key  string // the recipe's key, such as "pixel.mean"; may be empty
	Msg  string // what is wrong and what to do
	Err  error  // the cause; may be nil
}

// Error puts the place first: recipe.yaml:4: pixel.mean: what is wrong.
func (e *RecipeError) Error() string {
	var b strings.Builder
	b.WriteString("data recipe")
	if e.Path != "" {
		b.WriteString(" " + e.Path)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Msg)
	return b.String()
}

// Unwrap is the cause.
func (e *RecipeError) Unwrap() error { return e.Err }

// fail blames a key of the recipe. A %w in format is kept as the cause.
func (r *Recipe) fail(key, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &RecipeError{Path: r.Path, Line: r.lines[key], Key: key, Msg: err.Error(), Err: unwrap(err)}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

// resolve makes a path of the recipe absolute or relative to the working directory.
func (r *Recipe) resolve(path string) string {
	path = filepath.FromSlash(path)
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(r.Path), path)
}

// didYouMean names the known word nearest to an unknown one, or lists them all, if any.
func didYouMean(word string, known []string) string {
	if hint := suggest.DidYouMean(word, known); hint != "" {
		return hint
	}
	if len(known) == 0 {
		return "; there is none"
	}
	return "; known are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}
