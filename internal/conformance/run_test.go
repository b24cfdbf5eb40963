package conformance

import (
	"context"
	"errors"
	"maps"
	"math"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/cpu"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
	"github.com/cosetq/cosetq/ort"
	"github.com/cosetq/cosetq/tensor"
)

// Tolerances, relative to the norm of the output without cancellation.
const (
	float32Tolerance = 1e-6 // sums in float32, in any order
	integerTolerance = 2e-5 // activations or value tables of 16-bit integers, in the AVX2 and AVX-512 kernels
	byteTolerance    = 1e-2 // activations or value tables of 8 bits
	gpuTolerance     = 1e-4 // on the GPU activations of more than 32 rows are float16
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

// keeping configures sessions for one of the accuracies.
func keeping(accuracy int) map[string]string {
	return map[string]string{cudaops.ConfigAccuracy: strconv.Itoa(accuracy)}
}

// open loads the model of a suite. An instruction set that the processor lacks skips the test.
func (s suite) open(t *testing.T, dir string, o ort.SessionOptions) *ort.Session {
	t.Helper()
	session, err := openRuntime(t).NewSession(s.model(dir), o)
	if err != nil {
		if o.OpsLibrary != "" && strings.Contains(err.Error(), "lacks the instruction set") && !testenv.HasISA(os.Getenv(cudaops.EnvISA)) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// check runs a suite with every batch and compares all outputs with the reference. Sessions with a library say how closely it
// keeps activations.
func (s suite) check(t *testing.T, dir string, o ort.SessionOptions) {
	t.Helper()
	session := s.open(t, dir, o)
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
	native := o.OpsLibrary != "" && os.Getenv(cudaops.EnvISA) != "portable"
	switch {
	case native && maps.Equal(o.Config, keeping(cudaops.AccuracyFast)):
		return byteTolerance
	case s.dtype == onnx.Float16:
		return float16Tolerance
	case o.Provider != "":
		return gpuTolerance
	case native:
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
	ops, err := ort.OpenOps(lib)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range suites() {
		t.Run(s.String(), func(t *testing.T) {
			run := func(accuracy int) func(path string) int64 {
				before := calls(ops)
				s.check(t, dir, ort.SessionOptions{Threads: 2, OpsLibrary: lib, Config: keeping(accuracy)})
				if ops.ISA() != isa {
					t.Errorf("the library uses %s", ops.ISA())
				}
				after := calls(ops)
				want := int64(len(layers()) * (len(batches) - 1)) // an empty batch needs no kernel
				for name, n := range after {
					if mine := strings.HasPrefix(name, isa+"."); mine {
						want -= n - before[name]
					} else if n > 0 {
						t.Errorf("%d calls of %s", n, name)
					}
				}
				if want != 0 {
					t.Errorf("%d calls of kernels are missing", want)
				}
				return func(path string) int64 { return after[isa+"."+path] - before[isa+"."+path] }
			}
			preset := len(s.codec) == 1
			accurate := run(cudaops.AccuracyAccurate)
			general := strings.HasPrefix(s.codec, "e8") || strings.HasPrefix(s.codec, "z")
			if n := accurate("general"); general != (n > 0) && preset {
				t.Errorf("%d calls of the general kernel", n)
			}
			if n := accurate("int8") + accurate("lookup8"); n > 0 {
				t.Errorf("%d calls of kernels with 8-bit activations, which nobody asked for", n)
			}
			if n := accurate("lookup"); isa == "avx512" && preset && n == 0 {
				t.Errorf("the value look-up kernel did not run")
			}
			fast := run(cudaops.AccuracyFast)
			if n := fast("int8") + fast("lookup8"); preset && (n > 0) != (isa != "portable") {
				t.Errorf("%d calls of kernels with 8-bit activations", n)
			}
		})
	}
	t.Run("default", func(t *testing.T) {
		want := keeping(cudaops.AccuracyFast)
		if isa == "portable" || isa == "amx" { // where 16 bits cost nothing
			want = keeping(cudaops.AccuracyAccurate)
		}
		s := suite{"4", onnx.Float}
		o := ort.SessionOptions{Threads: 2, OpsLibrary: lib}
		byDefault := s.outputs(t, dir, o)
		if o.Config = want; !reflect.DeepEqual(byDefault, s.outputs(t, dir, o)) {
			t.Errorf("other outputs than with %v", want)
		}
	})
}

// outputs runs a suite with three rows.
func (s suite) outputs(t *testing.T, dir string, o ort.SessionOptions) map[string]*tensor.Tensor {
	t.Helper()
	out, err := s.open(t, dir, o).Run(context.Background(), s.inputs(3))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// On a GPU every product of every suite runs there, as the provider's own count and ONNX Runtime's placement say.
func TestGPU(t *testing.T) {
	dir, ops, gpu := prepare(t), testenv.Ops(t), testenv.CUDA(t)
	rt := openRuntime(t)
	provider, err := ort.OpenProvider(gpu)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range suites() {
		t.Run(s.String(), func(t *testing.T) {
			o := ort.SessionOptions{Threads: 2, OpsLibrary: ops, Provider: gpu}
			before := provider.Traffic().Runs
			s.check(t, dir, o)
			if ran := provider.Traffic().Runs - before; ran < int64(len(batches)-1) {
				t.Errorf("%d runs on the GPU, want one for each batch", ran)
			}
			nodes, err := rt.Placement(context.Background(), s.model(dir), o, s.inputs(3))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes {
				if (n.Op == cudaops.OpName || n.Op == cudaops.GatherName) && n.Provider != ort.ProviderName {
					t.Errorf("%s %s ran on %s: %s", n.Op, n.Node, n.Provider, n.Reason)
				}
			}
		})
	}
}

// The GPU library as a library of custom operators, for ONNX Runtime's own CUDA provider, here with a device that is the host.
// The library has no other kernel, so that sessions whose nodes it does not take fail.
func TestCustomOpOfTheGPULibrary(t *testing.T) {
	dir, lib := prepare(t), testenv.HostProvider(t)
	for _, s := range suites() {
		if len(s.codec) == 1 {
			t.Run(s.String(), func(t *testing.T) { s.check(t, dir, ort.SessionOptions{Threads: 1, OpsLibrary: lib}) })
		}
	}
	nodes, err := openRuntime(t).Placement(context.Background(), suite{"4", onnx.Float}.model(dir),
		ort.SessionOptions{Threads: 1, OpsLibrary: lib}, suite{"4", onnx.Float}.inputs(1))
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]int{}, map[string]int{}
	for _, n := range nodes {
		if n.Op == cudaops.OpName || n.Op == cudaops.GatherName {
			got[n.Op]++
		}
	}
	for _, l := range layers() {
		if l.gather {
			want[cudaops.GatherName]++
		} else {
			want[cudaops.OpName]++
		}
	}
	if !maps.Equal(got, want) || want[cudaops.GatherName] == 0 {
		t.Errorf("%v nodes ran as operators, want %v", got, want)
	}
}

// The session's accuracy reaches the provider's kernels: 8-bit activations give other results than 16-bit ones, on a GPU of many rows
// alone. Where the host stands in, few rows differ, and many but with AMX, which multiplies them alike.
func TestProviderAccuracy(t *testing.T) {
	dir, lib := prepare(t), testenv.Provider(t)
	s := suite{"4", onnx.Float}
	run := func(accuracy string) (both [2]map[string]*tensor.Tensor, err error) {
		session, err := openRuntime(t).NewSession(s.model(dir), ort.SessionOptions{
			Threads: 1, OpsLibrary: testenv.Ops(t), Provider: lib, Config: map[string]string{cudaops.ConfigAccuracy: accuracy},
		})
		if err != nil {
			return both, err
		}
		defer session.Close()
		for i, rows := range []int{2, 300} {
			if both[i], err = session.Run(context.Background(), s.inputs(rows)); err != nil {
				return both, err
			}
		}
		return both, nil
	}
	accurate, err := run("1")
	if err != nil {
		t.Fatal(err)
	}
	fast, err := run("4")
	if err != nil {
		t.Fatal(err)
	}
	gpu := testenv.HasGPU()
	if !gpu && reflect.DeepEqual(accurate[0], fast[0]) {
		t.Error("few rows: the same outputs at accuracy 1 and 4")
	}
	if (gpu || !cpu.X86.HasAMXInt8) && reflect.DeepEqual(accurate[1], fast[1]) {
		t.Error("many rows: the same outputs at accuracy 1 and 4")
	}
	if _, err := run("7"); err == nil || !strings.Contains(err.Error(), "accuracy is 7, want") {
		t.Errorf("accuracy 7: %v", err)
	}
}

// Rows of a coded table are taken by the provider as well.
func TestProviderTakesGather(t *testing.T) {
	dir, lib := prepare(t), testenv.Provider(t)
	for _, s := range []suite{{"4", onnx.Float}, {"4", onnx.Float16}} {
		nodes, err := openRuntime(t).Placement(context.Background(), s.model(dir),
			ort.SessionOptions{Threads: 1, OpsLibrary: testenv.Ops(t), Provider: lib}, s.inputs(3))
		if err != nil {
			t.Fatal(err)
		}
		gathers := 0
		for _, n := range nodes {
			if n.Op == cudaops.GatherName {
				gathers++
				if n.Provider != ort.ProviderName {
					t.Errorf("%s: %s ran on %s, reason %q", s, n.Node, n.Provider, n.Reason)
				}
			}
		}
		if gathers == 0 {
			t.Errorf("%s: no %s ran", s, cudaops.GatherName)
		}
	}
}

func calls(ops *ort.OpsLibrary) map[string]int64 {
	m := map[string]int64{}
	for _, isa := range cudaops.ISAs {
		for _, path := range []string{"general", "d4", "lookup", "lookup8", "int16", "int8", "gather"} {
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
