package conformance

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
)

// Tolerances, relative to the norm of the output without cancellation.
const (
	float32Tolerance = 1e-6 // sums in float32, in any order
	integerTolerance = 2e-5 // activations or value tables of 16-bit integers, in the AVX2 and AVX-512 kernels
	float16Tolerance = 1e-3 // the function body rounds the weight to float16, and everyone the output
)

// EnvSuites names the folder of the models for the processes that run the kernels of one instruction set.
const envSuites = "COSETQ_CONFORMANCE"

var suitesOnce = sync.OnceValue(func() string { return os.Getenv(envSuites) })

// prepared is the folder with the models and references of all suites.
var prepared struct {
	sync.Once
	dir string
}

func TestMain(m *testing.M) {
	prepared.dir = suitesOnce()
	code := m.Run()
	if prepared.dir != "" && suitesOnce() == "" {
		os.RemoveAll(prepared.dir)
	}
	os.Exit(code)
}

func prepare(t *testing.T) string {
	t.Helper()
	prepared.Do(func() {
		if prepared.dir != "" {
			return
		}
		dir, err := os.MkdirTemp("", "cosetq-conformance-")
		if err != nil {
			t.Fatal(err)
		}
		prepared.dir = dir
		for _, c := range codecs {
			weights := coded(t, c)
			for _, dtype := range []onnx.DataType{onnx.Float, onnx.Float16} {
				s := suite{c, dtype}
				s.write(t, dir, weights)
				writeReference(t, s.reference(dir), weights)
			}
		}
	})
	return prepared.dir
}

