package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
)

// shown is a command line that a document shows.
type shown struct {
	file string
	line int
	text string
}

// executed are the documents whose commands are all run, in order, in a folder of their own. Those of the others, which need
// large models and hours, must at least be commands with flags that there are.
var executed = []string{"README.md", "docs/tutorial.md", "docs/choosing-bits.md", "docs/calibration.md"}

// testedElsewhere are commands of other programs, with where they are tested.
var testedElsewhere = map[string]string{
	"python ops/run.py":         "internal/conformance runs the snippet",
	"python folder/generate.py": "internal/conformance runs the snippet",
	"make":                      "checked against the Makefile below",
	"go install":                "TestGoInstall builds what it builds",
	"go run ./models/decoder":   "TestDecoderCommand of package models runs it",
}

var commandLine = regexp.MustCompile(`^(?:    |\$ )((?:bin/)?cosetq|make|python|go|node) (.*)$`)

// commands finds the command lines of a document: behind "$ " in console blocks, or indented by four.
func commands(t *testing.T, root, file string) []shown {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	var list []shown
	for i, line := range strings.Split(string(text), "\n") {
		if m := commandLine.FindStringSubmatch(line); m != nil {
			list = append(list, shown{file, i + 1, strings.TrimPrefix(m[1], "bin/") + " " + m[2]})
		}
	}
	return list
}

// fields splits a command line as a shell does: quotes hold words together, three spaces begin a remark.
func fields(line string) []string {
	line, _, _ = strings.Cut(line, "   ")
	line, _, _ = strings.Cut(line, " #")
	var words []string
	for _, m := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line, -1) {
		words = append(words, strings.Trim(m, "'"))
	}
	return words
}

// Every command that a document shows is one: it has the flags and as many arguments as it takes.
func TestCommandsInDocs(t *testing.T) {
	root := testenv.Root(t)
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"README.md"}
	for _, path := range docs {
		files = append(files, "docs/"+filepath.Base(path))
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		for _, c := range commands(t, root, file) {
			count++
			words := fields(c.text)
			switch words[0] {
			case "make":
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(words[1]) + `:`).Match(makefile) {
					t.Errorf("%s:%d: the Makefile has no target %s", c.file, c.line, words[1])
				}
			case "cosetq":
				if err := parses(words[1:]); err != nil {
					t.Errorf("%s:%d: %s: %v", c.file, c.line, c.text, err)
				}
			default:
				if !slices.ContainsFunc(slices.Collect(maps.Keys(testedElsewhere)), func(known string) bool { return strings.HasPrefix(c.text, known) }) {
					t.Errorf("%s:%d: %s: no test runs it", c.file, c.line, c.text)
				}
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d commands found: the pattern no longer finds them", count)
	}
}

var setting = regexp.MustCompile(`"(COSETQ_[A-Z_]+|ai\.coset\.[a-z_]+)"`)

// Every variable of the environment and every session entry stands in the table where users look.
func TestSettingsInDocs(t *testing.T) {
	root := testenv.Root(t)
	table, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "build" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !slices.Contains([]string{".go", ".cc", ".cu", ".h"}, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range setting.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 8 {
		t.Errorf("only %d settings found: the pattern no longer finds them", len(found))
	}
	for name := range found {
		if !bytes.Contains(table, []byte("`"+name)) {
			t.Errorf("docs/troubleshooting.md does not tell of %s", name)
		}
	}
}

// parses tells whether the command line would be understood.
func parses(args []string) error {
	root := newRoot(&console{out: io.Discard, err: io.Discard})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root {
		return fmt.Errorf("no such command")
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// Documents for people who begin are run from top to bottom.
func TestDocsRun(t *testing.T) {
	ort, ops := testenv.ORT(t), testenv.Ops(t)
	root := testenv.Root(t)
	for _, file := range executed {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			stage(t, dir)
			for _, c := range commands(t, root, file) {
				words := fields(c.text)
				if words[0] != "cosetq" || words[1] == "quickstart" && file == "README.md" {
					continue
				}
				cmd := exec.Command("cosetq", words[1:]...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), testenv.EnvORT+"="+ort, testenv.EnvOps+"="+ops)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s:%d: %s: %v\n%s", c.file, c.line, c.text, err, out)
				}
			}
		})
	}
}

// stage puts what the documents call the reader's own files into a folder.
func stage(t *testing.T, dir string) {
	t.Helper()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	copyTo := func(from, to string) {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyTo(files.Model, "model.onnx")
	copyTo(files.Data, "eval.yaml")
	copyTo(files.Data, "recipe.yaml")
	copyTo(files.Calib, "calib.yaml")
	language(t, dir)
	// What two machines would have gathered, each of data of its own.
	var errOut bytes.Buffer
	for name, samples := range map[string]string{"a": "8", "b": "7"} {
		cmd := exec.Command("cosetq", "calibrate", "model.onnx", "--data", "calib.yaml", "--samples", samples, "-o", name+".cqs")
		cmd.Dir, cmd.Stderr = dir, &errOut
		cmd.Env = append(os.Environ(), testenv.EnvORT+"="+testenv.ORT(t), testenv.EnvOps+"="+testenv.Ops(t))
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, errOut.Bytes())
		}
	}
}

// language writes the smallest language model, llama.onnx, and a text for it.
func language(t *testing.T, dir string) {
	t.Helper()
	const vocabulary, width = 256, 64
	weights := func(name string, dims ...int64) *onnx.Tensor {
		random := rand.New(rand.NewPCG(1, uint64(len(name))))
		n := int64(1)
		for _, d := range dims {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(random.NormFloat64()) / 8
		}
		return onnx.NewTensor(name, dims, v)
	}
	m := onnx.NewModel(8, 17, "language")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("ids", onnx.Int64, "batch", "seq")}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("logits", onnx.Float, "batch", "seq", vocabulary)}
	m.Graph.Initializers = []*onnx.Tensor{weights("embedding", vocabulary, width), weights("hidden", width, width), weights("head", width, vocabulary)}
	m.Graph.Nodes = []*onnx.Node{
		onnx.NewNode("Gather", []string{"embedding", "ids"}, []string{"x"}),
		onnx.NewNode("MatMul", []string{"x", "hidden"}, []string{"h"}),
		onnx.NewNode("Relu", []string{"h"}, []string{"r"}),
		onnx.NewNode("MatMul", []string{"r", "head"}, []string{"logits"}),
	}
	if _, err := m.Save(filepath.Join(dir, "llama.onnx"), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"text.txt":     strings.Repeat("It was the best of times, it was the worst of times. ", 60),
		"text.yaml":    "kind: bytes\nfile: text.txt\nseq: 64\n",
		"heldout.yaml": "kind: bytes\nfile: text.txt\nseq: 64\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
