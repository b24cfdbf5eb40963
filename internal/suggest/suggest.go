// Package suggest finds the known name that a mistyped one most likely meant,
// for the "did you mean" of error messages.
package suggest

import (
	"fmt"
	"slices"
	"strings"
)

// meant are words of other programs for ours, which no spelling brings near.
var meant = map[string]string{"gpu": "cuda", "--lr": "--rate", "--learning-rate": "--rate", "--batch-size": "--batch"}

// Nearest returns the candidate with the smallest edit distance to name, or ""
// when none is within a third of its length (at least 1, at most 3 edits).
// The first of equally near candidates wins. Whether letters are large does not count.
func Nearest(name string, candidates []string) string {
	name = strings.ToLower(name)
	if c, ok := meant[name]; ok && slices.Contains(candidates, c) {
		return c
	}
	limit := min(max(len(name)/3, 1), 3)
	best := ""
	for _, c := range candidates {
		if d := distance(name, strings.ToLower(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}

// DidYouMean returns ` (did you mean "x"?)` for the nearest candidate, or "".
func DidYouMean(name string, candidates []string) string {
	if c := Nearest(name, candidates); c != "" {
		return ` (did you mean "` + c + `"?)`
	}
	return ""
}

// OneOf returns an error unless value is one of those that an option allows.
func OneOf(option, value string, allowed []string) error {
	switch {
	case slices.Contains(allowed, value):
		return nil
	case value == "":
		return fmt.Errorf("--%s is missing", option)
	}
	return fmt.Errorf("--%s %q is unknown%s", option, value, DidYouMean(value, allowed))
}

// distance is the Damerau-Levenshtein distance (optimal string alignment) of two byte strings.
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
