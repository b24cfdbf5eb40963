package cosetq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/cosetq/cosetq/bench"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

// BenchOptions say how to time models.
type BenchOptions struct {
	Data   string        // a recipe, of which the first sample is taken, or random:1 with sizes of dynamic dimensions
	Peers  []string      // also time these forms of the first model: fp16, matmulnbits
	Block  int           // block size of matmulnbits; 0 means 32
	Rounds int           // runs of each model; 0 means 30
	Budget time.Duration // time after which no further runs start; 0 means 20 s
	Seed   uint64        // of random data
	// Concurrency, unless 0, puts each model under load in turn instead: that many goroutines run it at once, for Budget.
	Concurrency int

	Session  ort.SessionOptions
	Progress Progress // may be nil
}

// BenchRow is one model of [BenchReport]. Times are milliseconds of one run; under load they are in [LoadRow] instead.
type BenchRow struct {
	Name         string         `json:"name"`
	Path         string         `json:"path,omitempty"` // empty for peers, which are made and removed
	Bytes        int64          `json:"bytes"`          // on disk
	Median       float64        `json:"median_ms,omitempty"`
	P95          float64        `json:"p95_ms,omitempty"`
	Min          float64        `json:"min_ms,omitempty"`
	P10          float64        `json:"p10_ms,omitempty"`
	P90          float64        `json:"p90_ms,omitempty"`
	Rounds       int            `json:"rounds,omitempty"`
	PerSecond    float64        `json:"items_per_second,omitempty"`
	Speed        float64        `json:"speedup_over_first,omitempty"` // below 1 is slower
	LoadSeconds  float64        `json:"load_seconds"`
	Memory       int64          `json:"memory_bytes"` // by which the process grew in loading and first running it; 0 where unknown
	NativeLayers int            `json:"native_layers"`
	Placement    map[string]int `json:"placement"`             // nodes by operator
	Providers    map[string]int `json:"providers"`             // nodes by execution provider
	LeftToCPU    map[string]int `json:"left_to_cpu,omitempty"` // nodes that the GPU does not run, by operator and reason
}

// BenchReport is the outcome of [Bench].
type BenchReport struct {
	Schema  string     `json:"schema"`
	Data    string     `json:"data"`
	Items   int64      `json:"items_per_run"`
	Unit    string     `json:"unit"` // of the items: tokens or samples
	Threads int        `json:"threads"`
	Device  string     `json:"device"` // cpu, or the name of the GPU
	Runtime string     `json:"onnxruntime"`
	Version string     `json:"cosetq"`
	Models  []BenchRow `json:"models"`
	Load    []LoadRow  `json:"load,omitempty"` // of Concurrency, in the place of timings
	PeakRSS int64      `json:"peak_rss_bytes"`
}

// check refuses options that make no sense.
func (o *BenchOptions) check() error {
	switch {
	case o.Concurrency < 0 || o.Concurrency > maxThreads:
		return usage(fmt.Errorf("--concurrency %d is not between 0 and %d", o.Concurrency, maxThreads), "0 times the models without other callers")
	case o.Rounds < 0:
		return usage(fmt.Errorf("--runs %d is negative", o.Rounds), "30 are usual")
	case o.Budget < 0:
		return usage(fmt.Errorf("--budget %v is negative", o.Budget), "20s are usual")
	}
	if o.Session.Provider != "" && slices.Contains(o.Peers, string(rewrite.MatMulNBits)) {
		return usage(errors.New("--peer matmulnbits and --device cuda are both given: our provider has no MatMulNBits, so the peer's products would run on the CPU"),
			"leave --device out to compare on the CPU, or compare with --peer fp16 on the GPU")
	}
	return checkThreads(o.Session.Threads)
}

