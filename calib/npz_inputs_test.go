package calib_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cosetq/cosetq/calib"
	"github.com/cosetq/cosetq/tensor"
)

// Every input of a model takes the array of its name, in its own type and shape.
func TestNPZOfSeveralInputs(t *testing.T) {
	const (
		two16   = "\x01\x00\x02\x00\x03\x00\x04\x00" // [2, 2]
		steps   = "\x00\x00\x80\x3f\x00\x00\x00\x40" // [2]
		state   = "\x01\x02\x03\x04"                 // [2, 2, 1]
		ids     = "\x07\x00\x00\x00\x00\x01\x00\x00\x08\x00\x00\x00\x00\x01\x00\x00"
		classes = "\x05\x06"
	)
	arrays := map[string]string{
		"tokens": npy("<i2", "2, 2", two16), "step": npy("<f4", "2,", steps), "scalar": npy("<f4", "2,", steps),
		"state": npy("|b1", "2, 2, 1", state), "ids": npy("<i8", "2, 1", ids), "classes": npy("|u1", "2,", classes),
	}
	dir := folder(t, map[string]string{"a.npz": npz(t, arrays), "b.npz": npz(t, arrays)})
	inputs := []tensor.Spec{
		input("tokens", tensor.Int64, -1, -1), // from another integer type
		input("step", tensor.Float16Type, 1),  // a number per sample
		input("scalar", tensor.Float32),       // without a dimension
		input("state", tensor.Bool, 2, 1),     // without a batch
		input("ids", tensor.Int64, -1, 1),     // more than float32 holds
	}
	for file, samples := range map[string]int{"a.npz": 2, "'*.npz'": 4} {
		r := mustOpen(t, dir, "kind: npz\nfile: "+file+"\nlabels: classes\n", calib.Options{}, inputs...)
		if r.Len() != samples {
			t.Fatalf("%s: %d samples, want %d", file, r.Len(), samples)
		}
		for _, want := range []struct {
			name   string
			shape  []int64
			values []float64
		}{
			{"tokens", []int64{1, 2}, []float64{3, 4}}, {"step", []int64{1}, []float64{2}}, {"scalar", []int64{}, []float64{2}},
			{"ids", []int64{1, 1}, []float64{1<<40 + 8}},
		} {
			got, shape, s := values(t, r, samples-1, want.name)
			if !slices.Equal(got, want.values) || !slices.Equal(shape, want.shape) || s.Label != 6 {
				t.Errorf("%s: %s is %v %v, want %v %v; label %d", file, want.name, shape, got, want.shape, want.values, s.Label)
			}
		}
		s, err := r.Sample(samples - 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range inputs {
			if x := s.Inputs[in.Name]; x.Check() != nil || !in.Accepts(x.Type, x.Shape) {
				t.Errorf("%s: input %v gets %v %v", file, in, x.Type, x.Shape)
			}
		}
	}
	for _, c := range []struct {
		recipe string
		in     tensor.Spec
		want   string
	}{
		{"", input("mask", tensor.Int64, -1, -1), "an input mask int64[?,?]: store an array for each input under its name"},
		{"", input("step", tensor.Int64, 1), "array step holds float32, and the model's input is step int64[1]"},
		{"", input("state", tensor.Float32, 2, 1), "array state holds bool"},
		{"", input("tokens", tensor.Int64, -1, 3), "the data gives [1,2] per sample"},
		{"shape: [-1, 2]\n", input("step", tensor.Float32, 1), "is for models with one input"},
		{"labels: mask\n", input("step", tensor.Float32, 1), "has no array \"mask\""},
	} {
		_, err := open(t, dir, "kind: npz\nfile: a.npz\n"+c.recipe, calib.Options{}, input("ids", tensor.Int64, -1, 1), c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s%v: error %v, want %q", c.recipe, c.in, err, c.want)
		}
	}
	uneven := folder(t, map[string]string{"a.npz": npz(t, map[string]string{"ids": arrays["ids"], "one": npy("<f4", "1,", steps[:4])})})
	if _, err := open(t, uneven, "kind: npz\nfile: a.npz\n", calib.Options{}, input("ids", tensor.Int64, -1, 1), input("one", tensor.Float32, 1)); err == nil ||
		!strings.Contains(err.Error(), "array one holds 1 samples, and array ids 2") {
		t.Errorf("uneven arrays: %v", err)
	}
}

// A merged decoder takes its tokens and what the encoder made of the input; the caches are empty and their branch is off. A decoder
// that has only the cache to know its encoder by needs it.
func TestNPZOfADecoderStartsWithoutPast(t *testing.T) {
	arrays := map[string]string{"input_ids": npy("<i8", "1, 1", "\x07\x00\x00\x00\x00\x00\x00\x00"), "encoder_hidden_states": npy("<f4", "1, 1, 1", "\x00\x00\x80\x3f")}
	self, cross := input("past_key_values.0.decoder.key", tensor.Float32, -1, 2, -1, 8), input("past_key_values.0.encoder.key", tensor.Float32, -1, 2, -1, 8)
	on := input("use_cache_branch", tensor.Bool, 1)
	ids, states := input("input_ids", tensor.Int64, -1, -1), input("encoder_hidden_states", tensor.Float32, -1, -1, 1)
	dir := folder(t, map[string]string{"a.npz": npz(t, arrays)})
	const recipe = "kind: npz\nfile: a.npz\n"
	r := mustOpen(t, dir, recipe, calib.Options{}, self, ids, states, cross, on)
	for name, want := range map[string][]int64{self.Name: {1, 2, 0, 8}, cross.Name: {1, 2, 0, 8}, on.Name: {1}, ids.Name: {1, 1}, states.Name: {1, 1, 1}} {
		v, shape, _ := values(t, r, 0, name)
		if !slices.Equal(shape, want) || name == on.Name && v[0] != 0 {
			t.Errorf("%s is %v %v, want the shape %v, and the switch off", name, shape, v, want)
		}
	}
	arrays[self.Name] = npy("<f4", "1, 2, 1, 8", string(make([]byte, 64)))
	given := folder(t, map[string]string{"a.npz": npz(t, arrays)})
	for want, c := range map[string]struct {
		dir    string
		inputs []tensor.Spec
	}{
		"an input past_key_values.0.encoder.key": {dir, []tensor.Spec{ids, self, cross}},
		"an input use_cache_branch":              {given, []tensor.Spec{ids, self, on}},
		"none is for an input of the model":      {dir, []tensor.Spec{self, on}},
	} {
		if _, err := open(t, c.dir, recipe, calib.Options{}, c.inputs...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Integers reach integers, and bool, of any type exactly; what one cannot hold is refused by the name of its array.
func TestNPZIntegers(t *testing.T) {
	const large = 1<<40 + 8
	dir := folder(t, map[string]string{
		"two.npz": npz(t, map[string]string{
			"a": npy("<i8", "2,", "\x07\x00\x00\x00\x00\x01\x00\x00\x08\x00\x00\x00\x00\x01\x00\x00"),                       // large-1, large
			"b": npy("|i1", "2,", "\x00\x01"), "c": npy("<i2", "2,", "\x2c\x01\xff\x00"), "d": npy("|b1", "2,", "\x01\x00"), // c: 300, 255
		}),
		"one.npz": npz(t, map[string]string{"ids": npy("<i8", "1, 1", "\x08\x00\x00\x00\x00\x01\x00\x00")}),
	})
	for _, c := range []struct {
		name  string
		typ   tensor.Type
		first float64
	}{
		{"a", tensor.Uint64, large - 1}, {"b", tensor.Bool, 0}, {"b", tensor.Int32, 0}, {"c", tensor.Uint16, 300}, {"c", tensor.Int16, 300}, {"c", tensor.Uint32, 300},
		{"d", tensor.Int64, 1},
	} {
		other := input("a", tensor.Int64, -1)
		if c.name == "a" {
			other = input("b", tensor.Int8, -1)
		}
		r := mustOpen(t, dir, "kind: npz\nfile: two.npz", calib.Options{}, input(c.name, c.typ, -1), other)
		if got, _, s := values(t, r, 0, c.name); len(got) != 1 || got[0] != c.first || s.Inputs[c.name].Type != c.typ {
			t.Errorf("%s as %v is %v, want %v", c.name, c.typ, got, c.first)
		}
	}
	for _, in := range []tensor.Spec{input("c", tensor.Uint8, -1), input("c", tensor.Bool, -1)} {
		r := mustOpen(t, dir, "kind: npz\nfile: two.npz", calib.Options{}, in, input("b", tensor.Int8, -1))
		if _, err := r.Sample(0); err == nil || !strings.Contains(err.Error(), "array c holds 300, which the model's input c") {
			t.Errorf("300 as %v: %v", in.Type, err)
		}
	}
	r := mustOpen(t, dir, "kind: npz\nfile: one.npz", calib.Options{}, input("ids", tensor.Int64, -1, 1))
	if got, _, _ := values(t, r, 0, "ids"); len(got) != 1 || got[0] != large {
		t.Errorf("%v, want %v", got, large)
	}
	r = mustOpen(t, dir, "kind: npz\nfile: one.npz", calib.Options{}, input("ids", tensor.Int16, -1, 1))
	if _, err := r.Sample(0); err == nil || !strings.Contains(err.Error(), "array: holds 1099511627784, which the model's input ids") {
		t.Errorf("a large number as int16: %v", err)
	}
}
