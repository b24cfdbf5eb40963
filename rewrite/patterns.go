package rewrite

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cosetq/cosetq/internal/suggest"
)

// pattern is a compiled pattern, see [Options].
type pattern struct {
	text  string
	match func(*Site) bool
}

// PatternError is a pattern that is malformed or matches no site.
type PatternError struct {
	Pattern string
	Problem string
}

func (e *PatternError) Error() string { return fmt.Sprintf("pattern %q: %s", e.Pattern, e.Problem) }

// compile reads patterns and makes sure that each matches one of the sites.
func compile(texts []string, sites []Site) ([]*pattern, error) {
	var patterns []*pattern
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		found := false
		for i := range sites {
			found = found || p.match(&sites[i])
		}
		if !found {
			return nil, &PatternError{text, "it matches no MatMul, Gemm or 1×1 Conv" + didYouMean(text, sites)}
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// Select returns the indices of the sites that a pattern matches. The error is a *PatternError: the pattern is malformed, or
// matches none.
func Select(sites []Site, pattern string) ([]int, error) {
	compiled, err := compile([]string{pattern}, sites)
	if err != nil {
		return nil, err
	}
	var matched []int
	for i := range sites {
		if compiled[0].match(&sites[i]) {
			matched = append(matched, i)
		}
	}
	return matched, nil
}

func firstMatch(patterns []*pattern, s *Site) *pattern {
	for _, p := range patterns {
		if p.match(s) {
			return p
		}
	}
	return nil
}

// parsePattern reads a pattern. The error is a *PatternError.
func parsePattern(text string) (*pattern, error) {
	kind, arg, found := strings.Cut(text, ":")
	if !found {
		kind, arg = "", text
	}
	var match func(*Site) bool
	var err error
	switch kind {
	case "re":
		var re *regexp.Regexp
		re, err = regexp.Compile(arg)
		match = func(s *Site) bool {
			return re.MatchString(s.Name) || s.Initializer != "" && re.MatchString(s.Initializer)
		}
	case "op":
		var g *regexp.Regexp
		g, err = glob(arg)
		match = func(s *Site) bool { return g.MatchString(s.Op) }
	case "init":
		var g *regexp.Regexp
		g, err = glob(arg)
		match = func(s *Site) bool { return g.MatchString(s.Initializer) }
	case "index":
		match, err = indexPattern(arg)
	case "shape":
		match, err = shapePattern(arg)
	default: // names contain colons too: onnx::MatMul_17
		var g *regexp.Regexp
		g, err = glob(text)
		match = func(s *Site) bool {
			return g.MatchString(s.Name) || s.Initializer != "" && g.MatchString(s.Initializer)
		}
	}
	if text == "" {
		err = fmt.Errorf("it is empty")
	}
	if err != nil {
		return nil, &PatternError{text, fmt.Sprintf("%v; write a glob on the name, or re:, op:, init:, index:N-M or shape:KxN", err)}
	}
	return &pattern{text, match}, nil
}

// glob compiles a glob that must match the whole text.
func glob(text string) (*regexp.Regexp, error) {
	quoted := regexp.QuoteMeta(text)
	quoted = strings.ReplaceAll(quoted, `\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\?`, `.`)
	quoted = globSet.ReplaceAllString(quoted, "[$1]")
	return regexp.Compile(`(?s)\A` + quoted + `\z`)
}

// globSet is a quoted set of characters, such as \[a-z\]. A lone bracket stands for itself.
var globSet = regexp.MustCompile(`\\\[([\w-]+)\\\]`)

// indexPattern reads N or N-M.
func indexPattern(arg string) (func(*Site) bool, error) {
	from, to, ranged := strings.Cut(arg, "-")
	if !ranged {
		to = from
	}
	lo, err := strconv.Atoi(from)
	hi, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil || lo < 0 || hi < lo {
		return nil, fmt.Errorf("%q is no index or range of indices", arg)
	}
	return func(s *Site) bool { return s.Index >= lo && s.Index <= hi }, nil
}

// shapePattern reads KxN, where each side may be *.
func shapePattern(arg string) (func(*Site) bool, error) {
	k, n, found := strings.Cut(strings.ToLower(arg), "x")
	side := func(text string) (int, error) {
		if text == "*" {
			return 0, nil
		}
		v, err := strconv.Atoi(text)
		if err != nil || v <= 0 {
			return 0, fmt.Errorf("%q is no shape KxN", arg)
		}
		return v, nil
	}
	wantK, err := side(k)
	wantN, err2 := side(n)
	if !found || err != nil || err2 != nil {
		return nil, fmt.Errorf("%q is no shape KxN", arg)
	}
	return func(s *Site) bool {
		return s.K > 0 && (wantK == 0 || s.K == wantK) && (wantN == 0 || s.N == wantN)
	}, nil
}

// didYouMean proposes the name nearest to what the pattern says.
func didYouMean(text string, sites []Site) string {
	kind, arg, found := strings.Cut(text, ":")
	var names []string
	for i := range sites {
		switch s := &sites[i]; {
		case found && kind == "op":
			names = append(names, s.Op)
		case found && kind == "init":
			names = append(names, s.Initializer)
		case found && kind == "shape":
			if s.K > 0 {
				names = append(names, fmt.Sprintf("%dx%d", s.K, s.N))
			}
		case found && (kind == "index" || kind == "re"):
			return fmt.Sprintf(" (there are %d)", len(sites))
		default:
			arg = text
			names = append(names, s.Name, s.Initializer)
		}
	}
	return suggest.DidYouMean(arg, names)
}
