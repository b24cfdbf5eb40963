package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

func newRun(con *console) *cobra.Command {
	var (
		run    runFlags
		data   string
		sample int
		output string
		force  bool
		seed   uint64
	)
	cmd := &cobra.Command{
		Use:   "run MODEL --data RECIPE",
		Short: "Run a model on one sample and show or save its outputs",
		Example: `  cosetq run model.q.onnx --data recipe.yaml --sample 3 -o outputs.npz
  cosetq run model.q.onnx --data random:1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" {
				return usage(errors.New("--data is missing"), "give a data recipe, or random:1 for made-up inputs")
			}
			if output != "" {
				if _, err := cosetq.OutputPath(output, args[0], "", force); err != nil {
					return err
				}
			}
			options, err := run.options(con)
			if err != nil {
				return err
			}
			m, err := openSession(args[0], options)
			if err != nil {
				return err
			}
			defer m.session.Close()
			reader, err := calib.Open(data, m.inputs, calib.Options{Seed: seed})
			if err != nil {
				return err
			}
			defer reader.Close()
			if sample < 0 || sample >= reader.Len() {
				return usage(fmt.Errorf("--sample %d: the data has samples 0 to %d", sample, reader.Len()-1), "choose one of them")
			}
			s, err := reader.Sample(sample)
			if err != nil {
				return err
			}
			outputs, err := m.session.Run(cmd.Context(), s.Inputs)
			if err != nil {
				return err
			}
			if output != "" {
				if err := saveOutputs(output, m.outputs, outputs); err != nil {
					return err
				}
			}
			return printOutputs(con, m, sample, outputs, output)
		},
	}
	run.add(cmd)
	cmd.Flags().StringVar(&data, "data", "", "data recipe, or random:N")
	cmd.Flags().IntVar(&sample, "sample", 0, "number of the sample")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the outputs to this .npz file")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file of -o")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of random data")
	return cmd
}

// outputReport describes one output value.
type outputReport struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"`
	Shape []int64   `json:"shape"`
	Min   *float64  `json:"min,omitempty"`
	Max   *float64  `json:"max,omitempty"`
	Mean  *float64  `json:"mean,omitempty"`
	First []float64 `json:"first,omitempty"`
}

func describe(spec tensor.Spec, t *tensor.Tensor) (outputReport, error) {
	r := outputReport{Name: spec.Name, Type: t.Type.String(), Shape: t.Shape}
	n := t.Count()
	if n == 0 {
		return r, nil
	}
	values := make([]float64, n)
	if err := t.Floats(values, 0, n); err != nil {
		return r, err
	}
	lo, hi, sum := values[0], values[0], 0.0
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
		sum += v
	}
	mean := sum / float64(n)
	if lo-lo == 0 && hi-hi == 0 && mean-mean == 0 { // JSON has no NaN and no infinity
		r.Min, r.Max, r.Mean, r.First = &lo, &hi, &mean, values[:min(n, 8)]
	}
	return r, nil
}

func printOutputs(con *console, m *opened, sample int, outputs map[string]*tensor.Tensor, file string) error {
	var reports []outputReport
	for _, spec := range m.outputs {
		r, err := describe(spec, outputs[spec.Name])
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	if con.json {
		return con.printJSON(map[string]any{"schema": "cosetq/v1/run", "path": m.path, "sample": sample, "outputs": reports, "file": file, "peak_rss_bytes": cosetq.PeakRSS()})
	}
	for _, r := range reports {
		fmt.Fprintf(con.out, "%s %s%s", r.Name, r.Type, tensor.FormatShape(r.Shape))
		if r.Min != nil {
			fmt.Fprintf(con.out, "   min %.6g   max %.6g   mean %.6g\n  %s", *r.Min, *r.Max, *r.Mean, numbers(r.First))
		}
		fmt.Fprintln(con.out)
	}
	if file != "" {
		con.logf("wrote %s", file)
	}
	return nil
}

func numbers(v []float64) string {
	var parts []string
	for _, x := range v {
		parts = append(parts, fmt.Sprintf("%.6g", x))
	}
	return strings.Join(parts, "  ") + " …"
}

// saveOutputs writes the outputs as a .npz archive under a temporary name and renames it.
func saveOutputs(path string, specs []tensor.Spec, outputs map[string]*tensor.Tensor) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return usage(err, "choose another -o")
	}
	defer func() {
		_ = tmp.Close()
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	w := zip.NewWriter(tmp)
	for _, spec := range specs {
		entry, err := w.Create(spec.Name + ".npy")
		if err == nil {
			err = writeNPY(entry, outputs[spec.Name])
		}
		if err != nil {
			return fmt.Errorf("output %q: %w", spec.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// npyTypes are the element types that NumPy's format can hold.
var npyTypes = map[tensor.Type]string{
	tensor.Float32: "<f4", tensor.Float64: "<f8", tensor.Float16Type: "<f2", tensor.Int8: "|i1", tensor.Int16: "<i2", tensor.Int32: "<i4",
	tensor.Int64: "<i8", tensor.Uint8: "|u1", tensor.Uint16: "<u2", tensor.Uint32: "<u4", tensor.Uint64: "<u8", tensor.Bool: "|b1",
}

// writeNPY writes a tensor in NumPy's format, version 1.0.
func writeNPY(w io.Writer, t *tensor.Tensor) error {
	descr, ok := npyTypes[t.Type]
	if !ok {
		return fmt.Errorf("NumPy files hold no %s", t.Type)
	}
	var dims strings.Builder
	for _, d := range t.Shape {
		fmt.Fprintf(&dims, "%d,", d)
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, dims.String())
	header += strings.Repeat(" ", 63-(len(header)+10)%64) + "\n"
	start := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	for _, part := range [][]byte{start, []byte(header), t.Data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
