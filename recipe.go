package cosetq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"al.essio.dev/pkg/shellescape"
	"github.com/goccy/go-yaml"

	"github.com/cosetq/cosetq/internal/regularfile"
	"github.com/cosetq/cosetq/internal/strictyaml"
	"github.com/cosetq/cosetq/internal/suggest"
	"github.com/cosetq/cosetq/lattice"
	"github.com/cosetq/cosetq/onnx"
)

// RecipeEnding is what stands in the name of a recipe in the place of the .onnx of the model that it made.
const RecipeEnding = ".recipe.yaml"

// recipeOption is an option of [QuantizeOptions] that a recipe has a key for: one with a yaml tag.
type recipeOption struct {
	key   string
	value reflect.Value
}

// recipeOptions lists them in the order of the struct.
func (o *QuantizeOptions) recipeOptions() []recipeOption {
	var list []recipeOption
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for i := range v.NumField() {
			key, flags, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			switch {
			case flags == "inline":
				walk(v.Field(i))
			case key != "" && key != "-":
				list = append(list, recipeOption{key, v.Field(i)})
			}
		}
	}
	walk(reflect.ValueOf(o).Elem())
	return list
}

// RecipeKeys lists the keys of a recipe, which are the names of the flags of `cosetq quantize`.
func RecipeKeys() []string {
	var keys []string
	for _, f := range new(QuantizeOptions).recipeOptions() {
		keys = append(keys, f.key)
	}
	return keys
}

// alternatives are options of which at most one is given.
var alternatives = [][]string{{"bits", "codec", "target-bpw", "target-size", "max-drop"}, {"data", "calib"}}

// ruledOut tells whether an option is one of the keys or an alternative to one of them.
func ruledOut(key string, keys []string) bool {
	if slices.Contains(keys, key) {
		return true
	}
	for _, group := range alternatives {
		if slices.Contains(group, key) && slices.ContainsFunc(group, func(k string) bool { return slices.Contains(keys, k) }) {
			return true
		}
	}
	return false
}

// ReadRecipe sets the options that the recipe at path names. Options named in given, and alternatives to them, stay as they
// are: they come from whoever uses the recipe. Paths in a recipe are relative to its folder.
func (o *QuantizeOptions) ReadRecipe(path string, given ...string) error {
	text, err := regularfile.Read(path)
	if err != nil {
		return usage(fmt.Errorf("recipe: %w", err), "give the .yaml file of options that quantize wrote beside a model, or one of your own")
	}
	if err := o.parseRecipe(text, given); err != nil {
		return usage(fmt.Errorf("recipe %s: %w", path, err), "keys are the flags of `cosetq quantize` without the dashes, as in bits: 3; docs/recipes.md lists them")
	}
	o.recipeRead = path
	dir := filepath.Dir(path)
	if o.Data != "" && !ruledOut("data", given) {
		o.Data = besideRecipe(dir, o.Data)
	}
	if o.Statistics != "" && !ruledOut("calib", given) {
		o.Statistics = besideRecipe(dir, o.Statistics)
	}
	return nil
}

func besideRecipe(dir, path string) string {
	if isRandom(path) || filepath.IsAbs(path) {
		return path
	}
	return fileNamed(filepath.Join(dir, filepath.FromSlash(path)))
}

// isRandom tells made-up data from the path of a data recipe.
func isRandom(data string) bool { return strings.HasPrefix(data, "random:") }

// fileNamed keeps the path of a file from being taken for made-up data, as taking its folder or a ./ away would.
func fileNamed(path string) string {
	if isRandom(path) {
		return "./" + path
	}
	return path
}

func (o *QuantizeOptions) parseRecipe(text []byte, given []string) error {
	read := *o
	keys, err := strictyaml.Decode(text, &read)
	if err != nil {
		return err
	}
	var named []string
	for _, k := range keys {
		if !slices.Contains(RecipeKeys(), k.Name) {
			return &strictyaml.Error{Line: k.Line, Key: k.Name, Msg: "is no option of quantize" + suggest.DidYouMean(k.Name, RecipeKeys())}
		}
		named = append(named, k.Name)
	}
	values := read.recipeOptions()
	for i, f := range o.recipeOptions() {
		switch {
		case ruledOut(f.key, given):
		case slices.Contains(named, f.key):
			f.value.Set(values[i].value)
		case ruledOut(f.key, named): // a default, such as that of --bits where the recipe has a codec
			f.value.SetZero()
		}
	}
	// Beside statistics, data only serves to measure for a target: it goes with a target that is ruled out.
	if read.allocates() && !o.allocates() && o.Statistics != "" && !slices.Contains(given, "data") {
		o.Data = ""
	}
	return nil
}

// effective returns the options that say all that the result depends on: defaults are filled in, and what changes
// only how it is made is left out. Data and statistics go by their names, wherever they lie.
func (o *QuantizeOptions) effective(codec *lattice.Codec) *QuantizeOptions {
	e := *o
	e.Bits = 0
	if codec != nil { // no target chooses
		e.Codec = codec.String()
	}
	e.Threads = 0
	if o.Method != LDLQ || o.Data == "" || o.Statistics != "" || o.Device == "cpu" { // weights are coded alike on all, data leaves other sums
		e.Device = ""
	}
	if e.Method == RTN && !e.allocates() { // knows no data
		e.Data, e.Statistics = "", ""
	}
	if !isRandom(e.Data) && e.Data != "" {
		e.Data = fileNamed(filepath.Base(e.Data))
	}
	if e.Statistics != "" {
		e.Statistics = filepath.Base(e.Statistics)
	}
	if e.Rotate == RotateNone && e.Data == "" {
		e.Seed = 0 // nothing is drawn
	}
	return &e
}