func openRuntime(t *testing.T) *ort.Runtime {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: testenv.ORT(t)})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// check runs a suite with every batch and compares all outputs with the reference.
func (s suite) check(t *testing.T, dir string, o ort.SessionOptions) {
	t.Helper()
	session, err := openRuntime(t).NewSession(s.model(dir), o)
	if err != nil {
		if o.OpsLibrary != "" && strings.Contains(err.Error(), "lacks the instruction set") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	defer session.Close()
	reference := readReference(t, s.reference(dir))
	worst := 0.0
	for _, batch := range batches {
		out, err := session.Run(context.Background(), s.inputs(batch))
		if err != nil {
			t.Fatalf("batch %d: %v", batch, err)
		}
		for _, l := range layers() {
			y, want := out[l.output()], reference[batch][l]
			if y == nil || !slices.Equal(y.Shape, []int64{int64(batch), int64(l.width())}) || int32(y.Type) != int32(s.dtype) {
				t.Fatalf("batch %d, %+v: output %v, want %s [%d, %d]", batch, l, y, s.dtype, batch, l.width())
			}
			if batch == 0 {
				continue
			}
			got := make([]float64, len(want.values))
			if err := y.Floats(got, 0, y.Count()); err != nil {
				t.Fatal(err)
			}
			var squares float64
			for i, v := range got {
				squares += (v - want.values[i]) * (v - want.values[i])
			}
			e, limit := math.Sqrt(squares)/want.norm, s.tolerance(o)
			if !(e <= limit) {
				t.Errorf("batch %d, %+v: error %.2g of the norm, more than %.2g", batch, l, e, limit)
			}
			worst = max(worst, e)
		}
	}
	t.Logf("%v: largest error %.2g", s, worst)
}

func (s suite) tolerance(o ort.SessionOptions) float64 {
	switch {
	case s.dtype == onnx.Float16:
		return float16Tolerance
	case o.OpsLibrary != "" && os.Getenv(cudaops.EnvISA) != "portable":
		return integerTolerance
	}
	return float32Tolerance
}

// The function body in ONNX Runtime alone, as anyone's program runs it.
func TestPortable(t *testing.T) {
	dir := prepare(t)
	for _, s := range suites() {
		if s.dtype == onnx.Float16 && len(s.codec) > 1 && s.codec != "e8:4" {
			continue // the element type matters to the body only at its end, whatever the codec; and loading takes long
		}
		t.Run(s.String(), func(t *testing.T) { s.check(t, dir, ort.SessionOptions{Threads: 2}) })
	}
	s := suite{"4", onnx.Float}
	t.Run(s.String()+"_unoptimized", func(t *testing.T) {
		s.check(t, dir, ort.SessionOptions{Threads: 2, Optimization: ort.OptimizeDisabled})
	})
}

// Every instruction set in a process of its own: the library chooses its kernels once.
func TestKernels(t *testing.T) {
	dir, lib := prepare(t), testenv.Ops(t)
	openRuntime(t)
	for _, isa := range cudaops.ISAs {
		t.Run(isa, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestWithOneISA$", "-test.v")
			cmd.Env = append(os.Environ(), envSuites+"="+dir, cudaops.EnvISA+"="+isa, testenv.EnvOps+"="+lib)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case errors.As(err, &exit):
				t.Errorf("%v\n%s", err, out)
			case err != nil:
				t.Fatal(err)
			case strings.Contains(string(out), "--- SKIP"):
				t.Skip("this processor lacks it")
			case !strings.Contains(string(out), "--- PASS: TestWithOneISA/"):
				t.Errorf("nothing was tested:\n%s", out)
			default:
				t.Logf("%s", out)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWithOneISA$")
		cmd.Env = append(os.Environ(), envSuites+"="+dir, cudaops.EnvISA+"=sse9", testenv.EnvOps+"="+lib)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "unknown instruction set sse9") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestWithOneISA runs in the processes of TestKernels only. Every call of every node must be counted under the instruction
// set that was asked for, so that no kernel and no function body can take its place unseen.
func TestWithOneISA(t *testing.T) {
	dir, isa := suitesOnce(), os.Getenv(cudaops.EnvISA)
	if dir == "" {
		t.Skip("runs in the processes of TestKernels")
	}
	lib := testenv.Ops(t)
	for _, s := range suites() {
		t.Run(s.String(), func(t *testing.T) {
			ops, err := ort.OpenOps(lib)
			if err != nil {
				t.Fatal(err)
			}
			before := calls(ops)
			s.check(t, dir, ort.SessionOptions{Threads: 2, OpsLibrary: lib})
			if ops.ISA() != isa {
				t.Errorf("the library uses %s", ops.ISA())
			}
			want := int64(len(layers()) * (len(batches) - 1)) // an empty batch needs no kernel
			for name, n := range calls(ops) {
				if mine := strings.HasPrefix(name, isa+"."); mine {
					want -= n - before[name]
				} else if n > 0 {
					t.Errorf("%d calls of %s", n, name)
				}
			}
			if want != 0 {
				t.Errorf("%d calls of kernels are missing", want)
			}
			general := strings.HasPrefix(s.codec, "e8") || strings.HasPrefix(s.codec, "z")
			if n := calls(ops)[isa+".general"] - before[isa+".general"]; general != (n > 0) && len(s.codec) == 1 {
				t.Errorf("%d calls of the general kernel", n)
			}
			if n := calls(ops)[isa+".int8"]; n > 0 {
				t.Errorf("%d calls of the kernel with 8-bit activations, which nobody asked for", n)
			}
			if n := calls(ops)["avx512.lookup"] - before["avx512.lookup"]; isa == "avx512" && len(s.codec) == 1 && n == 0 {
				t.Errorf("the value look-up kernel did not run")
			}
		})
	}
}

func calls(ops *ort.OpsLibrary) map[string]int64 {
	m := map[string]int64{}
	for _, isa := range cudaops.ISAs {
		for _, path := range []string{"general", "d4", "lookup", "int16", "int8", "gather"} {
			m[isa+"."+path] = ops.KernelCalls(isa + "." + path)
		}
	}
	return m
}

// With the library registered every quantized node is one kernel; without it there is none.
func TestPlacement(t *testing.T) {
	dir, lib, rt := prepare(t), testenv.Ops(t), openRuntime(t)
	s := suite{"4", onnx.Float}
	for _, level := range []ort.OptimizationLevel{ort.OptimizeDisabled, ort.OptimizeAll} {
		for library, want := range map[string]int{lib: len(layers()), "": 0} {
			nodes, err := rt.Placement(context.Background(), s.model(dir), ort.SessionOptions{Threads: 1, OpsLibrary: library, Optimization: level}, s.inputs(1))
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for _, n := range nodes {
				if n.Op == cudaops.OpName || n.Op == cudaops.GatherName {
					got++
				}
			}
			if got != want {
				t.Errorf("optimization %v, library %q: %d nodes ran as %s, want %d", level, library, got, cudaops.OpName, want)
			}
		}
	}
}
