package main

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/internal/testenv"
)

// jsonFields adds the names of all fields below a type: true those that may be left out.
func jsonFields(t reflect.Type, to map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		jsonFields(t.Elem(), to)
	case reflect.Struct:
		for i := range t.NumField() {
			name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			if optional, known := to[name]; !known || optional { // one place where it is always there is enough
				to[name] = options == "omitempty"
			}
			jsonFields(t.Field(i).Type, to)
		}
	}
}

var word = regexp.MustCompile("`([a-z0-9_]+)`")

// ofMaps are the fields that no struct has.
var ofMaps = []string{"version", "healthy", "checks", "folder", "rows", "go", "platform"}

// The page on --json has every field of every object, says which may be missing, and has no others.
func TestJSONInDocs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		sections[strings.TrimPrefix(title, "cosetq/v1/")] = body
	}
	for name, reports := range map[string][]any{
		"inspect": {cosetq.InspectReport{}}, "inspect-statistics": {cosetq.StatisticsReport{}}, "quantize": {cosetq.QuantizeReport{}}, "calibrate": {cosetq.CalibrateReport{}},
		"finetune": {cosetq.FinetuneReport{}}, "eval": {eval.Report{}, eval.Classification{}, eval.Perplexity{}, eval.Agreement{}}, "compare": {cosetq.CompareReport{}},
		"bench": {cosetq.BenchReport{}}, "run": {cosetq.RunReport{}}, "export": {cosetq.ExportReport{}}, "doctor, quickstart, version": {finding{}, quickstartRow{}},
		"error": {},
	} {
		section, ok := sections[name]
		if !ok {
			t.Errorf("%s has no section", name)
			continue
		}
		fields := map[string]bool{}
		for _, r := range reports {
			jsonFields(reflect.TypeOf(r), fields)
		}
		delete(fields, "schema")
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if !strings.Contains(section, "`"+field+"`") {
				t.Errorf("%s: `%s` is not described", name, field)
			}
			if fields[field] && !strings.Contains(section, "*`"+field+"`*") {
				t.Errorf("%s: `%s` may be missing and is not in italics", name, field)
			}
		}
		for row := range strings.Lines(section) {
			first, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
			for _, m := range word.FindAllStringSubmatch(first, -1) {
				if _, known := fields[m[1]]; strings.HasPrefix(row, "| ") && len(reports) > 0 && !known && !slices.Contains(ofMaps, m[1]) {
					t.Errorf("%s: there is no `%s`", name, m[1])
				}
			}
		}
		delete(sections, name)
	}
	for name := range sections {
		t.Errorf("a section %q that the test does not know", name)
	}
}
