package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/rewrite"
)

// flagValues are the values of flags that have a few, for the shell to offer and, where the tool itself reads them, for checking.
var flagValues = map[string][]string{
	"bits":         {"2", "3", "4"},
	"device":       {"cpu", cosetq.CUDA},
	"format":       {string(rewrite.FP32), string(rewrite.FP16), string(rewrite.MatMulNBits)},
	"method":       {cosetq.RTN, cosetq.LDLQ},
	"ops":          {"auto", "none"},
	"optimization": optimizationNames(),
	"rotate":       {cosetq.RotateAuto, cosetq.RotateNone, cosetq.RotateHadamard},
	"task":         eval.Tasks(),
}

// completeValues has the shell complete the values of the flags of a command.
func completeValues(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if values, ok := flagValues[f.Name]; ok {
			// It fails for flags that the command lacks or has been given values for, and this one is neither.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	})
}
