package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/internal/realpath"
	"github.com/cosetq/cosetq/report"
)

// pageFlag is --report, with which a command also writes its result as an HTML file.
type pageFlag struct {
	path    string
	options cosetq.PageOptions
}

func (f *pageFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "report", "", "also write the result as one HTML file, with charts")
}

// check fails early, before hours of work, when the file may not be written: over one that is read, in the place of a model or of
// what goes beside one, or in a folder that takes none.
func (f *pageFlag) check(overwrite bool, reads cosetq.Reads, models ...string) error {
	if f.path == "" {
		return nil
	}
	f.options.Overwrite = overwrite
	for _, m := range models {
		for _, path := range []string{m, m + ".data", m + cosetq.JournalEnding, strings.TrimSuffix(m, filepath.Ext(m)) + cosetq.RecipeEnding} {
			if realpath.Same(path, f.path) {
				return usage(fmt.Errorf("--report %s is the place of another file of this run", f.path), "choose another name, as in report.html")
			}
		}
	}
	path, err := cosetq.OutputPath(f.path, reads, "", overwrite)
	if err == nil {
		err = atomicfile.Check(path)
	}
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}

// unrecorded are the flags that do not bear on what a report shows.
var unrecorded = []string{"force", "json", "layers", "quiet", "report", "resume"}

// describe notes the options that were given, and the command line that a shell would take them from.
func (f *pageFlag) describe(cmd *cobra.Command, args []string) {
	line := append(strings.Fields(cmd.CommandPath()), args...)
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if slices.Contains(unrecorded, flag.Name) {
			return
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			f.options.Recipe = append(f.options.Recipe, report.Fact{Name: flag.Name, Value: v})
			if flag.Value.Type() == "bool" { // the next argument would not be its value
				line = append(line, "--"+flag.Name+"="+v)
			} else {
				line = append(line, "--"+flag.Name, v)
			}
		}
	})
	f.options.Command = shellescape.QuoteCommand(line)
}
