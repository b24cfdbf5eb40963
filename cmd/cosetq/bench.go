package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
)

func newBench(con *console) *cobra.Command {
	var (
		o   cosetq.BenchOptions
		run runFlags
	)
	cmd := &cobra.Command{
		Use:   "bench MODEL [MODEL...]",
		Short: "Time models side by side",
		Long: `bench runs models in turn on the same inputs, so that whatever slows the machine
down slows all of them. It prints medians with their spread, what each model
takes on disk and in memory, on which provider its nodes ran, and how many
layers the native kernels ran.

With --concurrency it puts each model under load in turn, and tells whether all
callers got the same results and whether memory grew.`,
		Example: `  cosetq bench model.onnx model.q.onnx --peer fp16 --peer matmulnbits --data random:1,batch=1,seq=256 --threads 2`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			if err := notZero(cmd, "runs", "budget", "block"); err != nil {
				return err
			}
			var err error
			if o.Session, err = run.options(con); err != nil {
				return err
			}
			o.Progress = con.follow()
			r, err := cosetq.Bench(cmd.Context(), paths, o)
			con.clearProgress()
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			return printBench(con, r)
		},
	}
	run.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&o.Data, "data", "random:1", "data recipe, or random:1 with sizes of dynamic dimensions, as in random:1,seq=256")
	fs.StringSliceVar(&o.Peers, "peer", nil, "fp16, matmulnbits: also time this form of the first model")
	fs.IntVar(&o.Block, "block", 32, "block size of --peer matmulnbits")
	fs.IntVar(&o.Rounds, "runs", 30, "runs of each model")
	fs.DurationVar(&o.Budget, "budget", 20*time.Second, "time after which no further runs start; with --concurrency, the time of the load on each model")
	fs.IntVar(&o.Concurrency, "concurrency", 0, "put each model under load instead: so many callers at once, watching memory and results")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of random data")
	return cmd
}

func printBench(con *console, r *cosetq.BenchReport) error {
	fmt.Fprintf(con.out, "%s: %s per run, on %s, %s, ONNX Runtime %s, cosetq %s\n", r.Data, counted(int(r.Items), strings.TrimSuffix(r.Unit, "s")), r.Device,
		counted(r.Threads, "thread"), r.Runtime, r.Version)
	if r.Load != nil {
		return printLoad(con, r)
	}
	t := con.namesTable()
	fmt.Fprintf(t, "model\tp50 ms\tp95 ms\t%s/s\tagainst the first\n", r.Unit)
	for i, m := range r.Models {
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.1f\t%s\n", visible(m.Name, ""), m.Median, m.P95, m.PerSecond, r.Against(i))
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = con.namesTable()
	fmt.Fprintln(t, "model\tload s\tfile\tmemory\tnative layers")
	for _, m := range r.Models {
		fmt.Fprintf(t, "%s\t%.2f\t%s\t%s\t%d\n", visible(m.Name, ""), m.LoadSeconds, cosetq.Size(m.Bytes), cosetq.Size(m.Memory), m.NativeLayers)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, m := range r.Models {
		var nodes []string
		for _, p := range slices.Sorted(maps.Keys(m.Providers)) {
			nodes = append(nodes, fmt.Sprintf("%d on %s", m.Providers[p], p))
		}
		fmt.Fprintf(con.out, "nodes of %s: %s\n", visible(m.Name, ""), strings.Join(nodes, ", "))
		for _, why := range slices.Sorted(maps.Keys(m.LeftToCPU)) {
			fmt.Fprintf(con.out, "  %d left to the CPU: %s\n", m.LeftToCPU[why], why)
		}
	}
	return nil
}

func printLoad(con *console, r *cosetq.BenchReport) error {
	fmt.Fprintf(con.out, "%s at once, on each model in turn\n", counted(r.Load[0].Callers, "caller"))
	t := con.namesTable()
	fmt.Fprintf(t, "model\tseconds\t%s/s\tp50 ms\tp95 ms\tp99 ms\tslowest\n", r.Unit)
	for _, l := range r.Load {
		fmt.Fprintf(t, "%s\t%.0f\t%.1f\t%.3f\t%.3f\t%.3f\t%.1f\n", visible(l.Name, ""), l.Seconds, l.PerSecond, l.Median, l.P95, l.P99, l.Slowest)
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = con.namesTable()
	fmt.Fprintln(t, "model\truns\tother results\tmemory warm\tat the end\tpeak")
	for _, l := range r.Load {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\n", visible(l.Name, ""), l.Runs, l.Different,
			cosetq.Size(l.MemoryWarm), cosetq.Size(l.MemoryEnd), cosetq.Size(l.MemoryPeak))
	}
	return t.flush()
}
