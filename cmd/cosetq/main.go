// Command cosetq makes ONNX models 4 to 8 times smaller: it quantizes their
// MatMul, Gemm and 1×1 Conv weights with nested-lattice codes, runs the result in ONNX
// Runtime and measures what it lost. This package holds flags, progress and
// wiring; the work is done by the packages of the module.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endings are the signals on which a command stops and clears up. A terminal that is closed hangs up; under nohup that is no reason.
func endings() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	con := &console{out: out, err: stderr}
	root := newRoot(con)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	err := execute(ctx, root)
	if err == nil {
		err = out.err
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil {
		err = interrupted(err)
	}
	con.json = con.json || slices.Contains(args, "--json") // flags after a wrong one were not read
	return con.fail(err)
}

// execute turns a panic into the error that it is, with the exit code and the JSON of one.
func execute(ctx context.Context, root *cobra.Command) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return root.ExecuteContext(ctx)
}

func newRoot(con *console) *cobra.Command {
	root := &cobra.Command{
		Use:   "cosetq",
		Short: "Make ONNX models 4 to 8 times smaller with nested-lattice codes",
		Long: `cosetq replaces the constant weights of MatMul, Gemm and 1×1 Conv in an ONNX
model by nested-lattice codes of about 4, 3 or 2 bits per weight. The result
runs in any ONNX Runtime, and faster with cosetq's native library.

  cosetq quantize model.onnx -o model.q.onnx --bits 4
  cosetq eval model.onnx model.q.onnx --task classification --data recipe.yaml

Exit codes: 0 done, 1 internal error, 2 usage or recipe, 3 unreadable model, 4
nothing to quantize or too little of it, 5 a quality gate failed, 6 runtime or
device missing, 7 out of memory or disk, 130 interrupted.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: notEmpty, // of every command
	}
	root.PersistentFlags().BoolVar(&con.json, "json", false, "print exactly one JSON object on stdout")
	root.PersistentFlags().BoolVarP(&con.quiet, "quiet", "q", false, "no progress on stderr, only what must be known to trust the result")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages |", ".FlagUsagesWrapped 80 |"))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(flagError(cmd, err), "run `%s --help` for the flags", cmd.CommandPath())
	})
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Quantize:", []*cobra.Command{newInspect(con), newCalibrate(con), newQuantize(con), newMerge(con), newFinetune(con)}},
		{"Judge:", []*cobra.Command{newEval(con), newCompare(con), newBench(con), newRun(con)}},
		{"Deploy:", []*cobra.Command{newExport(con)}},
		{"This installation:", []*cobra.Command{newQuickstart(con), newDoctor(con), newVersion(con), newMan()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, c := range group.commands {
			c.Args, c.GroupID = usageArgs(c.Args), group.title
			completeValues(c)
			root.AddCommand(c)
		}
	}
	refuseOtherShells(root)
	root.SetHelpCommandGroupID("This installation:")
	refuseOtherTopics(root)
	root.SetCompletionCommandGroupID("This installation:")
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usage(fmt.Errorf("no such command %q%s", args[0], suggestCommand(cmd, args[0])), "run `cosetq --help` for the list")
	}
	version := root.Flags().Bool("version", false, "print the version")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return printVersion(con)
		}
		return cmd.Help()
	}
	return root
}

// refuseOtherShells makes it an error to ask for the completion of a shell that there is none for.
func refuseOtherShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	c, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic(err) // cobra has just added it
	}
	for _, shell := range c.Commands() {
		shell.Args = usageArgs(shell.Args)
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return usage(fmt.Errorf("no completion for %q%s", args[0], suggestCommand(c, args[0])), "run `%s --help` for the shells", c.CommandPath())
	}
}

// refuseOtherTopics makes it an error to ask for help on what is no command.
func refuseOtherTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	c, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // cobra has just added it
	}
	c.Args = func(_ *cobra.Command, args []string) error {
		topic, rest, err := root.Find(args)
		if err != nil || len(rest) == 0 {
			return err
		}
		return usage(fmt.Errorf("no such command %q%s", strings.Join(args, " "), suggestCommand(topic, rest[0])), "run `%s --help` for the list", topic.CommandPath())
	}
}
