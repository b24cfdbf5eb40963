// Package strictyaml reads the YAML files that people write: one mapping, every key once, and errors that name the line and
// say in plain words what belongs there.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Error is what is wrong with a file, and where.
type Error struct {
	Line int    // 0 when no one line is to blame
	Key  string // nested ones as outer.inner; "" when no one key is to blame
	Msg  string
	Err  error // the cause; may be nil
}

// Error puts the place first.
func (e *Error) Error() string {
	s := e.Msg
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	if e.Line > 0 {
		s = fmt.Sprintf("line %d: %s", e.Line, s)
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Key is a key of a file.
type Key struct {
	Name string // nested ones as outer.inner
	Line int
}

// MaxBytes bounds the size of a file; real ones have some dozen lines.
const MaxBytes = 1 << 14

// ErrNoMapping is the cause of the error for a file that holds something else than one mapping.
var ErrNoMapping = errors.New("no mapping")

// Decode reads the text, one mapping, into the struct that v points to, and returns all keys in their order. Keys that v has no
// field for are among them: what to say of those is left to the caller. Errors are *Error.
func Decode(text []byte, v any) (keys []Key, err error) {
	defer func() { // the YAML library has panicked on malformed text before
		if p := recover(); p != nil {
			keys, err = nil, &Error{Msg: fmt.Sprintf("is not valid YAML: %v", p)}
		}
	}()
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as editors on Windows begin files
	if len(text) > MaxBytes || !utf8.Valid(text) {
		return nil, &Error{Msg: fmt.Sprintf("is no text, or larger than %d bytes, so it is not the YAML file meant", MaxBytes)}
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, &Error{Msg: "is not valid YAML: " + yaml.FormatError(err, false, true), Err: err}
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &Error{Msg: "is empty or holds several documents; it needs one mapping of keys to values", Err: ErrNoMapping}
	}
	mapping, ok := file.Docs[0].Body.(ast.MapNode)
	if !ok {
		return nil, &Error{Msg: "is not a mapping of keys to values", Err: ErrNoMapping}
	}
	if keys, err = collect(mapping, "", nil); err != nil {
		return nil, err
	}
	if err := yaml.NodeToValue(file.Docs[0].Body, v); err != nil {
		return nil, wrongType(err)
	}
	return keys, nil
}

// collect adds the keys of a mapping, and of those in it.
func collect(mapping ast.MapNode, prefix string, keys []Key) ([]Key, error) {
	for it := mapping.MapRange(); it.Next(); {
		key := Key{Name: prefix + strings.Trim(it.Key().String(), `"'`)}
		if tok := it.Key().GetToken(); tok != nil && tok.Position != nil {
			key.Line = tok.Position.Line
		}
		for _, k := range keys {
			if k.Name == key.Name {
				return nil, &Error{Line: key.Line, Key: key.Name, Msg: "stands there twice"}
			}
		}
		keys = append(keys, key)
		if inner, ok := it.Value().(ast.MapNode); ok {
			var err error
			if keys, err = collect(inner, key.Name+".", keys); err != nil {
				return nil, err
			}
		}
	}
	return keys, nil
}

// wrongType says in the file's words what the YAML library says in Go's.
func wrongType(err error) error {
	blame := func(at *token.Token, want string) error {
		return &Error{Line: at.Position.Line, Msg: fmt.Sprintf("holds %q where %s belongs", at.Value, want), Err: err}
	}
	var typ *yaml.TypeError
	var node *yaml.UnexpectedNodeTypeError
	var over *yaml.OverflowError
	switch {
	case errors.As(err, &over) && over.Token != nil:
		want := "a smaller number"
		if kind := over.DstType.Kind(); kind >= reflect.Uint && kind <= reflect.Uint64 && strings.HasPrefix(over.SrcNum, "-") {
			want = "a number from 0"
		}
		return &Error{Line: over.Token.Position.Line, Msg: fmt.Sprintf("holds %s where %s belongs", over.SrcNum, want), Err: err}
	case errors.As(err, &typ) && typ.Token != nil:
		want := "text"
		switch kind := typ.DstType.Kind(); {
		case kind >= reflect.Int && kind <= reflect.Float64:
			want = "a number"
		case kind == reflect.Bool:
			want = "true or false"
		case kind == reflect.Slice && typ.DstType.Elem().Kind() == reflect.String:
			want = "a list, as [a, b],"
		case kind == reflect.Slice:
			want = "a list of numbers, as [1, 2],"
		}
		return blame(typ.Token, want)
	case errors.As(err, &node) && node.Token != nil:
		if node.Expected == ast.SequenceType {
			return blame(node.Token, "a list, as [a, b],")
		}
		return blame(node.Token, "a mapping, as {scale: 1},")
	}
	return &Error{Msg: yaml.FormatError(err, false, true), Err: err}
}
