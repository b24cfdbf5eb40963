package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

type exportReport struct {
	Schema string       `json:"schema"`
	Input  string       `json:"input,omitempty"`
	Format string       `json:"format,omitempty"`
	Nodes  int          `json:"nodes,omitempty"`
	Files  []fileReport `json:"files"`
}

// exportFlags are the flags of export.
type exportFlags struct {
	output, format, opsDir string
	block, accuracy        int
	force                  bool
	patterns               rewrite.Options
}

func newExport(con *console) *cobra.Command {
	f := &exportFlags{}
	cmd := &cobra.Command{
		Use:   "export [MODEL] [-o OUTPUT --format FORMAT] [--ops-dir DIR]",
		Short: "Turn a quantized model into plain ONNX, or write out the native library",
		Long: `export writes a model that needs nothing of cosetq:
  fp32         plain float32 weights
  fp16         plain float16 weights, computed in the model's own type
  matmulnbits  com.microsoft MatMulNBits, int4 in blocks; also straight from a float model

--ops-dir writes the native library, its header and loading snippets for Python, C, C#, Node and Go.`,
		Example: `  cosetq export model.q.onnx -o plain.onnx --format fp32
  cosetq export --ops-dir ops`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && f.opsDir == "" {
				return usage(errors.New("neither a model nor --ops-dir is given"), "usage: %s", cmd.UseLine())
			}
			r := &exportReport{Schema: "cosetq/v1/export", Files: []fileReport{}}
			if f.opsDir != "" {
				files, err := writeOps(f.opsDir, f.force)
				if err != nil {
					return err
				}
				r.Files = append(r.Files, files...)
			}
			if len(args) == 1 {
				if err := f.model(cmd, con, r, args[0]); err != nil {
					return err
				}
			}
			if con.json {
				return con.printJSON(r)
			}
			for _, file := range r.Files {
				fmt.Fprintf(con.out, "wrote %s   %s\n", file.Path, megabytes(file.Bytes))
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.output, "output", "o", "", "file to write (default: the input's name ending in .FORMAT.onnx)")
	fs.StringVar(&f.format, "format", "fp32", "fp32, fp16 or matmulnbits")
	fs.StringVar(&f.opsDir, "ops-dir", "", "folder for the native library, its header and snippets")
	fs.IntVar(&f.block, "block", 32, "matmulnbits: columns that share a scale, a power of two from 16 to 256")
	fs.IntVar(&f.accuracy, "accuracy-level", 4, "matmulnbits: 4 computes with int8 activations (fast), 1 in float32")
	fs.BoolVar(&f.force, "force", false, "replace files that exist")
	addPatterns(cmd, &f.patterns)
	return cmd
}

// model exports one model.
func (f *exportFlags) model(cmd *cobra.Command, con *console, r *exportReport, input string) error {
	if err := oneOf("format", f.format, string(rewrite.FP32), string(rewrite.FP16), string(rewrite.MatMulNBits)); err != nil {
		return err
	}
	if f.block < 16 || f.block > 256 || f.block&(f.block-1) != 0 {
		return usage(fmt.Errorf("--block %d is no power of two from 16 to 256", f.block), "32 and 128 are usual")
	}
	m, err := openModel(input)
	if err != nil {
		return err
	}
	defer m.Close()
	output, err := outputPath(f.output, input, "."+f.format+".onnx", f.force)
	if err != nil {
		return err
	}
	if err := checkModel(m); err != nil {
		return err
	}
	nbits := rewrite.NBitsOptions{Block: f.block, AccuracyLevel: f.accuracy}
	linears, err := rewrite.ReadLinears(m)
	if err != nil {
		return withCode(exitModel, err, "the file is damaged or was written by a newer version")
	}
	var done *rewrite.ExportResult
	switch {
	case len(linears) > 0:
		done, err = rewrite.Export(m, rewrite.ExportOptions{Format: rewrite.Format(f.format), NBits: nbits})
	case f.format != string(rewrite.MatMulNBits):
		return withCode(exitNothing, fmt.Errorf("%s holds no quantized weights, so there is nothing to turn back into %s", input, f.format),
			"only --format matmulnbits takes a float model")
	default:
		var sites []rewrite.Site
		if sites, err = rewrite.FindSites(m, f.patterns); err == nil {
			done, err = rewrite.ExportNBits(m, sites, nbits)
		}
	}
	if err != nil {
		return err
	}
	saved, err := m.Save(output, onnx.SaveOptions{ExternalThreshold: pageSize, Overwrite: f.force, Context: cmd.Context()})
	if err != nil {
		return err
	}
	files, _ := fileReports(saved)
	r.Input, r.Format, r.Nodes, r.Files = input, f.format, done.Nodes, append(r.Files, files...)
	return nil
}

// writeOps writes the native library, the header and the snippets to a folder.
func writeOps(dir string, force bool) ([]fileReport, error) {
	lib, err := cudaops.FindLibrary("")
	if err != nil {
		return nil, withCode(exitRuntime, err, "run `cosetq doctor` to see what is missing")
	}
	content := map[string][]byte{}
	if content[cudaops.LibraryName], err = os.ReadFile(lib); err != nil {
		return nil, err
	}
	content["cosetq.h"] = cudaops.PublicHeader()
	for _, s := range cudaops.Snippets() {
		content[s.Name] = s.Text
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usage(err, "choose another --ops-dir")
	}
	if !force {
		for name := range content {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), os.ErrExist)
			}
		}
	}
	var files []fileReport
	for _, name := range sortedKeys(content) {
		mode := os.FileMode(0o644)
		if name == cudaops.LibraryName {
			mode = 0o755
		}
		file, err := writeFile(filepath.Join(dir, name), content[name], mode)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// writeFile writes a file under a temporary name and renames it.
func writeFile(path string, content []byte, mode os.FileMode) (fileReport, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fileReport{}, err
	}
	hash := sha256.New()
	_, err = io.MultiWriter(tmp, hash).Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fileReport{}, errors.Join(err, os.Remove(tmp.Name()))
	}
	return fileReport{Path: path, Bytes: int64(len(content)), SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}
