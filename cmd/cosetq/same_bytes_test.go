package main

import (
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
	root := t.TempDir()
	model, statistics := filepath.Join(root, "m.onnx"), filepath.Join(root, "m.cqs")
	if err := save(model, mlp(160, 128, 96), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	library, runtime := testenv.Ops(t), testenv.ORT(t)
	cmd, out := cosetqIn(root, "calibrate", model, "--data", "random:64", "-o", statistics)
	cmd.Env = append(os.Environ(), testenv.EnvOps+"="+library, testenv.EnvORT+"="+runtime)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
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
