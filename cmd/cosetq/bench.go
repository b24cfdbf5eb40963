package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/bench"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// benchRow is one model of the bench report. Times are milliseconds of one run.
type benchRow struct {
	Name         string         `json:"name"`
	Path         string         `json:"path"`
	Median       float64        `json:"median_ms"`
	Min          float64        `json:"min_ms"`
	P10          float64        `json:"p10_ms"`
	P90          float64        `json:"p90_ms"`
	Rounds       int            `json:"rounds"`
	PerSecond    float64        `json:"items_per_second"`
	Speedup      float64        `json:"speedup_over_first"`
	LoadSeconds  float64        `json:"load_seconds"`
	NativeLayers int            `json:"native_layers"`
	Placement    map[string]int `json:"placement"`
}

type benchReport struct {
	Schema  string     `json:"schema"`
	Data    string     `json:"data"`
	Items   int64      `json:"items_per_run"`
	Threads int        `json:"threads"`
	Runtime string     `json:"onnxruntime"`
	Models  []benchRow `json:"models"`
	PeakRSS int64      `json:"peak_rss_bytes"`
}

// benchFlags are the flags of bench.
type benchFlags struct {
	run           runFlags
	data, peer    string
	block, rounds int
	seed          uint64
	budget        time.Duration
}

func newBench(con *console) *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench MODEL [MODEL...]",
		Short: "Time models side by side",
		Long: `bench runs models in turn on the same inputs, so that whatever slows the machine down slows
all of them, and prints medians with their spread. It says how many layers the native kernels ran.`,
		Example: `  cosetq bench model.onnx model.q.onnx --peer matmulnbits --data random:1,batch=1,seq=256 --threads 2`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			r, err := f.measure(cmd, con, paths)
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			return printBench(con, r)
		},
	}
	f.run.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.data, "data", "random:1", "data recipe, or random:1 with sizes of dynamic dimensions, as in random:1,seq=256")
	fs.StringVar(&f.peer, "peer", "", "matmulnbits: also time ONNX Runtime's int4 form of the first model, which must be float")
	fs.IntVar(&f.block, "block", 32, "block size of --peer")
	fs.IntVar(&f.rounds, "runs", 30, "runs of each model")
	fs.DurationVar(&f.budget, "budget", 20*time.Second, "time after which no further runs start")
	fs.Uint64Var(&f.seed, "seed", 0, "seed of random data")
	return cmd
}

func (f *benchFlags) measure(cmd *cobra.Command, con *console, paths []string) (*benchReport, error) {
	options, err := f.run.options(con)
	if err != nil {
		return nil, err
	}
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return nil, err
	}
	names := append([]string{}, paths...)
	if f.peer != "" {
		if err := oneOf("peer", f.peer, string(rewrite.MatMulNBits)); err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp("", "cosetq-bench-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		peer := filepath.Join(dir, "peer.onnx")
		if err := exportPeer(paths[0], peer, f.block); err != nil {
			return nil, err
		}
		paths, names = append(paths, peer), append(names, fmt.Sprintf("MatMulNBits int4 block %d", f.block))
	}
	r := &benchReport{Schema: "cosetq/v1/bench", Data: f.data, Threads: f.run.threads, Runtime: rt.Version()}
	if r.Threads == 0 {
		r.Threads = runtime.NumCPU()
	}
	var models []bench.Model
	var sessions []*opened
	defer func() { closeAll(sessions) }()
	for i, p := range paths {
		start := time.Now()
		m, err := openSession(p, options)
		if err != nil {
			return nil, err
		}
		row := benchRow{Name: names[i], Path: p, LoadSeconds: time.Since(start).Seconds(), Placement: map[string]int{}}
		sessions = append(sessions, m)
		inputs, err := f.inputs(m)
		if err != nil {
			return nil, err
		}
		r.Items = items(m, inputs)
		nodes, err := rt.Placement(cmd.Context(), p, options, inputs)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			row.Placement[n.Op]++
		}
		row.NativeLayers = row.Placement[cudaops.OpName]
		models = append(models, bench.Model{Name: names[i], Runner: m.session, Inputs: inputs})
		r.Models = append(r.Models, row)
	}
	step := con.progress(f.rounds, "timing")
	timings, err := bench.Run(cmd.Context(), models, bench.Options{Rounds: f.rounds, Budget: f.budget, Progress: func(int) { step(1) }})
	con.clearProgress()
	if err != nil {
		return nil, err
	}
	for i, t := range timings {
		row := &r.Models[i]
		row.Median, row.Min, row.P10, row.P90, row.Rounds = ms(t.Median), ms(t.Min), ms(t.P10), ms(t.P90), t.Rounds
		row.PerSecond = float64(r.Items) / t.Median.Seconds()
		row.Speedup = timings[0].Median.Seconds() / t.Median.Seconds()
	}
	r.PeakRSS = cosetq.PeakRSS()
	return r, nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// inputs reads the first sample of the data for a model.
func (f *benchFlags) inputs(m *opened) (map[string]*tensor.Tensor, error) {
	reader, err := calib.Open(f.data, m.inputs, calib.Options{Limit: 1, Seed: f.seed})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	s, err := reader.Sample(0)
	if err != nil {
		return nil, err
	}
	return s.Inputs, nil
}

// items counts what a run handles: tokens where the first input is a matrix of integers, else samples.
func items(m *opened, inputs map[string]*tensor.Tensor) int64 {
	t := inputs[m.inputs[0].Name]
	switch {
	case t.Type.Integer() && len(t.Shape) == 2:
		return t.Shape[0] * t.Shape[1]
	case len(t.Shape) > 0:
		return t.Shape[0]
	}
	return 1
}

// exportPeer writes the MatMulNBits form of a float model.
func exportPeer(input, output string, block int) error {
	m, err := cosetq.OpenModel(input)
	if err != nil {
		return err
	}
	defer m.Close()
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		return err
	}
	if _, err := rewrite.ExportNBits(m, sites, rewrite.NBitsOptions{Block: block}); err != nil {
		return usage(err, "--peer needs a float model as the first one")
	}
	_, err = m.Save(output, onnx.SaveOptions{})
	return err
}

func printBench(con *console, r *benchReport) error {
	fmt.Fprintf(con.out, "%s, %d threads, ONNX Runtime %s, %d items per run\n", r.Data, r.Threads, r.Runtime, r.Items)
	t := con.table()
	fmt.Fprintln(t, "model\tmedian ms\t10 % – 90 %\titems/s\tspeed\tload s\tnative layers")
	for _, m := range r.Models {
		fmt.Fprintf(t, "%s\t%.3f\t%.3f – %.3f\t%.1f\t%.2f×\t%.2f\t%d\n", m.Name, m.Median, m.P10, m.P90, m.PerSecond, m.Speedup, m.LoadSeconds, m.NativeLayers)
	}
	return t.Flush()
}
