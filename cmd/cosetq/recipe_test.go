package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cosetq/cosetq"
	"github.com/cosetq/cosetq/internal/testenv"
	"github.com/cosetq/cosetq/models"
	"github.com/cosetq/cosetq/tensor"
)

// notInRecipes are the flags that say where the result goes, how a run is done or what is printed, and not what comes out.
var notInRecipes = []string{"output", "force", "dry-run", "resume", "shard", "recipe", "report", "layers", "json", "quiet", "help"}

// A recipe carries every option of quantize, under the name of its flag.
func TestRecipeHasEveryFlag(t *testing.T) {
	cmd, _, err := newRoot(&console{}).Find([]string{"quantize"})
	if err != nil {
		t.Fatal(err)
	}
	keys := cosetq.RecipeKeys()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(keys, f.Name) == slices.Contains(notInRecipes, f.Name) {
			t.Errorf("--%s: in a recipe: %v, kept out of recipes: %v", f.Name, slices.Contains(keys, f.Name), slices.Contains(notInRecipes, f.Name))
		}
	})
	for _, key := range keys {
		if cmd.Flags().Lookup(key) == nil {
			t.Errorf("the key %s is no flag", key)
		}
	}
}

// The recipe of a calibrated model gives the same bytes from wherever the folders are moved to together.
func TestRecipeAfterMove(t *testing.T) {
	testenv.Ops(t)
	root := t.TempDir()
	before, after := filepath.Join(root, "before"), filepath.Join(root, "after", "deep")
	for _, dir := range []string{filepath.Join(before, "data"), filepath.Join(before, "out"), filepath.Dir(after)} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	files, err := models.WriteQuickstart(filepath.Join(before, "data"))
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, "quantize", files.Model, "-o", filepath.Join(before, "out", "q.onnx"), "--bits", "2", "--data", files.Calib, "--samples", "32", "--seed", "5")
	want := contents(t, filepath.Join(before, "out"))
	if err := os.Rename(before, after); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(after, "out")
	for _, name := range []string{"q.onnx", "q.onnx.data"} {
		if err := os.Remove(filepath.Join(out, name)); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "quantize", filepath.Join(after, "data", filepath.Base(files.Model)), "-o", filepath.Join(out, "q.onnx"), "--recipe", filepath.Join(out, "q.recipe.yaml"))
	if got := contents(t, out); got != want {
		t.Errorf("after the move\n%s, before\n%s", got, want)
	}
}

// Data without a sample is said to have none, and not samples 0 to -1.
func TestDataWithoutSamples(t *testing.T) {
	dir := t.TempDir()
	model, data := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "r.yaml")
	if err := modelKinds["mlp"](model); err != nil {
		t.Fatal(err)
	}
	none := map[string]*tensor.Tensor{"x": tensor.Of([]float32{}, 0, 96)}
	if err := tensor.SaveNPZ(filepath.Join(dir, "x.npz"), []tensor.Spec{{Name: "x"}}, none); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, []byte("kind: npz\nfile: x.npz\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"run", "bench"} {
		report, code, _ := program(t, command, model, "--data", data)
		failed, _ := report["error"].(map[string]any)
		if message, _ := failed["message"].(string); code != exitUsage || !strings.Contains(message, "holds no samples") {
			t.Errorf("%s: exit code %d: %v", command, code, report)
		}
	}
}
