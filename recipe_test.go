package cosetq

import (
	"path/filepath"
	"slices"
	"testing"
)

// Names that YAML has a meaning for, or loses, come back from a recipe as they were.
func TestRecipeKeepsNames(t *testing.T) {
	for _, name := range []string{"a b", "a\tb", "\t", " a ", "a\nb", "a\r", "a\x1b", "#a", "a: b", "? a", "- a", "~", "null", "1e3", `"`, "a\\tb"} {
		o := QuantizeOptions{Data: name}
		o.Sites.Exclude = []string{name, "x"}
		text, err := o.recipe()
		if err != nil {
			t.Fatal(err)
		}
		var back QuantizeOptions
		if err := back.parseRecipe([]byte(text), nil); err != nil || back.Data != name || !slices.Equal(back.Sites.Exclude, o.Sites.Exclude) {
			t.Errorf("%q: %v, %q, %q from\n%s", name, err, back.Data, back.Sites.Exclude, text)
		}
	}
}

// A recipe is not read into the number that the caller's options point to, and a drop of 0 is written and read as one.
func TestRecipeOfDrop(t *testing.T) {
	mine := 0.5
	o := QuantizeOptions{MaxDrop: &mine}
	if err := o.parseRecipe([]byte("max-drop: 0\n"), []string{"max-drop"}); err != nil || o.MaxDrop != &mine || mine != 0.5 {
		t.Errorf("%v, the flag's 0.5 became %v", err, mine)
	}
	if err := o.parseRecipe([]byte("max-drop: 0\n"), nil); err != nil || mine != 0.5 || *o.MaxDrop != 0 {
		t.Errorf("%v, the recipe's 0 is %v, the caller's 0.5 is %v", err, *o.MaxDrop, mine)
	}
	if text, err := o.recipe(); err != nil || text != "max-drop: 0\n" && text != "max-drop: 0.0\n" {
		t.Errorf("%v, the recipe of a drop of 0 is %q", err, text)
	}
}

// A file is not taken for made-up data because of its name.
func TestRecipeOfFileNamedRandom(t *testing.T) {
	dir := t.TempDir()
	o := QuantizeOptions{Data: filepath.Join(dir, "random:3x.yaml")}
	f, err := o.recipeBeside(nil, "m.onnx", filepath.Join(dir, "q.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var back QuantizeOptions
	if err := back.parseRecipe(f.text, nil); err != nil || back.Data != "./random:3x.yaml" {
		t.Errorf("%v, data %q", err, back.Data)
	}
	if got := besideRecipe(".", back.Data); got != "./random:3x.yaml" {
		t.Errorf("beside the recipe it is %q", got)
	}
}

func TestCommandOfRecipe(t *testing.T) {
	for name, want := range map[string]string{
		"q.onnx":    "cosetq quantize m.onnx --recipe q.recipe.yaml -o q.onnx",
		"a b.onnx":  "cosetq quantize m.onnx --recipe 'a b.recipe.yaml' -o 'a b.onnx'",
		"a\nb.onnx": "cosetq quantize MODEL --recipe RECIPE -o OUTPUT",
		"\xff.onnx": "cosetq quantize MODEL --recipe RECIPE -o OUTPUT",
	} {
		if got := commandAgain("m.onnx", withEnding(name, RecipeEnding), name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Of the device a recipe tells where statistics are gathered on it, which shows in their last digits, and nowhere else.
func TestRecipeTellsDeviceOfData(t *testing.T) {
	for want, options := range map[string][]QuantizeOptions{
		CUDA: {{Method: LDLQ, Data: "random:1", Device: CUDA}},
		"": {{Method: LDLQ, Data: "random:1", Device: "cpu"}, {Method: RTN, Data: "random:1", Device: CUDA}, {Method: RTN, Device: CUDA},
			{Method: LDLQ, Statistics: "s.cqs", Device: CUDA}, {Method: LDLQ, Statistics: "s.cqs", Data: "random:1", TargetBits: 3, Device: CUDA}},
	} {
		for _, o := range options {
			if got := o.effective(nil).Device; got != want {
				t.Errorf("%+v: device %q, want %q", o, got, want)
			}
		}
	}
}
