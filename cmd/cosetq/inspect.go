package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/rewrite"
)

func newInspect(con *console) *cobra.Command {
	var (
		opts   rewrite.Options
		layers bool
	)
	cmd := &cobra.Command{
		Use:   "inspect MODEL|STATISTICS",
		Short: "Show what is in a model or statistics file, what can be quantized",
		Long: `inspect lists the MatMul, Gemm and 1×1 Conv nodes of a model, says of each
whether it can be quantized, and predicts the size with each preset. It reads no
weights.

Why a node is skipped:
` + reasonList() + `
Of a statistics file, which calibrate wrote, it shows what was observed.`,
		Example: `  cosetq inspect model.onnx
  cosetq inspect model.onnx --layers
  cosetq inspect calib.cqs --layers`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if calib.IsStatisticsFile(args[0]) {
				return inspectStatistics(con, args[0], layers)
			}
			r, err := cosetq.Inspect(args[0], opts)
			if err != nil {
				return err
			}
			if con.json {
				return con.printJSON(r)
			}
			return printInspect(con, r, layers)
		},
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "list every MatMul, Gemm and 1×1 Conv, or every activation observed")
	addPatterns(cmd, &opts)
	return cmd
}

// reasonList explains the reason codes.
func reasonList() string {
	var b strings.Builder
	for _, code := range cosetq.Reasons() {
		fmt.Fprintf(&b, "  %-18s %s\n", code, cosetq.ReasonText(code))
	}
	return b.String()
}

// addPatterns adds the flags that select sites.
func addPatterns(cmd *cobra.Command, opts *rewrite.Options) {
	cmd.Flags().BoolVar(&opts.Embedding, "embedding", false, "the tables of Gather nodes as well: embeddings; one that a MatMul shares is stored once")
	cmd.Flags().StringArrayVar(&opts.Include, "include", nil, "quantize only what matches: a glob on node or initializer names, or re:, op:, init:, index:, shape:KxN")
	cmd.Flags().StringArrayVar(&opts.Exclude, "exclude", nil, "leave out what matches")
}

func printInspect(con *console, r *cosetq.InspectReport, layers bool) error {
	fmt.Fprintf(con.out, "%s   opset %d   IR %d   %s\n", r.Path, r.Opset, r.IRVersion, cosetq.Size(r.Bytes))
	fmt.Fprintf(con.out, "inputs   %s\noutputs  %s\n", strings.Join(together(r.Inputs), ", "), strings.Join(together(r.Outputs), ", "))
	count := map[string]int{}
	reasons := map[string]int{}
	ops := map[string]bool{}
	for _, n := range r.Nodes {
		ops[n.Op] = true
		count[n.Status]++
		if n.Reason != "" {
			reasons[n.Reason]++
		}
	}
	fmt.Fprintf(con.out, "%s: %s, %d quantizable", operators(ops), counted(len(r.Nodes), "node"), count["candidate"])
	if n := count["quantized"]; n > 0 {
		fmt.Fprintf(con.out, ", %d quantized already", n)
	}
	fmt.Fprintf(con.out, " (%.1f %% of their %d constant weights)\n", 100*r.Coverage, r.Weights)
	printReasons(con, reasons)
	printOthers(con, r.Others)
	for _, e := range r.Estimates {
		change := fmt.Sprintf("%.1f × smaller", float64(r.Bytes)/float64(e.Bytes))
		if e.Bytes > r.Bytes {
			change = fmt.Sprintf("%.1f × larger", float64(e.Bytes)/float64(r.Bytes))
		}
		fmt.Fprintf(con.out, "--bits %d   %s, %s   %.2f bits per weight (%s)\n", e.Bits, cosetq.Size(e.Bytes), change, e.BitsPerWeight, e.Codec)
	}
	if r.Problem != "" {
		fmt.Fprintf(con.out, "cannot be quantized as it is: %s\n", r.Problem)
	}
	if layers {
		t := con.table()
		fmt.Fprintln(t, "node\top\tK×N\tdtype\tinitializer\tstatus")
		for rest := r.Nodes; len(rest) > 0; {
			n, count := rest[0], alike(rest)
			name := shorten(n.Node, longestName)
			if count > 1 {
				last := rest[count-1].Node
				name += " … " + last[strings.LastIndex(last, ".")+1:]
			}
			rest = rest[count:]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name, visible(n.Op, ""), shape(n.K, n.N), orDash(n.DType), shorten(orDash(n.Initializer), longestName), statusText(n.Status, n.Reason, n.Detail))
		}
		return t.Flush()
	}
	return nil
}

// alike counts the first nodes that are of one batch and differ by their names alone: a line for each expert would fill a screen.
func alike(nodes []cosetq.InspectedNode) int {
	count := 1
	for ; nodes[0].Batch != "" && count < len(nodes); count++ {
		n := nodes[count]
		if n.Node, n.Initializer = nodes[0].Node, nodes[0].Initializer; n != nodes[0] {
			break
		}
	}
	return count
}

var digits = regexp.MustCompile(`[0-9]+`)

// together makes one of three values or more that differ by the numbers in their names alone: the caches of a decoder's layers
// would fill a screen.
func together(values []string) []string {
	family := func(value string) string {
		name, shape, _ := strings.Cut(value, " ")
		return digits.ReplaceAllString(name, "#") + " " + shape
	}
	members := map[string][]string{}
	for _, v := range values {
		members[family(v)] = append(members[family(v)], v)
	}
	var list []string
	for _, v := range values {
		switch all := members[family(v)]; {
		case len(all) < 3:
			list = append(list, v)
		case v == all[0]:
			first, _, _ := strings.Cut(v, " ")
			list = append(list, fmt.Sprintf("%s … %s (%d of these)", first, all[len(all)-1], len(all)))
		}
	}
	return list
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// orDash is what a table shows of something that may be missing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// operators names those that weights are looked for in: the usual two, and others that there are.
func operators(present map[string]bool) string {
	names := []string{"MatMul", "Gemm"}
	if present["Conv"] {
		names = append(names, "1×1 Conv")
	}
	if present["Gather"] {
		names = append(names, "Gather")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

func printReasons(con *console, reasons map[string]int) {
	for _, code := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(con.out, "  skipped %4d  %-18s %s\n", reasons[code], code, cosetq.ReasonText(code))
	}
}

// printOthers says what else is large, when there is anything.
func printOthers(con *console, others []cosetq.OtherWeights) {
	if text := cosetq.OthersText(others); text != "" {
		fmt.Fprintf(con.out, "stay as they are: weights of %s\n", text)
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
