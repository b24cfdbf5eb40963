package cosetq_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
)

// Steps that calibrate at the same time in one program learn each from its own data: the native library has one set of sums.
func TestCalibrationsAtOnce(t *testing.T) {
	t.Setenv(testenv.EnvORT, testenv.ORT(t))
	testenv.Ops(t)
	files, err := models.WriteQuickstart(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	quantized := func(name string, samples int) ([sha256.Size]byte, error) {
		o := cosetq.QuantizeOptions{Output: filepath.Join(dir, name+".onnx"), Bits: 2, Data: files.Calib, Samples: samples, Threads: 1}
		if _, err := cosetq.Quantize(t.Context(), files.Model, o); err != nil {
			return [sha256.Size]byte{}, err
		}
		b, err := os.ReadFile(o.Output + ".data")
		return sha256.Sum256(b), err
	}
	calibrated := func(name string, samples int) ([sha256.Size]byte, error) {
		o := cosetq.CalibrateOptions{Output: filepath.Join(dir, name+".cqs"), Samples: samples, Threads: 1}
		if _, err := cosetq.Calibrate(t.Context(), files.Model, files.Calib, o); err != nil {
			return [sha256.Size]byte{}, err
		}
		b, err := os.ReadFile(o.Output)
		return sha256.Sum256(b), err
	}
	for name, step := range map[string]func(name string, samples int) ([sha256.Size]byte, error){"quantize": quantized, "calibrate": calibrated} {
		want := map[int][sha256.Size]byte{}
		for _, samples := range []int{12, 20} {
			if want[samples], err = step(fmt.Sprint(name, samples), samples); err != nil {
				t.Fatal(err)
			}
		}
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				samples := []int{12, 20}[i%2]
				if got, err := step(fmt.Sprint(name, samples, "at once", i), samples); err != nil || got != want[samples] {
					t.Errorf("%s with %d samples beside others: other bytes than alone, or %v", name, samples, err)
				}
			})
		}
		group.Wait()
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := cosetq.Calibrate(ctx, files.Model, files.Calib, cosetq.CalibrateOptions{Output: filepath.Join(dir, "stopped.cqs")}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped before it began: %v", err)
	}
	if _, err := calibrated("after", 12); err != nil {
		t.Errorf("after one that was stopped: %v", err)
	}
}
