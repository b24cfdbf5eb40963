package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/onnx"
)

// Damaged files, float and quantized, never make the program panic, call itself broken or leave something behind.
func TestDamagedModels(t *testing.T) {
	dir := t.TempDir()
	float, quantized := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "q.onnx")
	if err := save(float, mlp(64, 48, 32), onnx.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run(context.Background(), []string{"quantize", float, "-o", quantized}, &out, &errOut); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	rng := rand.New(rand.NewPCG(11, 12))
	damagedDir := t.TempDir()
	input, output := filepath.Join(damagedDir, "d.onnx"), filepath.Join(damagedDir, "out.onnx")
	codes := map[int]int{}
	for _, source := range []string{float, quantized} {
		good, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 120 {
			bad := damage(rng, good)
			if err := os.WriteFile(input, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"inspect", input}, {"quantize", input, "-o", output}, {"export", input, "-o", output}, {"export", input, "-o", output, "--format", "matmulnbits"},
			} {
				errOut.Reset()
				code := run(context.Background(), args, &out, &errOut)
				codes[code]++
				if !slices.Contains([]int{exitOK, exitModel, exitNothing}, code) {
					t.Errorf("%s, damage %d, %s: exit code %d: %s", filepath.Base(source), i, args[0], code, errOut.String())
				}
				if code == exitOK {
					_ = os.Remove(output)
					_ = os.Remove(filepath.Join(damagedDir, "out.recipe.yaml"))
				}
				left, err := os.ReadDir(damagedDir)
				if err != nil || len(left) != 1 {
					t.Fatalf("%s, damage %d, %s, exit code %d: left behind %v", filepath.Base(source), i, args[0], code, left)
				}
			}
		}
	}
	t.Logf("exit codes %v", codes)
	if codes[exitOK] == 0 || codes[exitModel] == 0 {
		t.Errorf("exit codes %v: the damage is of one kind only", codes)
	}
	if strings.Contains(errOut.String(), "goroutine") {
		t.Error("a panic was printed")
	}
}

// damage changes some bytes, most often near the names and numbers of the structure, or cuts or repeats a piece.
func damage(rng *rand.Rand, good []byte) []byte {
	bad := slices.Clone(good)
	switch at := rng.IntN(len(bad)); rng.IntN(4) {
	case 0:
		return bad[:at]
	case 1:
		n := min(1+rng.IntN(40), len(bad)-at)
		return slices.Delete(bad, at, at+n)
	case 2:
		n := min(1+rng.IntN(40), len(bad)-at)
		return slices.Insert(bad, at, slices.Clone(bad[at:at+n])...)
	}
	for range 1 + rng.IntN(8) {
		at := rng.IntN(len(bad))
		if end := len(bad) - 4000; rng.IntN(2) == 0 && end > 0 { // what follows the weights
			at = end + rng.IntN(4000)
		}
		bad[at] = byte(rng.Uint32())
	}
	return bad
}
