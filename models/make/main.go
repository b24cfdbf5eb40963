// Command make draws the digits and trains the classifier that package models embeds, into a folder (data without an
// argument). `go generate ./models` runs it.
package main

import (
	"fmt"
	"os"

	"github.com/cosetq/cosetq/models"
)

func main() {
	dir := "data"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	progress := func(done, all int) {
		if done%100 == 0 || done == all {
			fmt.Fprintf(os.Stderr, "\rtraining: %d of %d batches", done, all)
		}
	}
	err := models.Generate(dir, progress)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "make:", err)
		os.Exit(1)
	}
}
