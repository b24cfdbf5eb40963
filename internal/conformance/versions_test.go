package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/ortversions"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/quant"
	"github.com/cosetq/cosetq/rewrite"
	"github.com/cosetq/cosetq/tensor"
)

const (
	digitRows, digitColumns = 5, 784
	// Relative to the norm of the logits: the same kernel in two runtimes, where only the other layers differ, and the
	// kernel against the function body.
	sameKernel, otherKernel = 1e-6, 1e-4
)

// digits quantizes the embedded model at 4 bits.
func digits(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := models.WriteQuickstart(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Open(files.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	path := filepath.Join(dir, "digits.q.onnx")
	quantize(t, m, path)
	return path
}

// quantize writes m at 4 bits.
func quantize(t *testing.T, m *onnx.Model, path string) {
	t.Helper()
	codec, err := lattice.Preset(4)
	if err != nil {
		t.Fatal(err)
	}
	sites, err := rewrite.FindSites(m, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var replacements []rewrite.Replacement
	for _, s := range sites {
		if s.Status != rewrite.Candidate {
			continue
		}
		r, err := quant.Quantize(context.Background(), s.Weight, quant.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		replacements = append(replacements, rewrite.Replacement{Site: s, Matrix: r.Matrix})
	}
	if _, err := rewrite.Apply(m, replacements, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Save(path, onnx.SaveOptions{External: onnx.ExternalAlways, ExternalThreshold: 4096}); err != nil {
		t.Fatal(err)
	}
}

// digitLogits runs the model in this process.
func digitLogits(t *testing.T, model, library string, input []float32) []float32 {
	t.Helper()
	s, err := openRuntime(t).NewSession(model, ort.SessionOptions{OpsLibrary: library})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run(context.Background(), map[string]*tensor.Tensor{s.Inputs()[0].Name: tensor.Of(input, digitRows, digitColumns)})
	if err != nil {
		t.Fatal(err)
	}
	logits, err := tensor.View[float32](out[s.Outputs()[0].Name])
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func difference(want, got []float32) float64 {
	if len(want) != len(got) || len(want) == 0 {
		return math.Inf(1)
	}
	var d, n float64
	for i, w := range want {
		d += (float64(w) - float64(got[i])) * (float64(w) - float64(got[i]))
		n += float64(w) * float64(w)
	}
	return math.Sqrt(d / n)
}

// pipe runs a program that reads and writes raw float32.
func pipe(t *testing.T, input []float32, name string, args ...string) []float32 {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")
	cmd.Stdin = bytes.NewReader(onnx.RawFloat32(input))
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, errOut.Bytes())
	}
	t.Logf("%s", strings.TrimSpace(errOut.String()))
	values := make([]float32, out.Len()/4)
	if _, err := binary.Decode(out.Bytes(), binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// absent skips the test, or fails it when COSETQ_REQUIRE lists what is missing.
func absent(t *testing.T, what, format string, args ...any) {
	t.Helper()
	if testenv.Require(what) {
		t.Fatalf("%s requires %q: %s", testenv.EnvRequire, what, fmt.Sprintf(format, args...))
	}
	t.Skipf(format, args...)
}

// compile builds a C program against the headers that the Go binding carries.
func compile(t *testing.T, source string, more ...string) string {
	t.Helper()
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		absent(t, "ort", "no C compiler")
	}
	program := filepath.Join(t.TempDir(), "program")
	args := append([]string{source, "-o", program, "-I", strings.TrimSpace(string(headers))}, more...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// runtimes are the ONNX Runtimes that one library file must serve.
func runtimes(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{"current": testenv.ORT(t)}
	for _, v := range ortversions.Others {
		found[v] = filepath.Join(testenv.Root(t), "build", "ort-"+v, "libonnxruntime.so")
	}
	return found
}

// alike quantizes four layers of one size: where none is most of the model, the function body is another.
func alike(t *testing.T) string {
	t.Helper()
	m := onnx.NewModel(8, 17, "alike")
	m.Graph.Inputs = []*onnx.ValueInfo{onnx.NewValueInfo("x0", onnx.Float, "batch", digitColumns)}
	for i := range 4 {
		in, weight, out := fmt.Sprint("x", i), fmt.Sprint("w", i), fmt.Sprint("x", i+1)
		m.Graph.Initializers = append(m.Graph.Initializers,
			onnx.NewTensor(weight, []int64{digitColumns, digitColumns}, numbers(uint64(i), digitColumns*digitColumns)))
		m.Graph.Nodes = append(m.Graph.Nodes, onnx.NewNode("MatMul", []string{in, weight}, []string{out}))
	}
	m.Graph.Outputs = []*onnx.ValueInfo{onnx.NewValueInfo("x4", onnx.Float, "batch", digitColumns)}
	path := filepath.Join(t.TempDir(), "alike.q.onnx")
	quantize(t, m, path)
	return path
}

// One library file and one model file give the same logits in every ONNX Runtime, with and without the library.
func TestVersions(t *testing.T) {
	t.Run("digits", func(t *testing.T) { testVersions(t, digits(t)) })
	t.Run("alike", func(t *testing.T) { testVersions(t, alike(t)) })
}

func testVersions(t *testing.T, model string) {
	testenv.Accurate(t)
	lib := testenv.Ops(t)
	input := numbers(3, digitRows*digitColumns)
	want := digitLogits(t, model, lib, input)
	program := compile(t, filepath.Join("testdata", "logits.c"), "-ldl")
	for version, runtime := range runtimes(t) {
		t.Run(version, func(t *testing.T) {
			if _, err := os.Stat(runtime); err != nil {
				absent(t, "ort", "%v; run `make setup-ort-versions`", err)
			}
			for library, tolerance := range map[string]float64{lib: sameKernel, "": otherKernel} {
				got := pipe(t, input, program, runtime, model, library, fmt.Sprint(digitRows), fmt.Sprint(digitColumns))
				if d := difference(want, got); !(d <= tolerance) {
					t.Errorf("library %q: logits differ by %.2g", library, d)
				}
			}
		})
	}
}

// The shipped Python snippet, in the onnxruntime package from PyPI, gives the same logits.
func TestPythonSnippet(t *testing.T) {
	testenv.Accurate(t)
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		absent(t, "python", "%v; run `make setup-python`", err)
	}
	lib, model := testenv.Ops(t), digits(t)
	input := numbers(3, digitRows*digitColumns)
	got := pipe(t, input, python, filepath.Join("testdata", "logits.py"), snippet(t, "Python", "run.py"), model, lib,
		fmt.Sprint(digitRows), fmt.Sprint(digitColumns))
	for library, tolerance := range map[string]float64{lib: sameKernel, "": otherKernel} {
		if d := difference(digitLogits(t, model, library, input), got); !(d <= tolerance) {
			t.Errorf("logits differ from those of library %q by %.2g", library, d)
		}
	}
}

// The shipped Python snippet for GPUs gives the same logits on the provider whose device is the host.
func TestPythonGPUSnippet(t *testing.T) {
	testenv.Accurate(t)
	python := filepath.Join(testenv.Root(t), "build", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		absent(t, "python", "%v; run `make setup-python`", err)
	}
	lib, model := testenv.Ops(t), digits(t)
	// By a path that begins where the program is called, as people give it.
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	gpu, err := filepath.Rel(here, testenv.HostProvider(t))
	if err != nil {
		t.Fatal(err)
	}
	input := numbers(3, digitRows*digitColumns)
	got := pipe(t, input, python, filepath.Join("testdata", "logits.py"), snippet(t, "Python, NVIDIA GPU", "run_gpu.py"), model, lib,
		fmt.Sprint(digitRows), fmt.Sprint(digitColumns), gpu)
	if d := difference(digitLogits(t, model, lib, input), got); !(d <= otherKernel) {
		t.Errorf("logits differ from those of the CPU by %.2g", d)
	}
}

// The shipped C snippet compiles, and loads the model in every ONNX Runtime.
func TestCSnippet(t *testing.T) {
	lib, model, source := testenv.Ops(t), digits(t), snippet(t, "C", "run.c")
	for version, runtime := range runtimes(t) {
		t.Run(version, func(t *testing.T) {
			if _, err := os.Stat(runtime); err != nil {
				absent(t, "ort", "%v; run `make setup-ort-versions`", err)
			}
			// Programs look for the library under this name.
			dir := t.TempDir()
			if err := os.Symlink(runtime, filepath.Join(dir, "libonnxruntime.so.1")); err != nil {
				t.Fatal(err)
			}
			program := compile(t, source, runtime, "-Wl,-rpath,"+dir)
			cmd := exec.Command(program, model, lib)
			cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "1 inputs") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// The shipped Go snippet compiles with the version of the binding that this module uses, and loads the model.
func TestGoSnippet(t *testing.T) {
	lib, model, runtime := testenv.Ops(t), digits(t), testenv.ORT(t)
	main := filepath.Join(t.TempDir(), "main.go")
	if err := os.Rename(snippet(t, "Go", "run.go.txt"), main); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", main, model, lib, runtime)
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "outputs [") {
		t.Errorf("%v\n%s", err, out)
	}
}

// snippet writes a shipped snippet as it is to a file of that name.
func snippet(t *testing.T, language, name string) string {
	t.Helper()
	for _, s := range cudaops.Snippets() {
		if s.Language == language {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, s.Text, 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatalf("no snippet for %s", language)
	return ""
}
