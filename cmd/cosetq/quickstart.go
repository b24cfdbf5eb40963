package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/eval"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/ort"
)

// quickstartRow is one line of the table that quickstart ends in.
type quickstartRow struct {
	Name          string  `json:"name"`
	Path          string  `json:"path"`
	Library       bool    `json:"native_library"`
	Bytes         int64   `json:"bytes"`
	BitsPerWeight float64 `json:"bits_per_weight"`
	Top1          float64 `json:"top1"`
	Correct       int     `json:"correct"`
	Count         int     `json:"count"`
	Seconds       float64 `json:"seconds"`
}

func newQuickstart(con *console) *cobra.Command {
	var (
		dir   string
		force bool
	)
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "Quantize and evaluate an embedded model, end to end",
		Long: `quickstart writes a small digits classifier and its test images, quantizes it to
4, 3 and 2 bits, and evaluates float against quantized, with the native library
and without. It needs no network and no files. Run again, it keeps what it finds
of its own and goes on where it was stopped. --force replaces quantized models
that it did not write; another model, recipe or images under the names of its
own are never replaced.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows, err := quickstart(cmd.Context(), con, dir, force)
			if err != nil {
				return quickstartError(cmd.Context(), err, dir, force)
			}
			if con.json {
				return con.printJSON(map[string]any{"schema": "cosetq/v1/quickstart", "folder": dir, "rows": rows})
			}
			t := con.table()
			fmt.Fprintln(t, "model\truns on\tsize\tbits/weight\ttop-1\tcorrect\tseconds")
			for _, r := range rows {
				on := "ONNX Runtime alone"
				if r.Library {
					on = "with native library"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f %%\t%d / %d\t%.3f\n", r.Name, on, cosetq.Size(r.Bytes), r.BitsPerWeight, 100*r.Top1, r.Correct, r.Count, r.Seconds)
			}
			if err := t.Flush(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(con.out, "\nEverything is in %s; try:\n  cosetq inspect %s --layers\n", dir, filepath.Join(dir, "digits.onnx"))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "quickstart", "folder for the models and data")
	cmd.Flags().BoolVar(&force, "force", false, "replace quantized models that an earlier version, or somebody else, wrote there")
	return cmd
}

// quickstart quantizes the embedded model at every preset and evaluates all of them, with the library and without.
func quickstart(ctx context.Context, con *console, dir string, force bool) ([]quickstartRow, error) {
	lib, err := cudaops.FindLibrary("")
	if err != nil {
		return nil, failure(cosetq.Unavailable, err, "run `cosetq doctor` to see what is missing")
	}
	if _, err := ort.Open(ort.Options{}); err != nil {
		return nil, err
	}
	files, err := models.WriteQuickstart(dir)
	switch kind, _ := cosetq.Classify(err); {
	case err == nil:
	case kind == cosetq.Resources:
		return nil, err
	default:
		return nil, usage(err, "choose another folder with --dir")
	}
	info, err := os.Stat(files.Model)
	if err != nil {
		return nil, err
	}
	rows := []quickstartRow{{Name: "float32", Path: files.Model, Bytes: info.Size(), BitsPerWeight: 32}}
	for _, bits := range []int{4, 3, 2} {
		out := filepath.Join(dir, fmt.Sprintf("digits.q%d.onnx", bits))
		r, err := quantizeOnce(ctx, con, files.Model, out, bits, force)
		if err != nil {
			return nil, err
		}
		for _, library := range []bool{true, false} {
			rows = append(rows, quickstartRow{Name: fmt.Sprintf("%d bits", bits), Path: out, Library: library, Bytes: r.Bytes, BitsPerWeight: r.BitsPerWeight})
		}
	}
	for i := range rows {
		if err := rows[i].evaluate(ctx, files.Data, lib); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// quickstartError says how to go on after a signal, or on a full disk: the hints of the commands whose work quickstart does name
// flags that it lacks.
func quickstartError(ctx context.Context, err error, dir string, force bool) error {
	again := "run the same command again, which goes on"
	if force {
		again = "run the same command again"
	}
	kind, _ := cosetq.Classify(err)
	switch {
	case ctx.Err() != nil:
		return failure(cosetq.Interrupted, err, "what was done is kept in %s: %s", dir, again)
	case kind == cosetq.Resources:
		return failure(kind, err, "free some disk space or memory and %s; or choose another folder with --dir", again)
	}
	return err
}

// quantizeOnce quantizes the model to out, and goes on where an earlier run was stopped. What is there stays, unless force says to
// replace it: the same files are kept, and others an error.
func quantizeOnce(ctx context.Context, con *console, model, out string, bits int, force bool) (*cosetq.QuantizeReport, error) {
	o := cosetq.QuantizeOptions{Output: out, Bits: bits, Overwrite: force, Resume: !force, Progress: con.follow()}
	defer con.clearProgress()
	_, outErr := os.Lstat(out)
	_, journalErr := os.Lstat(out + cosetq.JournalEnding)
	if outErr != nil || journalErr == nil || force {
		return cosetq.Quantize(ctx, model, o)
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), ".again-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.Output = filepath.Join(dir, filepath.Base(out))
	r, err := cosetq.Quantize(ctx, model, o)
	if err != nil {
		return nil, err
	}
	for _, f := range r.Files {
		made, err := os.ReadFile(f.Path)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(filepath.Dir(out), filepath.Base(f.Path))
		if there, err := os.ReadFile(path); err != nil || !bytes.Equal(made, there) {
			return nil, usage(fmt.Errorf("%s is not what this version of quickstart writes there", path), "--force replaces it; or choose another folder with --dir")
		}
	}
	return r, nil
}

// evaluate fills in accuracy and time.
func (r *quickstartRow) evaluate(ctx context.Context, data, lib string) error {
	o := ort.SessionOptions{}
	if r.Library {
		o.OpsLibrary = lib
	}
	report, err := cosetq.Evaluate(ctx, eval.TaskClassification, data, []string{r.Path}, cosetq.EvaluateOptions{Batch: 64, Session: o})
	if err != nil {
		return err
	}
	c, ok := report.Models[0].Metrics.(eval.Classification)
	if !ok {
		return errors.New("the classification task gave other metrics")
	}
	r.Top1, r.Correct, r.Count, r.Seconds = c.Top1, c.Correct, c.Count, report.Models[0].Seconds
	return nil
}
