package calib

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosetq/cosetq/internal/regularfile"
	"github.com/cosetq/cosetq/internal/strictyaml"
)

// Recipe says where data lies and how to turn it into model inputs. Which fields count depends on Kind.
// Paths are relative to the recipe's own folder.
type Recipe struct {
	Path string `yaml:"-"` // of the recipe file

	Kind   string  `yaml:"kind"`   // idx, npz, images, bytes or tokens
	Input  string  `yaml:"input"`  // model input to feed, when there are several
	Images string  `yaml:"images"` // idx: file of images, .gz allowed
	Labels string  `yaml:"labels"` // idx: file; npz: array; images: CSV file with columns file,label. Optional
	File   string  `yaml:"file"`   // npz, bytes, tokens: the data file
	Array  string  `yaml:"array"`  // npz, tokens of a .npz: name of the array; may be left out when there is one only
	Dir    string  `yaml:"dir"`    // images: folder of the pictures
	Shape  []int64 `yaml:"shape"`  // idx, npz: shape of one batch, with -1 for the batch
	Resize *Resize `yaml:"resize"` // images
	Pixel  Pixel   `yaml:"pixel"`  // idx, npz, images
	Seq    int64   `yaml:"seq"`    // bytes, tokens: tokens of one window
	DType  string  `yaml:"dtype"`  // tokens: element type of a raw file

	lines map[string]int // key → line
}

// Pixel says how stored values become model inputs: (value × scale − mean) / std, mean and std per channel.
type Pixel struct {
	Scale     *float64  `yaml:"scale"`     // default 1
	Mean      []float64 `yaml:"mean"`      // one per channel, or one for all; default 0
	Std       []float64 `yaml:"std"`       // likewise; default 1
	Layout    string    `yaml:"layout"`    // nchw (default) or nhwc
	Color     string    `yaml:"color"`     // images: rgb (default), bgr or gray
	Transpose bool      `yaml:"transpose"` // idx: swap rows and columns of each image
}

// Resize scales a picture so that its shorter side has the given length, then cuts out the central square.
type Resize struct {
	Shorter   int    `yaml:"shorter"`   // pixels; 0 leaves the size
	Filter    string `yaml:"filter"`    // bicubic (default, a = −1/2 as in Pillow) or bilinear
	Antialias *bool  `yaml:"antialias"` // widen the filter when shrinking, as Pillow does; default true
	Crop      int    `yaml:"crop"`      // pixels; 0 cuts nothing
}

// keysOf lists the keys that each kind understands; those with * must be there.
var keysOf = map[string][]string{
	"idx":    {"images*", "labels", "shape", "pixel", "pixel.scale", "pixel.mean", "pixel.std", "pixel.transpose"},
	"npz":    {"file*", "array", "labels", "shape", "pixel", "pixel.scale", "pixel.mean", "pixel.std", "pixel.layout"},
	"images": {"dir*", "labels", "resize", "resize.shorter", "resize.filter", "resize.antialias", "resize.crop", "pixel", "pixel.scale", "pixel.mean", "pixel.std", "pixel.layout", "pixel.color"},
	"bytes":  {"file*", "seq"},
	"tokens": {"file*", "array", "dtype", "seq"},
}

// ReadRecipe reads and checks a recipe file. It does not touch the data that the recipe names.
func ReadRecipe(path string) (*Recipe, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, &RecipeError{Path: path, Msg: fmt.Sprintf("is a folder; name it in a recipe, a .yaml file such as {kind: npz, file: '%[1]s/*.npz'} or {kind: images, dir: %[1]s}", filepath.Base(path))}
	}
	f, err := regularfile.Open(path)
	if err != nil {
		return nil, &RecipeError{Path: path, Msg: fmt.Sprintf("cannot be read: %v; give the path of a .yaml file, or random:N for random inputs", err), Err: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, &RecipeError{Path: path, Msg: fmt.Sprintf("cannot be read: %v", err), Err: err}
	}
	return ParseRecipe(path, text)
}

