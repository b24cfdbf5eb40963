// Command genheader writes include/cosetq/schema.h from the constants of package cudaops.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cosetq/cosetq/cudaops"
)

func main() {
	out := flag.String("o", "include/cosetq/schema.h", "file to write")
	flag.Parse()
	if err := os.WriteFile(*out, []byte(cudaops.Header()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "genheader:", err)
		os.Exit(1)
	}
}
