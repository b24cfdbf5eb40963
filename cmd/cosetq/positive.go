package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// positive is a flag that takes a positive number. Its default, zero, stands for a flag that is not given: who writes
// --target-bpw 0 asks for a target and would have none.
type positive float64

func (p *positive) String() string { return strconv.FormatFloat(float64(*p), 'g', -1, 64) }
func (p *positive) Type() string   { return "float" }

func (p *positive) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v > 0) {
		return fmt.Errorf("%q is no positive number", text)
	}
	*p = positive(v)
	return nil
}

// notZero refuses a zero for flags whose zero stands for their default: who writes --runs 0 would have 30.
func notZero(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		f := cmd.Flags().Lookup(name)
		if zero := f.Value.String(); f.Changed && (zero == "0" || zero == "0s") {
			return usage(fmt.Errorf("--%s %s: it takes more than 0", name, zero), "leave it out for %s", f.DefValue)
		}
	}
	return nil
}

// notEmpty refuses flags with an empty text, which would count as not given: who writes --data "$CALIB" and has not set it would
// have no data.
func notEmpty(cmd *cobra.Command, _ []string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		empty := f.Value.Type() == "string" && f.Value.String() == ""
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = len(list.GetSlice()) == 0 || slices.Contains(list.GetSlice(), "")
		}
		if empty && err == nil {
			err = usage(fmt.Errorf("--%s \"\": it is given and empty", f.Name), "give it a value, or leave it out; if the value comes from a shell variable, that may not be set")
		}
	})
	return err
}
