// Command layerbench times one linear layer in all its forms, ours and ONNX Runtime's own, in turn in one process:
// `make bench-cpu` prints its table. docs/benchmarks.md says how to read it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cosetq/cosetq/bench/layer"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
)

var (
	shapes  = flag.String("shapes", "3072x768,4096x4096,14336x4096", "layers, rows × columns of W (N × K)")
	batches = flag.String("batches", "1,2,4,16,128", "rows of activations")
	threads = flag.String("threads", "1,2", "threads of ONNX Runtime")
	codecs  = flag.String("codecs", "4;3;2", "presets by their bits, or codecs, separated by semicolons")
	rounds  = flag.Int("rounds", 12, "cold runs of every form; three hot runs follow each")
	evict   = flag.Int("evict", 128, "MiB to read before a cold run: several times the last cache")
	only    = flag.String("forms", "", "forms whose name contains one of these words, separated by commas; empty: all")
)

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "layerbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return err
	}
	library, err := cudaops.FindLibrary("")
	if err != nil {
		return err
	}
	ops, err := ort.OpenOps(library)
	if err != nil {
		return err
	}
	fmt.Printf("ONNX Runtime %s, kernels for %s\n", rt.Version(), ops.ISA())
	for _, shape := range strings.Split(*shapes, ",") {
		var n, k int
		if _, err := fmt.Sscanf(shape, "%dx%d", &n, &k); err != nil {
			return fmt.Errorf("shape %q: want N×K as in 4096x4096", shape)
		}
		if err := measure(ctx, rt, library, n, k); err != nil {
			return err
		}
	}
	return nil
}

// measure makes the forms of one layer and prints their tables.
func measure(ctx context.Context, rt *ort.Runtime, library string, n, k int) error {
	dir, err := os.MkdirTemp("", "layerbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layer.New(n, k, dir)
	if err != nil {
		return err
	}
	if err := addForms(ctx, l, library); err != nil {
		return err
	}
	l.Keep(strings.Split(*only, ","))
	for _, t := range strings.Split(*threads, ",") {
		count, err := strconv.Atoi(t)
		if err != nil {
			return err
		}
		if err := timeAll(ctx, rt, library, l, count); err != nil {
			return err
		}
	}
	return nil
}

func addForms(ctx context.Context, l *layer.Layer, library string) error {
	if err := l.AddDynamicInt8(); err != nil {
		return err
	}
	for _, o := range []rewrite.NBitsOptions{
		{Bits: 4, Block: 32, AccuracyLevel: 4}, {Bits: 4, Block: 32, AccuracyLevel: 1},
		{Bits: 4, Block: 128, AccuracyLevel: 4}, {Bits: 4, Block: 128, AccuracyLevel: 1},
		{Bits: 2, Block: 32, AccuracyLevel: 4}, {Bits: 2, Block: 128, AccuracyLevel: 4},
	} {
		if err := l.AddNBits(o); err != nil {
			return err
		}
	}
	accuracies := map[string]string{"accurate": strconv.Itoa(cudaops.AccuracyAccurate), "fast": strconv.Itoa(cudaops.AccuracyFast)}
	for _, name := range strings.Split(*codecs, ";") {
		codec, err := codecNamed(name)
		if err != nil {
			return err
		}
		var encoder lattice.RowCoder
		if e, err := ort.OpenEncoder(library, codec); err == nil {
			encoder = e
		}
		if err := l.AddCoded(ctx, codec, encoder, accuracies); err != nil {
			return err
		}
	}
	return nil
}

func codecNamed(name string) (*lattice.Codec, error) {
	if bits, err := strconv.Atoi(name); err == nil {
		return lattice.Preset(bits)
	}
	return lattice.ParseCodec(name)
}

// timeAll times the forms of a layer with some threads, for every batch.
func timeAll(ctx context.Context, rt *ort.Runtime, library string, l *layer.Layer, threads int) error {
	var runners []eval.Runner
	for _, f := range l.Forms {
		o := ort.SessionOptions{Threads: threads, Config: map[string]string{}}
		if f.Native {
			o.OpsLibrary = library
			o.Config[cudaops.ConfigAccuracy] = f.Accuracy
		}
		s, err := rt.NewSession(f.Path, o)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		defer s.Close()
		runners = append(runners, s)
	}
	for _, b := range strings.Split(*batches, ",") {
		batch, err := strconv.Atoi(b)
		if err != nil {
			return err
		}
		o := layer.Options{Batch: batch, Rounds: *rounds, Clock: wallClock, Evict: evictor(*evict << 20)}
		if batch >= 64 {
			o.Rounds = max(3, *rounds/3)
		}
		if threads == 1 {
			o.Clock = threadClock
		} else {
			o.Pause = ort.SpinTime // those of the form before would take a core from this one's
		}
		timings, err := l.Time(ctx, runners, o)
		if err != nil {
			return err
		}
		fmt.Printf("\nN %d, K %d, batch %d, %d thread(s): microseconds\n", l.N, l.K, batch, threads)
		t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "form\tcold\thot\tleast\terror")
		for _, r := range timings {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1e\n", r.Form, r.Cold.Microseconds(), r.Hot.Microseconds(), r.Least.Microseconds(), r.Error)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// evictor returns a function that reads a buffer of some bytes.
func evictor(size int) func() {
	buffer := make([]uint64, size/8)
	for i := range buffer {
		buffer[i] = uint64(i)
	}
	var sum uint64
	return func() {
		for i := 0; i < len(buffer); i += 8 {
			sum += buffer[i]
		}
		buffer[0] = sum
	}
}

var began = time.Now()

func wallClock() time.Duration { return time.Since(began) }