// Bench runs models in turn on the same inputs, so that whatever slows the machine down slows all of them.
func Bench(ctx context.Context, paths []string, o BenchOptions) (*BenchReport, error) {
	if len(paths) == 0 {
		return nil, usage(errors.New("no model is given"), "name one or more")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Budget == 0 {
		o.Budget = 20 * time.Second
	}
	rt, err := ort.Open(ort.Options{})
	if err != nil {
		return nil, err
	}
	r := &BenchReport{Schema: "cosetq/v1/bench", Data: o.Data, Threads: o.Session.Threads, Runtime: rt.Version(), Version: Version()}
	if r.Threads == 0 {
		r.Threads = goruntime.NumCPU()
	}
	if r.Device, err = deviceName(o.Session); err != nil {
		return nil, err
	}
	for _, p := range paths {
		r.Models = append(r.Models, BenchRow{Name: p, Path: p})
	}
	dir, err := tempDir("cosetq-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files, err := r.exportPeers(ctx, paths, dir, o)
	if err != nil {
		return nil, err
	}
	if err := warmUp(ctx, rt, o.Session); err != nil {
		return nil, err
	}
	var models []bench.Model
	var loaded []*Loaded
	defer func() { closeAll(loaded) }()
	for i, p := range files {
		l, inputs, err := r.load(ctx, i, p, o)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, l)
		models = append(models, bench.Model{Name: r.Models[i].Name, Runner: l.Session, Inputs: inputs})
	}
	for i, p := range files {
		if err := r.Models[i].place(ctx, rt, p, o.Session, models[i].Inputs); err != nil {
			return nil, err
		}
	}
	if o.Concurrency > 0 {
		if err := r.underLoad(ctx, models, o); err != nil {
			return nil, err
		}
		r.PeakRSS = PeakRSS()
		return r, nil
	}
	if err := r.inTurn(ctx, models, o); err != nil {
		return nil, err
	}
	r.PeakRSS = PeakRSS()
	return r, nil
}

// inTurn times the models, one run of each after the other.
func (r *BenchReport) inTurn(ctx context.Context, models []bench.Model, o BenchOptions) error {
	step := o.Progress.stage("timing", int64(max(o.Rounds, 1)))
	timing := bench.Options{Rounds: o.Rounds, Budget: o.Budget, Progress: func(int) { step(1) }}
	if r.Threads > 1 && o.Session.Provider == "" {
		timing.Pause = ort.SpinTime
	}
	timings, err := bench.Run(ctx, models, timing)
	if err != nil {
		return err
	}
	for i, t := range timings {
		row := &r.Models[i]
		row.Median, row.P95, row.Min, row.P10, row.P90, row.Rounds = ms(t.Median), ms(t.P95), ms(t.Min), ms(t.P10), ms(t.P90), t.Rounds
		row.PerSecond = float64(r.Items) / t.Median.Seconds()
		row.Speed = timings[0].Median.Seconds() / t.Median.Seconds()
	}
	return nil
}

// exportPeers writes the peers into dir, and returns the files of all models.
func (r *BenchReport) exportPeers(ctx context.Context, paths []string, dir string, o BenchOptions) ([]string, error) {
	files := slices.Clone(paths)
	for _, peer := range o.Peers {
		if err := oneOf("peer", peer, string(rewrite.FP16), string(rewrite.MatMulNBits)); err != nil {
			return nil, err
		}
		name, path := peer, filepath.Join(dir, peer+".onnx")
		if peer == string(rewrite.MatMulNBits) {
			name = fmt.Sprintf("MatMulNBits int4 block %d", cmp.Or(o.Block, 32))
		}
		if _, err := Export(ctx, paths[0], ExportOptions{Output: path, Format: rewrite.Format(peer), NBits: rewrite.NBitsOptions{Block: o.Block}}); err != nil {
			return nil, fmt.Errorf("--peer %s: %w", peer, err)
		}
		files = append(files, path)
		r.Models = append(r.Models, BenchRow{Name: name})
	}
	return files, nil
}

// same is how far from 1 a ratio of medians must be to say that one model is faster.
const same = 0.03

// Against says in words how fast model i is compared with the first one.
func (r *BenchReport) Against(i int) string {
	speed := r.Models[i].Speed
	switch {
	case i == 0:
		return "-"
	case speed < 1-same:
		return fmt.Sprintf("%.2f× slower", 1/speed)
	case speed > 1+same:
		return fmt.Sprintf("%.2f× faster", speed)
	}
	return "the same"
}

// deviceName is what a session with these options runs on.
func deviceName(o ort.SessionOptions) (string, error) {
	if o.Provider == "" {
		return "cpu", nil
	}
	p, err := ort.OpenProvider(o.Provider)
	if err != nil {
		return "", err
	}
	return p.Device()
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// warmUp runs one product of two numbers, so that what ONNX Runtime takes once in a process is not counted as the first model's.
func warmUp(ctx context.Context, rt *ort.Runtime, o ort.SessionOptions) error {
	m := onnx.NewModel(8, 13, "warm-up")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x", onnx.Float, 1, 1)}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("y", onnx.Float, 1, 1)}
	m.Graph.Nodes = []*onnx.Node{onnx.NewNode("MatMul", []string{"x", "x"}, []string{"y"})}
	encoded, err := m.Marshal()
	if err != nil {
		return err
	}
	s, err := rt.NewSessionFromBytes(encoded, "", o)
	if err != nil {
		return err
	}
	_, err = s.Run(ctx, map[string]*tensor.Tensor{"x": tensor.Of([]float32{1}, 1, 1)})
	return errors.Join(err, s.Close())
}

// load loads model i, runs it once, and fills in its row.
func (r *BenchReport) load(ctx context.Context, i int, path string, o BenchOptions) (*Loaded, map[string]*tensor.Tensor, error) {
	row := &r.Models[i]
	m, err := OpenModel(path)
	if err != nil {
		return nil, nil, err
	}
	row.Bytes, err = modelBytes(m)
	if err := errors.Join(err, m.Close()); err != nil {
		return nil, nil, err
	}
	before, start := residentBytes(), time.Now()
	l, err := Load(path, o.Session)
	if err != nil {
		return nil, nil, err
	}
	row.LoadSeconds = time.Since(start).Seconds()
	inputs, err := firstSample(l, o.Data, o.Seed)
	if err == nil {
		r.Items, r.Unit = items(l, inputs)
		_, err = l.Session.Run(ctx, inputs)
	}
	row.Memory = max(residentBytes()-before, 0)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, inputs, nil
}

// place fills in where the nodes of the model ran. Its session comes and goes after all models were loaded, so that what it
// leaves behind does not hide what they take.
func (row *BenchRow) place(ctx context.Context, rt *ort.Runtime, path string, o ort.SessionOptions, inputs map[string]*tensor.Tensor) error {
	nodes, err := rt.Placement(ctx, path, o, inputs)
	if err != nil {
		return err
	}
	row.Placement, row.Providers = map[string]int{}, map[string]int{}
	for _, n := range nodes {
		row.Placement[n.Op]++
		row.Providers[n.Provider]++
		if n.Op == cudaops.OpName {
			row.NativeLayers++
		}
		if n.Reason != "" {
			if row.LeftToCPU == nil {
				row.LeftToCPU = map[string]int{}
			}
			row.LeftToCPU[n.Op+": "+n.Reason]++
		}
	}
	return nil
}

// firstSample reads the first sample of the data for a model.
func firstSample(l *Loaded, data string, seed uint64) (map[string]*tensor.Tensor, error) {
	reader, err := openSamples(data, l.Inputs, calib.Options{Limit: 1, Seed: seed})
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
func items(l *Loaded, inputs map[string]*tensor.Tensor) (count int64, unit string) {
	var t *tensor.Tensor // nil for a model without inputs
	if len(l.Inputs) > 0 {
		t = inputs[l.Inputs[0].Name]
	}
	switch {
	case t == nil:
	case t.Type.Integer() && len(t.Shape) == 2:
		return t.Shape[0] * t.Shape[1], "tokens"
	case len(t.Shape) > 0:
		return t.Shape[0], "samples"
	}
	return 1, "samples"
}
