// Command quality measures what a model loses at every rate, by rounding to nearest and with data, beside int4 in blocks and what
// other tools made of it; `make quality` runs it for the models of docs/quality.md. With -render it writes their tables and
// charts into that page.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

var (
	name      = flag.String("name", "", "what the table calls the model")
	model     = flag.String("model", "", "float model")
	task      = flag.String("task", "perplexity", "perplexity or classification")
	calibData = flag.String("calib", "", "recipe of the data to calibrate on")
	samples   = flag.Int("samples", 0, "samples to calibrate on, 0 all")
	data      = flag.String("data", "", "recipe of the data to judge on")
	limit     = flag.Int("limit", 0, "samples to judge on, 0 all")
	threads   = flag.Int("threads", 0, "threads, 0 all cores")
	codecs    = flag.String("codecs", "d4:4;2;d4:4:"+manyGains+";d4:2,4;3;d4:2,4:"+manyGains+";d4:4,4;4;d4:4,4:"+manyGains, "codecs, or presets by their bits, separated by semicolons")
	rates     = flag.String("target-bpw", "2.5;3;3.5", "rates to allocate, separated by semicolons")
	output    = flag.String("o", "", "JSON file to write; it is complete after every form, so that a run that is cut short is of use")
	dump      = flag.String("dump", "", "write the samples to calibrate on as this .npz file, for another tool, and measure nothing")
	render    = flag.String("render", "", "page to write the tables of the JSON files given as arguments into, of NAME-0.json, NAME-1.json … the mean; charts go beside it")
)

// manyGains are 16 gains, 4 bits for 8 weights: finer steps of what the presets have four of.
const manyGains = "g5,6,7,8,9,10,11,12,13,14,15,16,18,20,23,28"

// peers are models that another tool made of the same one.
type peers []string

func (p *peers) String() string         { return strings.Join(*p, " ") }
func (p *peers) Set(value string) error { *p = append(*p, value); return nil }

var others peers

func main() {
	flag.Var(&others, "peer", "NAME=BITS=PATH of what another tool made of the model; may be given several times")
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

// result is what one form of a model achieves.
type result struct {
	Form   string  `json:"form"`   // codec or block
	Method string  `json:"method"` // rtn, ldlq, or how another tool says
	Bits   float64 `json:"bits_per_weight"`
	Score  float64 `json:"score"`        // bits per byte, or mean number of samples that are right
	KL     float64 `json:"kl,omitempty"` // of samples: mean divergence from the float model's probabilities, in nats
}

// table is all that was measured of a model.
type table struct {
	Name    string   `json:"name"`
	Task    string   `json:"task"`
	Program string   `json:"program"`
	Date    string   `json:"date"`
	Samples int      `json:"samples"` // calibrated on
	Judged  int      `json:"judged"`  // bytes or images
	Float   float64  `json:"float"`
	Results []result `json:"results"`

	divisions int // of the data, of which this is the mean
}

// add says what was found and writes what there is so far.
func (t *table) add(r result) error {
	fmt.Printf("%-28s %-5s %.3f bits  %.4f  (float %.4f)  KL %.4f\n", r.Form, r.Method, r.Bits, r.Score, t.Float, r.KL)
	return t.write()
}

func (t *table) write() error {
	if *output == "" {
		return nil
	}
	found := *t
	found.Results = slices.DeleteFunc(slices.Clone(t.Results), func(r result) bool { return r.Form == "" })
	b, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*output, append(b, '\n'), 0o644)
}

func measure(ctx context.Context) error {
	if *model == "" || *data == "" || *calibData == "" {
		return errors.New("-model, -calib and -data are needed")
	}
	dir, err := os.MkdirTemp("", "quality-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurement{table: table{Name: *name, Task: *task, Date: time.Now().UTC().Format("2006-01-02")}, dir: dir}
	return m.run(ctx)
}