// ParseRecipe checks the text of a recipe; path is where it comes from.
func ParseRecipe(path string, text []byte) (*Recipe, error) {
	r := &Recipe{Path: path, lines: map[string]int{}}
	if len(text) > strictyaml.MaxBytes {
		return nil, r.fail("", "larger than %d bytes, so this is no recipe; give the .yaml file, not the data", strictyaml.MaxBytes)
	}
	keys, err := strictyaml.Decode(text, r)
	for _, k := range keys {
		r.lines[k.Name] = k.Line
	}
	var bad *strictyaml.Error
	switch {
	case errors.Is(err, strictyaml.ErrNoMapping):
		return nil, r.fail("", "%w; if it is the data itself, name it in a recipe, as {kind: bytes, file: text.txt, seq: 256}; the kinds are %s", err, strings.Join(kinds(), ", "))
	case errors.As(err, &bad):
		return nil, &RecipeError{Path: path, Line: bad.Line, Key: bad.Key, Msg: bad.Msg, Err: bad.Err}
	}
	if err := r.checkKeys(keys); err != nil {
		return nil, err
	}
	return r, r.checkValues()
}

// Files lists the files that the recipe names, as far as they are there.
func (r *Recipe) Files() []string {
	files, _ := r.files(0) // opening the data tells what is wrong with it
	return files
}

// isPattern tells whether the file of kind npz stands for several.
func (r *Recipe) isPattern() bool { return strings.ContainsAny(r.File, "*?[") }

func kinds() []string {
	var ks []string
	for k := range keysOf {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// checkKeys refuses keys that the kind does not have, and misses those it needs.
func (r *Recipe) checkKeys(keys []strictyaml.Key) error {
	if r.Kind == "" {
		return r.fail("kind", "is missing; it is one of %s", strings.Join(kinds(), ", "))
	}
	table, ok := keysOf[r.Kind]
	if !ok {
		return r.fail("kind", "%q is not known%s", r.Kind, didYouMean(r.Kind, kinds()))
	}
	known, missing := []string{"kind", "input"}, ""
	for _, k := range table {
		name, required := strings.CutSuffix(k, "*")
		if required && r.lines[name] == 0 && missing == "" {
			missing = name
		}
		known = append(known, name)
	}
	for _, k := range keys { // first, since what is missing may be what is misspelt
		if !slices.Contains(known, k.Name) {
			return r.fail(k.Name, "is not a key of kind %s%s", r.Kind, didYouMean(k.Name, known))
		}
	}
	if missing != "" {
		return r.fail(missing, "is missing; kind %s needs it", r.Kind)
	}
	return nil
}

// checkValues refuses values that no data could make right.
func (r *Recipe) checkValues() error {
	oneOf := func(key, value string, allowed ...string) error {
		if value == "" || slices.Contains(allowed, value) {
			return nil
		}
		return r.fail(key, "%q is not known%s", value, didYouMean(value, allowed))
	}
	batch := 0
	for _, d := range r.Shape {
		if d == -1 {
			batch++
		} else if d <= 0 {
			return r.fail("shape", "holds %d; sizes are positive, and -1 stands for the batch", d)
		}
	}
	if batch > 1 {
		return r.fail("shape", "holds -1 more than once; it stands for the batch")
	}
	if batch == 1 && r.Shape[0] != -1 {
		return r.fail("shape", "has -1 inside; the batch is the first dimension")
	}
	for _, s := range r.Pixel.Std {
		if s == 0 {
			return r.fail("pixel.std", "holds 0, which would divide by zero")
		}
	}
	scale := []float64{}
	if r.Pixel.Scale != nil {
		scale = append(scale, *r.Pixel.Scale)
	}
	for _, p := range []struct {
		key    string
		values []float64
	}{{"pixel.scale", scale}, {"pixel.mean", r.Pixel.Mean}, {"pixel.std", r.Pixel.Std}} {
		for _, v := range p.values {
			if v-v != 0 {
				return r.fail(p.key, "holds %v; it is made of finite numbers", v)
			}
		}
	}
	if r.lines["seq"] > 0 && r.Seq < 1 {
		return r.fail("seq", "is %d; a window has at least one token", r.Seq)
	}
	resize := r.Resize
	if resize == nil {
		resize = &Resize{}
	}
	if resize.Shorter < 0 || resize.Crop < 0 || max(resize.Shorter, resize.Crop) > maxSide {
		return r.fail("resize", "sides must lie between 1 and %d pixels", maxSide)
	}
	if resize.Shorter > 0 && resize.Crop > resize.Shorter {
		return r.fail("resize.crop", "%d is more than resize.shorter, %d", resize.Crop, resize.Shorter)
	}
	return errors.Join(
		oneOf("pixel.layout", r.Pixel.Layout, "nchw", "nhwc"),
		oneOf("pixel.color", r.Pixel.Color, "rgb", "bgr", "gray"),
		oneOf("resize.filter", resize.Filter, "bicubic", "bilinear"),
		oneOf("dtype", r.DType, "uint8", "uint16", "int16", "uint32", "int32", "int64"),
	)
}
