// Command quality measures what a model loses at every rate, by rounding to nearest and with data, beside int4 in blocks and what
// other tools made of it; `make quality` runs it for the models of docs/quality.md. With -render it writes their tables and
// charts into that page.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cosetq/cosetq/eval"
)

var (
	name      = flag.String("name", "", "what the table calls the model")
	model     = flag.String("model", "", "float model")
	task      = flag.String("task", "perplexity", "perplexity or classification")
	calibData = flag.String("calib", "", "recipe of the data to calibrate on; with -divisions, %d in it is the number of the division")
	samples   = flag.Int("samples", 0, "samples to calibrate on, 0 all")
	data      = flag.String("data", "", "recipe of the data to judge on")
	limit     = flag.Int("limit", 0, "samples to judge on, 0 all")
	divisions = flag.Int("divisions", 1, "ways to divide the data: in each, what is calibrated on is every so many-th sample of -data, from the number of the division on, and what is judged on all others")
	threads   = flag.Int("threads", 0, "threads, 0 all cores")
	codecs    = flag.String("codecs", "d4:4;2;d4:4:"+manyGains+";d4:2,4;3;d4:2,4:"+manyGains+";d4:4,4;4;d4:4,4:"+manyGains, "codecs, or presets by their bits, separated by semicolons")
	rates     = flag.String("target-bpw", "2.5;3;3.5", "rates to allocate, separated by semicolons")
	output    = flag.String("o", "", "JSON file to write; it is complete after every form, and what it holds of the same build and inputs is not measured again")
	dump      = flag.String("dump", "", "write the samples to calibrate on as this .npz file, for another tool, and measure nothing")
	render    = flag.String("render", "", "page to write the tables of the JSON files given as arguments into; charts go beside it")
)

// manyGains are 16 gains, 4 bits for 8 weights: finer steps of what the presets have four of.
const manyGains = "g5,6,7,8,9,10,11,12,13,14,15,16,18,20,23,28"

// peers are models that another tool made of the same one.
type peers []string

func (p *peers) String() string         { return strings.Join(*p, " ") }
func (p *peers) Set(value string) error { *p = append(*p, value); return nil }

var others peers

func main() {
	flag.Var(&others, "peer", "NAME=BITS=PATH of what another tool made of the model, %d in it the number of the division; may be given several times")
	flag.Parse()
	var err error
	switch {
	case *render != "":
		err = renderPage(*render, flag.Args())
	case *dump != "":
		err = dumpSamples(*dump)
	default:
		err = measure(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context) error {
	switch {
	case *model == "" || *data == "" || *calibData == "":
		return errors.New("-model, -calib and -data are needed")
	case *divisions > 1 && (*limit > 0 || *task != eval.TaskClassification):
		return errors.New("-divisions divides all samples of a classification")
	}
	dir, err := os.MkdirTemp("", "quality-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurement{table: table{Name: *name, Task: *task, Date: time.Now().UTC().Format("2006-01-02")}, dir: dir}
	return m.run(ctx)
}
