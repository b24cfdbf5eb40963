package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cosetq/cosetq/cudaops"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/onnx"
)

// The same inputs give the same bytes: for any number of threads, in another run, with the native encoder of any instruction
// set and without one, without data and with it.
func TestSameBytes(t *testing.T) {
	library, runtime := testenv.Ops(t), testenv.ORT(t)
	root, model, statistics := modelAndStatistics(t)
	for _, method := range [][]string{{"--bits", "4"}, {"--bits", "2", "--calib", statistics}} {
		first := ""
		for i, how := range []struct{ threads, library, isa string }{
			{"1", library, ""}, {"1", library, ""}, {"3", library, "portable"}, {"2", library, "avx2"}, {"5", library, "avx512"}, {"4", "none", ""},
		} {
			dir := filepath.Join(root, fmt.Sprint(len(method), i))
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"quantize", model, "-o", "q.onnx", "--threads", how.threads}, method...)
			cmd := exec.Command("cosetq", args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), testenv.EnvOps+"="+how.library, testenv.EnvORT+"="+runtime, cudaops.EnvISA+"="+how.isa)
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", how, err, b)
			}
			got := contents(t, dir)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%v %+v gives\n%s, before\n%s", method, how, got, first)
			}
		}
	}
}

// modelAndStatistics writes a model and its statistics to a folder.
func modelAndStatistics(t *testing.T) (dir, model, statistics string) {
	t.Helper()
	dir = t.TempDir()
	model, statistics = filepath.Join(dir, "m.onnx"), filepath.Join(dir, "m.cqs")
	if err := save(model, mlp(160, 128, 96), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	cmd, out := cosetqIn(dir, "calibrate", model, "--data", "random:64", "-o", statistics)
	cmd.Env = append(os.Environ(), testenv.EnvOps+"="+testenv.Ops(t), testenv.EnvORT+"="+testenv.ORT(t))
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir, model, statistics
}

// With --device cuda the weights are those that the processor codes, to the byte.
func TestSameBytesOnGPU(t *testing.T) {
	gpu := testenv.CUDA(t)
	root, model, statistics := modelAndStatistics(t)
	for i, method := range [][]string{{"--bits", "4"}, {"--bits", "2", "--calib", statistics}, {"--codec", "z1:16:g3,4,5,6"}} {
		var coded [2][]byte
		for j, device := range []string{"cpu", "cuda"} {
			out := filepath.Join(root, fmt.Sprint(device, i, ".onnx"))
			cmd, said := cosetqIn(root, append([]string{"quantize", model, "-o", out, "--device", device}, method...)...)
			cmd.Env = append(os.Environ(), testenv.EnvOps+"="+testenv.Ops(t), testenv.EnvCUDA+"="+gpu)
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v --device %s: %v: %s", method, device, err, said)
			}
			var err error
			if coded[j], err = os.ReadFile(out + ".data"); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(coded[0], coded[1]) {
			t.Errorf("%v: the GPU and the processor code differently", method)
		}
	}
}
