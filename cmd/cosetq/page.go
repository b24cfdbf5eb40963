package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
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

// check fails early, before hours of work, when the file may not be written.
func (f *pageFlag) check(input string, overwrite bool) error {
	if f.path == "" {
		return nil
	}
	f.options.Overwrite = overwrite
	_, err := cosetq.OutputPath(f.path, input, ".html", overwrite)
	return err
}

// describe notes the command line and the options given on it.
func (f *pageFlag) describe(cmd *cobra.Command, args []string) {
	line := []string{cmd.CommandPath()}
	line = append(line, args...)
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if flag.Name == "json" || flag.Name == "quiet" || flag.Name == "report" || flag.Name == "force" {
			return
		}
		f.options.Recipe = append(f.options.Recipe, report.Fact{Name: flag.Name, Value: flag.Value.String()})
		line = append(line, "--"+flag.Name+" "+flag.Value.String())
	})
	f.options.Command = strings.Join(line, " ")
}
