package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
)

func newVersion(con *console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE:  func(*cobra.Command, []string) error { return printVersion(con) },
	}
}

func printVersion(con *console) error {
	if con.json {
		return con.printJSON(map[string]string{"schema": "cosetq/v1/version", "version": cosetq.Version(),
			"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(con.out, "cosetq %s %s %s/%s\n", cosetq.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