// named returns the options that a recipe must name: those that are set, and the number of samples where there is data.
func (o *QuantizeOptions) named() []recipeOption {
	return slices.DeleteFunc(o.recipeOptions(), func(f recipeOption) bool {
		if f.key == "samples" {
			return o.Data == ""
		}
		return f.value.IsZero() || f.value.Kind() == reflect.Slice && f.value.Len() == 0
	})
}

// recipe is the text of the recipe of these options.
func (o *QuantizeOptions) recipe() (string, error) {
	var all bytes.Buffer
	for _, f := range o.named() {
		text, err := yaml.Marshal(yaml.MapSlice{{Key: f.key, Value: f.value.Interface()}})
		if err != nil {
			return "", err
		}
		// Not all that is written plain is read as it was, as names with tabs: JSON is YAML as well.
		if !f.isIn(text) {
			if text, err = json.Marshal(f.value.Interface()); err != nil {
				return "", err
			}
			text = fmt.Appendf(nil, "%s: %s\n", f.key, text)
		}
		all.Write(text)
	}
	return all.String(), nil
}

// isIn tells whether a recipe gives the option its value.
func (f recipeOption) isIn(text []byte) bool {
	var o QuantizeOptions
	if o.parseRecipe(text, nil) != nil {
		return false
	}
	return slices.ContainsFunc(o.recipeOptions(), func(r recipeOption) bool {
		return r.key == f.key && reflect.DeepEqual(r.value.Interface(), f.value.Interface())
	})
}

// recipeSettings are the options by the names of their flags, as JSON, which is YAML as well.
func (o *QuantizeOptions) recipeSettings() (map[string]string, error) {
	s := map[string]string{}
	for _, f := range o.named() {
		text, err := json.Marshal(f.value.Interface())
		if err != nil {
			return nil, err
		}
		s["--"+f.key] = string(text)
	}
	return s, nil
}

// optionsOf is the inverse of recipeSettings.
func optionsOf(settings map[string]string) (*QuantizeOptions, error) {
	var text bytes.Buffer
	for _, key := range RecipeKeys() {
		if v, ok := settings["--"+key]; ok {
			fmt.Fprintf(&text, "%s: %s\n", key, v)
		}
	}
	o := &QuantizeOptions{}
	return o, o.parseRecipe(text.Bytes(), nil)
}

// recipeFile is the recipe that goes beside a model.
type recipeFile struct {
	path string
	text []byte
}

// recipeBeside is the effective recipe of the run that makes output from input. In the file, data and statistics go by their
// paths from there. It fails early when another file is in its place that may not be replaced.
func (o *QuantizeOptions) recipeBeside(codec *lattice.Codec, input, output string) (*recipeFile, error) {
	f := &recipeFile{path: withEnding(output, RecipeEnding)}
	e := o.effective(codec)
	for _, p := range []struct{ to, from *string }{{&e.Data, &o.Data}, {&e.Statistics, &o.Statistics}} {
		if *p.to != "" && !isRandom(*p.to) {
			*p.to = fileNamed(pathFrom(filepath.Dir(f.path), *p.from))
		}
	}
	text, err := e.recipe()
	if err != nil {
		return nil, err
	}
	f.text = fmt.Appendf(nil, "# The same bytes again: %s\n%s", commandAgain(filepath.Base(input), filepath.Base(f.path), filepath.Base(output)), text)
	old, err := regularfile.Read(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && bytes.Equal(old, f.text):
		return f, nil
	case errors.Is(err, regularfile.ErrNot):
		return nil, fmt.Errorf("%s: %w", f.path, onnx.ErrNotFile)
	case err != nil:
		return nil, err
	}
	if err := o.Reads(input).protect(f.path); err != nil {
		return nil, fmt.Errorf("the recipe of the output goes beside it, but %w", err)
	}
	if !o.Overwrite {
		return nil, fmt.Errorf("%s: %w", f.path, fs.ErrExist)
	}
	return f, nil
}

// commandAgain is the command that a recipe is for. A name with a line break, or one that is no text, would make the recipe
// unreadable: then it only says what goes where.
func commandAgain(input, recipe, output string) string {
	command := shellescape.QuoteCommand([]string{"cosetq", "quantize", input, "--recipe", recipe, "-o", output})
	if !utf8.ValidString(command) || strings.ContainsFunc(command, unicode.IsControl) {
		return commandAgain("MODEL", "RECIPE", "OUTPUT")
	}
	return command
}

// pathFrom is the way from the folder dir to path, or path made absolute where there is none.
func pathFrom(dir, path string) string {
	a, errA := filepath.Abs(dir)
	b, errB := filepath.Abs(path)
	if errA != nil || errB != nil {
		return path
	}
	if rel, err := filepath.Rel(a, b); err == nil {
		return filepath.ToSlash(rel)
	}
	return b
}
