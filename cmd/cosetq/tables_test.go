package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/eval"
)

// Tables of ordinary models fit a terminal of 80 columns, and what their names lose leaves them different.
func TestTablesFit(t *testing.T) {
	models := []string{"exported/models/meta-llama-3.1-8b-instruct.fp32/model.onnx", "exported/models/meta-llama-3.1-8b-instruct.int4/model.onnx", "fp16", "MatMulNBits int4 block 32"}
	bench := &cosetq.BenchReport{Data: "random:1,batch=1,seq=256", Items: 256, Unit: "tokens", Device: "cpu", Threads: 16, Runtime: "1.30.0", Version: "v1.0.0"}
	load := *bench
	judged := map[string]*eval.Report{"classification": {}, "perplexity": {}, "agreement": {}}
	for _, name := range models {
		bench.Models = append(bench.Models, cosetq.BenchRow{Name: name, Median: 1234.567, P95: 2345.678, PerSecond: 1234.5, Bytes: 32.12e9, Memory: 32.34e9,
			NativeLayers: 225, Providers: map[string]int{"CPUExecutionProvider": 1024}})
		load.Load = append(load.Load, cosetq.LoadRow{Name: name, Callers: 16, Runs: 123456, Seconds: 3600, PerSecond: 1234.5, Median: 123.456, P95: 1234.567, P99: 2345.678, Slowest: 3456.7,
			Different: 123456, MemoryWarm: 123.45e9, MemoryEnd: 123.45e9, MemoryPeak: 123.45e9})
		for task, metrics := range map[string]any{
			"classification": eval.Classification{Top1: 0.98765, Correct: 49382, Count: 50000},
			"perplexity":     eval.Perplexity{Perplexity: 123.4567, BitsPerToken: 6.9476, Tokens: 1234567},
			"agreement":      eval.Agreement{Top1: 1, KL: 1.23e-12, Cosine: 0.999999, SQNR: 123.4, MaxAbsErr: 1.23e-11},
		} {
			judged[task].Models = append(judged[task].Models, eval.Result{Path: name, Metrics: metrics, Seconds: 12345.67})
		}
	}
	compared := &cosetq.CompareReport{Samples: 128, Output: eval.Agreement{SQNR: 27.5, Cosine: 0.99, Top1: 1, KL: 1.23e-12}}
	for _, node := range []string{"/model/layers.17/self_attn/q_proj/MatMul", "/model/layers.17/self_attn/k_proj/MatMul", "/lm_head/MatMul"} {
		compared.Layers = append(compared.Layers, cosetq.ComparedLayer{Node: node, K: 4096, N: 128256, Local: 27.3, LocalCosine: 0.99, SQNR: 26.1, Cosine: 0.99, MaxAbsErr: 1.23e-05})
		compared.Trials = append(compared.Trials, cosetq.LayerTrial{Node: node, Exclude: "index:1", Bytes: 2.1e9, SQNR: 27.5, Gain: 10.5,
			Finer: &cosetq.FinerTrial{Layer: "index:1=4", Bytes: 529.8e3, SQNR: 28.1, Gain: 10.6}})
	}
	for what, print := range map[string]func(*console) error{
		"bench": func(con *console) error { return printBench(con, bench) }, "bench --concurrency": func(con *console) error { return printBench(con, &load) },
		"compare":        func(con *console) error { return printCompare(con, compared, true) },
		"classification": func(con *console) error { return printEval(con, judged["classification"]) },
		"perplexity":     func(con *console) error { return printEval(con, judged["perplexity"]) },
		"agreement":      func(con *console) error { return printEval(con, judged["agreement"]) },
	} {
		var out bytes.Buffer
		if err := print(&console{out: &out, err: &out}); err != nil {
			t.Fatal(err)
		}
		rows := map[string]int{}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > terminalWidth && !strings.Contains(line, "nodes of ") && !strings.Contains(line, "ONNX Runtime ") {
				t.Errorf("%s: %d columns: %s", what, n, line)
			}
			if name, _, _ := strings.Cut(line, "  "); strings.Contains(name, "…") {
				rows[name]++
			}
		}
		if len(rows) == 0 {
			t.Errorf("%s: no name is cut: the test shows nothing", what)
		}
		for name, n := range rows {
			if n > 2 { // of two tables
				t.Errorf("%s: %d lines are of %s", what, n, name)
			}
		}
	}
}

// Where nothing is lost compare blames nothing, and where more bits help nowhere it has no columns for them.
func TestCompareOfEqualOutputs(t *testing.T) {
	inf := eval.Decibels(math.Inf(1))
	r := &cosetq.CompareReport{Output: eval.Agreement{SQNR: inf}, Layers: []cosetq.ComparedLayer{{Node: "fc", Local: inf, SQNR: inf}},
		Trials: []cosetq.LayerTrial{{Node: "fc", Exclude: "fc", SQNR: inf}}}
	var out bytes.Buffer
	if err := printCompare(&console{out: &out, err: &out}, r, true); err != nil {
		t.Fatal(err)
	}
	few := &bytes.Buffer{}
	r.Trials[0].Gain, r.Trials[0].SQNR, r.Output.SQNR = 0.01, 20.01, 20
	if err := printCompare(&console{out: few, err: few}, r, true); err != nil || strings.Contains(few.String(), "suggest: --exclude") {
		t.Errorf("a gain of 0.01 dB is suggested: %v\n%s", err, few)
	}
	if !strings.Contains(out.String(), "nothing is lost") || strings.Contains(out.String(), "bits") {
		t.Errorf("equal outputs:\n%s", &out)
	}
}

// Names are cut where they are alike, and however long they are the table is there.
func TestNamesStayApart(t *testing.T) {
	long := strings.Repeat("folder/", 9)
	for what, names := range map[string][]string{
		"middle": {long + "q3/" + long + "model.onnx", long + "q4/" + long + "model.onnx"}, "head": {"q3/" + long + "model.onnx", "q4/" + long + "model.onnx"},
		"tail": {long + "model.q3", long + "model.q4"}, "length": {long, long + long},
	} {
		var out bytes.Buffer
		table := (&console{out: &out}).namesTable()
		for _, name := range names {
			fmt.Fprintf(table, "%s\tx\n", name)
		}
		if err := table.flush(); err != nil {
			t.Fatal(err)
		}
		if rows := strings.Split(out.String(), "\n"); len(rows) != 3 || rows[0] == rows[1] {
			t.Errorf("%s: %q", what, rows)
		}
	}
	far := strings.Repeat("x", 5000)
	lines := [][]string{{far + "a" + far}, {far + "b" + far}}
	if names := shortNames(lines, 20); len(names) != 2 || len(names[0]) > 30 {
		t.Errorf("names that differ where no cut leaves it: %q", names)
	}
}
