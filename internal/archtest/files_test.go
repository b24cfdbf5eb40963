package archtest

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryFolderIsInTheTable(t *testing.T) {
	for _, f := range goFiles(t) {
		if _, _, ok := ruleFor(f.folder()); !ok {
			t.Errorf("%s: the folder is not in the table of internal/archtest/rules.go", f.path)
		}
	}
}

func TestNames(t *testing.T) {
	for _, f := range goFiles(t) {
		if slices.Contains(vagueNames, path.Base(f.folder())) || slices.Contains(vagueNames, f.pkg) {
			t.Errorf("%s: name the package after what it holds", f.path)
		}
	}
}

func TestLength(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.lines > maxLines && !f.generated {
			t.Errorf("%s has %d lines, more than %d: divide it by concept", f.path, f.lines, maxLines)
		}
	}
}

// C and C++ files beside Go files make a folder that builds in one cgo mode only.
func TestNativeFilesStandApart(t *testing.T) {
	withGo := make(map[string]bool)
	for _, f := range goFiles(t) {
		withGo[f.folder()] = true
	}
	walk(t, func(rel string) {
		native := slices.Contains([]string{".c", ".cc", ".cpp", ".cxx", ".m", ".s", ".S"}, path.Ext(rel))
		if folder := path.Dir(rel); native && withGo[folder] && folder != cgoFolder {
			t.Errorf("%s stands beside Go files; move it into a folder of its own", rel)
		}
	})
}

// Nothing in the repository may depend on one machine or on one package registry: packages come through their ordinary
// clients, by name. The names are put together from pieces here, so that this file passes its own test.
var foreign = []struct{ what, pattern string }{
	{"an absolute path of some machine", `(^|[^A-Za-z0-9_.$)}\]*>-])/(ro` + `ot|wo` + `rk|ho` + `me|Us` + `ers)/`},
	{"a host of a package registry", `(` + strings.Join([]string{
		"py" + "pi", "python" + "hosted", "npm" + "js", "ruby" + "gems", "nu" + "get", "ana" + "conda", "debian", "pack" + "agist",
	}, "|") + `)\.(org|com)\b`},
	{"a host of a package registry", `\bcrates` + `\.io\b|\b(proxy|sum)\.go` + `lang\.org\b|\brepo\d*\.maven`},
}

func TestNothingForeign(t *testing.T) {
	var patterns []*regexp.Regexp
	for _, f := range foreign {
		patterns = append(patterns, regexp.MustCompile(`(?m)`+f.pattern))
	}
	walk(t, func(rel string) {
		content := read(t, rel)
		for i, p := range patterns {
			if at := p.FindIndex(content); at != nil {
				line := 1 + strings.Count(string(content[:at[0]]), "\n")
				t.Errorf("%s:%d: %q is %s", rel, line, p.Find(content), foreign[i].what)
			}
		}
	})
}

func TestForeignPatterns(t *testing.T) {
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"see /wo" + "rk/x", true},
		{`"/ho` + `me/me/x"`, true},
		{"/ro" + "ot/.cache", true},
		{"$DIR/work" + "/x", false},
		{"tmp/work" + "/x", false},
		{"network/x", false},
		{"https://py" + "pi.org/simple", true},
		{"registry.npm" + "js.org", true},
		{"go env GOPROXY=https://proxy.go" + "lang.org", true},
		{"golang.org/x/sys", false},
		{"github.com/microsoft/onnxruntime", false},
	} {
		found := false
		for _, f := range foreign {
			found = found || regexp.MustCompile(`(?m)`+f.pattern).MatchString(tt.text)
		}
		if found != tt.want {
			t.Errorf("%q: found is %v, want %v", tt.text, found, tt.want)
		}
	}
}
