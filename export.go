package cosetq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/atomicfile"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/rewrite"
)

// ExportOptions say how to turn a quantized model into plain ONNX.
type ExportOptions struct {
	Output    string // file to write; "" is the input's name ending in .FORMAT.onnx
	Overwrite bool   // replace the output if it exists

	Format rewrite.Format       // "" is FP32, which is FP16 where the model computes in float16
	NBits  rewrite.NBitsOptions // of MatMulNBits
	Sites  rewrite.Options      // which weights of a float model become MatMulNBits

	OpsDir string // folder for what [ExportOps] writes as well, "" for none
}

// ExportReport is the outcome of [Export].
type ExportReport struct {
	Schema string   `json:"schema"`
	Input  string   `json:"input,omitempty"`
	Format string   `json:"format,omitempty"`
	Nodes  int      `json:"nodes,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	Files  []File   `json:"files"`
}

// Export writes a model that needs nothing of cosetq: the quantized weights of input become plain float weights again, or
// int4 MatMulNBits. A float model can become one of float16 weights or MatMulNBits: what to compare with. Nothing is written when
// the model or what goes to OpsDir cannot be.
func Export(ctx context.Context, input string, o ExportOptions) (*ExportReport, error) {
	if o.Format == "" {
		o.Format = rewrite.FP32
	}
	if err := oneOf("format", string(o.Format), string(rewrite.FP32), string(rewrite.FP16), string(rewrite.MatMulNBits)); err != nil {
		return nil, err
	}
	if l := o.NBits.AccuracyLevel; l < 0 || l > 4 {
		return nil, usage(fmt.Errorf("--accuracy-level %d is none of ONNX Runtime's", l), "4 computes with int8 activations, 1 in float32")
	}
	if b := o.NBits.Block; b != 0 && (b < 16 || b > 256 || b&(b-1) != 0) {
		return nil, usage(fmt.Errorf("--block %d is no power of two from 16 to 256", b), "32 and 128 are usual")
	}
	m, err := OpenModel(input)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := checkModel(m); err != nil {
		return nil, err
	}
	linears, err := rewrite.ReadLinears(m)
	if err != nil {
		return nil, fail(BadModel, err, "the file is damaged or was written by a newer version")
	}
	if len(linears) > 0 && (o.Sites.Embedding || len(o.Sites.Include)+len(o.Sites.Exclude) > 0) {
		return nil, usage(fmt.Errorf("--include, --exclude and --embedding are for float models, and of %s, which is quantized, every weight becomes plain", input), "leave them out")
	}
	r := &ExportReport{Schema: "cosetq/v1/export", Input: input}
	if o.Format == rewrite.FP32 && len(linears) > 0 && !slices.ContainsFunc(linears, func(l *rewrite.Linear) bool { return l.DType != onnx.Float16 }) {
		o.Format = rewrite.FP16
		r.Notes = append(r.Notes, "the model computes in float16, and its plain weights are float16 too")
	}
	output, err := OutputPath(o.Output, Reads{Models: []string{input}}, "."+string(o.Format)+".onnx", o.Overwrite, dataEnding)
	if err != nil {
		return nil, err
	}
	release, err := claim(output, false)
	if err != nil {
		return nil, err
	}
	defer release()
	var done *rewrite.ExportResult
	switch {
	case len(linears) > 0:
		done, err = rewrite.Export(m, rewrite.ExportOptions{Format: o.Format, NBits: o.NBits})
	case o.Format == rewrite.FP32:
		return nil, fail(Nothing, fmt.Errorf("%s holds no quantized weights, so there is nothing to turn back into %s", input, o.Format),
			"only --format fp16 and matmulnbits take a float model")
	default:
		done, err = exportFloat(m, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", input, err)
	}
	rewrite.JoinBatches(m)
	var ops *opsFiles
	if o.OpsDir != "" {
		if ops, err = gatherOps(o.OpsDir, o.Overwrite); err != nil {
			return nil, err
		}
	}
	saved, err := m.Save(output, onnx.SaveOptions{ExternalThreshold: pageSize, Overwrite: o.Overwrite, Context: ctx})
	if err != nil {
		return nil, err
	}
	r.Format, r.Nodes = string(o.Format), done.Nodes
	why := "float32: its numbers are too large or too small for float16"
	if o.Format == rewrite.MatMulNBits {
		why = "as it is: a Gather reads it, which MatMulNBits does not take the place of"
	}
	for _, name := range done.Kept {
		r.Notes = append(r.Notes, fmt.Sprintf("weight %q stays %s", name, why))
	}
	for _, name := range done.NonFinite {
		r.Notes = append(r.Notes, fmt.Sprintf("weight %q stays float: it holds NaN or infinity", name))
	}
	r.Files, _ = savedFiles(saved)
	if ops == nil {
		return r, nil
	}
	return r, ops.write(r)
}

// exportFloat turns a float model into one of half precision or int4.
func exportFloat(m *onnx.Model, o ExportOptions) (*rewrite.ExportResult, error) {
	sites, err := rewrite.FindSites(m, o.Sites)
	if err != nil {
		return nil, err
	}
	if o.Format == rewrite.FP16 {
		return rewrite.ExportHalf(m, sites)
	}
	return rewrite.ExportNBits(m, sites, o.NBits)
}

// ExportOps writes the native library, its header and loading snippets for Python, ONNX Runtime GenAI, C, C#, Node,
// browsers and Go to a folder, and with them what runs models on an NVIDIA GPU, where it finds the library for that.
func ExportOps(dir string, overwrite bool) (*ExportReport, error) {
	ops, err := gatherOps(dir, overwrite)
	if err != nil {
		return nil, err
	}
	r := &ExportReport{Schema: "cosetq/v1/export"}
	return r, ops.write(r)
}

// opsFiles are what [ExportOps] writes.
type opsFiles struct {
	dir     string
	content map[string][]byte // by name
	notes   []string
}

// gatherOps reads them and makes the folder, which it makes sure takes them.
func gatherOps(dir string, overwrite bool) (*opsFiles, error) {
	lib, err := cudaops.FindLibrary("")
	if err != nil {
		return nil, fail(Unavailable, err, "run `cosetq doctor` to see what is missing")
	}
	f := &opsFiles{dir: dir, content: map[string][]byte{}}
	if f.content[cudaops.LibraryName], err = os.ReadFile(lib); err != nil {
		return nil, err
	}
	gpu, noGPU := cudaops.FindCUDALibrary("")
	if noGPU != nil {
		f.notes = append(f.notes, fmt.Sprintf("what NVIDIA GPUs need is left out, since there is no %s: run `make cuda` in a checkout, or set %s to the file",
			cudaops.CUDALibraryName, cudaops.EnvCUDALibrary))
	} else {
		if f.content[cudaops.CUDALibraryName], err = os.ReadFile(gpu); err != nil {
			return nil, err
		}
		maps.Copy(f.content, cudaops.GPUHeaders())
	}
	f.content["cosetq.h"] = cudaops.PublicHeader()
	for _, s := range cudaops.Snippets() {
		if noGPU == nil || !s.GPU {
			f.content[s.Name] = s.Text
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usage(err, "choose another --ops-dir")
	}
	if !overwrite {
		for _, name := range slices.Sorted(maps.Keys(f.content)) {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), os.ErrExist)
			}
		}
	}
	return f, atomicfile.Check(filepath.Join(dir, cudaops.LibraryName))
}

// write writes them and adds them to the report.
func (f *opsFiles) write(r *ExportReport) error {
	for _, name := range slices.Sorted(maps.Keys(f.content)) {
		mode := os.FileMode(0o644)
		if filepath.Ext(name) == ".so" {
			mode = 0o755
		}
		file, err := writeFile(filepath.Join(f.dir, name), f.dir, f.content[name], mode)
		if err != nil {
			return err
		}
		r.Files = append(r.Files, file)
	}
	r.Notes = append(r.Notes, f.notes...)
	return nil
}

// writeFile writes a file under a temporary name in tempDir, which is on the same file system, and renames it.
func writeFile(path, tempDir string, content []byte, mode os.FileMode) (File, error) {
	err := atomicfile.WriteIn(tempDir, path, mode, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
	if err != nil {
		return File{}, err
	}
	sum := sha256.Sum256(content)
	return File{Path: path, Bytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}, nil
}
