package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// nodeReport is one line of the inspect report.
type nodeReport struct {
	Node        string `json:"node"`
	Op          string `json:"op"`
	Initializer string `json:"initializer"`
	K           int    `json:"k"`
	N           int    `json:"n"`
	DType       string `json:"dtype"`
	Status      string `json:"status"`
	Reason      string `json:"reason,omitempty"`
	Detail      string `json:"detail,omitempty"`
}

type inspectReport struct {
	Schema    string       `json:"schema"`
	Path      string       `json:"path"`
	IRVersion int64        `json:"ir_version"`
	Opset     int64        `json:"opset"`
	Bytes     int64        `json:"bytes"`
	Inputs    []string     `json:"inputs"`
	Outputs   []string     `json:"outputs"`
	Weights   int64        `json:"weights"`
	Coverage  float64      `json:"coverage"`
	Nodes     []nodeReport `json:"nodes"`
}

func newInspect(con *console) *cobra.Command {
	var (
		opts   rewrite.Options
		layers bool
	)
	cmd := &cobra.Command{
		Use:   "inspect MODEL|STATISTICS",
		Short: "Show what is in a model and what can be quantized, or what is in a statistics file",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if calib.IsStatisticsFile(args[0]) {
				return inspectStatistics(con, args[0], layers)
			}
			m, err := openModel(args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			r, err := inspect(m, opts)
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			return printInspect(con, r, layers)
		},
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "list every MatMul and Gemm, or every activation observed")
	addPatterns(cmd, &opts)
	return cmd
}

// addPatterns adds the flags that select sites.
func addPatterns(cmd *cobra.Command, opts *rewrite.Options) {
	cmd.Flags().StringArrayVar(&opts.Include, "include", nil, "quantize only what matches: a glob on node or initializer names, or re:, op:, init:, index:, shape:KxN")
	cmd.Flags().StringArrayVar(&opts.Exclude, "exclude", nil, "leave out what matches")
}

func inspect(m *onnx.Model, opts rewrite.Options) (*inspectReport, error) {
	sites, err := rewrite.FindSites(m, opts)
	if err != nil {
		return nil, err
	}
	r := &inspectReport{Schema: "cosetq/v1/inspect", Path: m.Path(), IRVersion: m.IRVersion, Nodes: []nodeReport{}}
	r.Opset, _ = m.Opset("")
	if r.Bytes, err = modelBytes(m); err != nil {
		return nil, err
	}
	inputs, outputs, err := signature(m.Path())
	if err != nil {
		return nil, err
	}
	for _, s := range inputs {
		r.Inputs = append(r.Inputs, s.String())
	}
	for _, s := range outputs {
		r.Outputs = append(r.Outputs, s.String())
	}
	for i := range sites {
		s := &sites[i]
		r.Nodes = append(r.Nodes, nodeReport{Node: s.Name, Op: s.Op, Initializer: s.Initializer, K: s.K, N: s.N,
			DType: s.DType.String(), Status: string(s.Status), Reason: string(s.Reason), Detail: s.Detail})
	}
	r.Weights, r.Coverage = rewrite.Coverage(sites)
	return r, nil
}

func printInspect(con *console, r *inspectReport, layers bool) error {
	fmt.Fprintf(con.out, "%s   opset %d   IR %d   %s\n", r.Path, r.Opset, r.IRVersion, megabytes(r.Bytes))
	fmt.Fprintf(con.out, "inputs   %s\noutputs  %s\n", strings.Join(r.Inputs, ", "), strings.Join(r.Outputs, ", "))
	count := map[string]int{}
	reasons := map[string]int{}
	for _, n := range r.Nodes {
		count[n.Status]++
		if n.Reason != "" {
			reasons[n.Reason]++
		}
	}
	fmt.Fprintf(con.out, "MatMul and Gemm: %d nodes, %d quantizable (%.1f %% of their %d constant weights)", len(r.Nodes), count["candidate"], 100*r.Coverage, r.Weights)
	if n := count["quantized"]; n > 0 {
		fmt.Fprintf(con.out, ", %d quantized already", n)
	}
	fmt.Fprintln(con.out)
	printReasons(con, reasons)
	if layers {
		t := con.table()
		fmt.Fprintln(t, "node\top\tK×N\tdtype\tinitializer\tstatus")
		for _, n := range r.Nodes {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Node, n.Op, shape(n.K, n.N), n.DType, n.Initializer, statusText(n.Status, n.Reason, n.Detail))
		}
		return t.Flush()
	}
	return nil
}

// reasonTexts says in words what a reason code means.
var reasonTexts = map[string]string{
	string(rewrite.DynamicB):        "no constant side",
	string(rewrite.Rank):            "the constant is not a matrix",
	string(rewrite.TooSmall):        "too small to gain from coding",
	string(rewrite.Excluded):        "excluded by a pattern",
	string(rewrite.FusedOp):         "fused operator of another tool; export the model without fusions",
	string(rewrite.DType):           "activations are neither float32 nor float16",
	string(rewrite.SharedWithFloat): "another node needs the float weight",
	string(rewrite.UnsupportedAttr): "a form that is not rewritten",
	reasonNonFinite:                 "the weight holds NaN or infinity",
}

func printReasons(con *console, reasons map[string]int) {
	for _, code := range sortedKeys(reasons) {
		fmt.Fprintf(con.out, "  skipped %4d  %-18s %s\n", reasons[code], code, reasonTexts[code])
	}
}

func statusText(status, reason, detail string) string {
	if reason == "" {
		return status
	}
	if detail == "" {
		return status + ": " + reason
	}
	return status + ": " + reason + " (" + detail + ")"
}

func shape(k, n int) string {
	if k == 0 || n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d×%d", k, n)
}
