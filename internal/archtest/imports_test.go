package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
)

const module = "github.com/cosetq/cosetq"

// goFile is one Go file of the repository, read for its imports whatever its build constraints.
type goFile struct {
	path      string // from the root, with slashes
	pkg       string
	imports   []string
	lines     int
	generated bool
}

func (f goFile) folder() string { return path.Dir(f.path) }
func (f goFile) isTest() bool   { return strings.HasSuffix(f.path, "_test.go") }

// walk calls visit for every file that git keeps, and outside of a work tree for every file there is.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	top := testenv.Root(t)
	out, err := exec.Command("git", "-C", top, "ls-files", "-z").Output()
	if err != nil || len(out) == 0 { // an unpacked archive, or a folder that git does not trust
		walkAll(t, top, visit)
		return
	}
	for rel := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// Not those that are deleted and not yet committed, nor links.
		if info, err := os.Lstat(filepath.Join(top, filepath.FromSlash(rel))); err == nil && info.Mode().IsRegular() {
			visit(rel)
		}
	}
}

// walkAll calls visit for every file below top but what the build leaves there.
func walkAll(t *testing.T, top string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".cache", "bin", "build"}, rel):
			return filepath.SkipDir
		case d.Type().IsRegular() && rel != ".git": // of a linked work tree
			visit(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, rel string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testenv.Root(t), filepath.FromSlash(rel)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	walk(t, func(rel string) {
		if path.Ext(rel) != ".go" || strings.Contains(rel, "testdata/") {
			return
		}
		content := read(t, rel)
		parsed, err := parser.ParseFile(token.NewFileSet(), rel, content, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		f := goFile{path: rel, pkg: parsed.Name.Name, lines: bytes.Count(content, []byte("\n")), generated: ast.IsGenerated(parsed)}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Errorf("%s: %v", rel, err)
			}
			f.imports = append(f.imports, name)
		}
		files = append(files, f)
	})
	return files
}

// ruleFor finds the rule of a folder: its own, or that of the nearest folder above it, except the root's, which is its own.
func ruleFor(folder string) (key string, r rule, ok bool) {
	if folder == root {
		r, ok = rules[root]
		return root, r, ok
	}
	for key = folder; key != root; key = path.Dir(key) {
		if r, ok = rules[key]; ok {
			return key, r, true
		}
	}
	return "", rule{}, false
}

// within tells whether name is one of the roots or lies under one.
func within(name string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool {
		return r == anything || name == r || strings.HasPrefix(name, r+"/")
	})
}

// forbidden tells why a file of the folder may not import name; it is empty if it may.
func forbidden(folder, name string, test bool) string {
	first, _, _ := strings.Cut(name, "/")
	rel, ours := strings.CutPrefix(name, module+"/")
	if name == module {
		rel, ours = root, true
	}
	key, r, known := ruleFor(folder)
	switch {
	case name == "C":
		if key != cgoFolder {
			return "only " + cgoFolder + " uses cgo"
		}
	case ours && within(rel, []string{"cmd"}) && !within(folder, []string{"cmd"}):
		return "nothing imports cmd"
	case test:
	case ours && within(rel, testOnly) && !within(folder, testOnly):
		return "only tests may, and packages for tests"
	case !known:
		return "the folder is not in the table of internal/archtest/rules.go; add it there with what it may import"
	case ours && !within(rel, []string{key}) && !within(rel, r.project):
		return "not among the folders that internal/archtest/rules.go allows " + key
	case !ours && strings.Contains(first, ".") && !within(name, r.modules):
		return "not among the modules that internal/archtest/rules.go allows " + key
	}
	return ""
}

func TestImports(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, name := range f.imports {
			if why := forbidden(f.folder(), name, f.isTest()); why != "" {
				t.Errorf("%s imports %s: %s", f.path, name, why)
			}
		}
	}
}

// The rules themselves catch what they are for.
func TestForbidden(t *testing.T) {
	ours := module + "/"
	for _, tt := range []struct {
		folder, name string
		test, want   bool
	}{
		{"lattice", "math", false, false},
		{"lattice", ours + "onnx", false, true},
		{"lattice", "golang.org/x/sys/cpu", false, true},
		{"lattice", "pgregory.net/rapid", true, false},
		{"onnx", "google.golang.org/protobuf/encoding/protowire", false, false},
		{"onnx", "google.golang.org/protobuf/proto", false, true},
		{"onnx", ours + "tensor", false, true},
		{"quant", ours + "lattice", false, false},
		{"quant", ours + "onnx", false, true},
		{"eval", ours + "ort", false, true},
		{"eval", ours + "internal/testenv", false, true},
		{"eval", ours + "internal/testenv", true, false},
		{"cudaops/internal/genheader", ours + "cudaops", false, false},
		{"ort", "C", false, false},
		{"onnx", "C", false, true},
		{"onnx", "C", true, true},
		{"rewrite", ours + "cmd/cosetq", true, true},
		{"cmd/cosetq", ours + "ort", false, false},
		{"cmd/cosetq", module, false, false},
		{"rewrite", module, false, true},
		{root, ours + "rewrite", false, false},
		{root, "github.com/spf13/cobra", false, true},
		{"newfolder", ours + "onnx", false, true},
	} {
		if got := forbidden(tt.folder, tt.name, tt.test) != ""; got != tt.want {
			t.Errorf("%s importing %s (test: %v): forbidden is %v, want %v", tt.folder, tt.name, tt.test, got, tt.want)
		}
	}
}
